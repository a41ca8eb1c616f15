"""Prompts that arrive while many others decode: small passes, whose graphs are mostly padding."""

from __future__ import annotations

from itertools import count

import pytest

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.outputs import SequenceOutput, collect
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.executor.graphs.prefill import TOKENS
from tests.gpu.test_triton import RandomWeights, on_gpu
from tests.tokenizer_parts import raw_tokenizer

MOST = 96  # sequences: more than the graphs of 64, so that all kinds are met
OTHERS = (0, 3, 9, 40, 70)
LENGTHS = (1, 15, 16, 17, 30, 31, 32, 33, 50, 63, 64, 65, 90)


def request(name: str, length: int, new: int, tokenizer: Tokenizer, *, scored: bool) -> Request:
    prompt = tuple((29 * length + 13 * i) % tokenizer.num_tokens for i in range(length))
    params = SamplingParams(
        max_tokens=new,
        temperature=0.5,
        seed=length,
        ignore_eos=True,
        logprobs=0,
        prompt_logprobs=0 if scored else None,
    )
    return Request(name, prompt, params)


def beside(engine: Engine, asked: Request, others: list[Request]) -> SequenceOutput:
    """Its answer, begun when all the others decode."""
    for other in others:
        engine.add_request(other)
    while len(engine.running) < len(others) or any(s.num_generated < 2 for s in engine.running):
        engine.step()
    engine.add_request(asked)
    found = []
    while engine.has_work:
        found += [output for output in engine.step() if output.request_id == asked.request_id]
    [[answer]] = collect([asked], found)
    return answer


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("head_dim", [64, 256])
def test_a_prompt_has_its_bits_whoever_decodes_beside_it(head_dim: int, *, scored: bool) -> None:
    tokenizer = Tokenizer(raw_tokenizer())
    sizes = EngineConfig(1200, MOST, 1024)
    model = on_gpu(RandomWeights(head_dim))
    engine = Engine(make_executor(model, sizes, tokenizer.num_tokens), tokenizer)
    numbers = count()
    for length in LENGTHS:
        want: SequenceOutput | None = None
        for others in OTHERS:
            company = [
                request(f"{next(numbers)}", 1 + i % 3, 40, tokenizer, scored=False)
                for i in range(others)
            ]
            asked = request(f"{next(numbers)}", length, 4, tokenizer, scored=scored)
            found = beside(engine, asked, company)
            want = want or found
            assert found.token_ids == want.token_ids, (length, others)
            assert found.logprobs == want.logprobs, (length, others)
            assert found.prompt_logprobs == want.prompt_logprobs, (length, others)
    assert min(TOKENS) <= 64  # else no graph had more sequences than tokens
    engine.close()
