"""Passes of more tokens than graphs are captured for at the start: the bits of small ones."""

from __future__ import annotations

import random

import pytest

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.fair_queue import Pace
from pythia_bento.engine.params import Request, SamplingParams, score_request
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.executor.graphs.runner import CudaModelRunner
from pythia_bento.model.gpt_neox import GPTNeoX
from tests.gpu.test_triton import RandomWeights, on_gpu
from tests.tokenizer_parts import raw_tokenizer

SEQUENCES, BLOCKS = 48, 1200


@pytest.fixture(scope="module", params=[64, 256])
def model(request: pytest.FixtureRequest) -> GPTNeoX:
    return on_gpu(RandomWeights(request.param))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(raw_tokenizer())


def make(model: GPTNeoX, tokenizer: Tokenizer, tokens: int, most: int) -> Engine:
    sizes = EngineConfig(BLOCKS, SEQUENCES, tokens, most)
    return Engine(make_executor(model, sizes, tokenizer.num_tokens), tokenizer)


def prompts(tokenizer: Tokenizer, seed: int) -> list[tuple[int, ...]]:
    """Of all lengths, some 20,000 tokens together."""
    draw = random.Random(seed)
    lengths = [draw.choice([1, 2, 63, 128, 300, 700, 1000]) for _ in range(SEQUENCES)]
    return [tuple(draw.randrange(tokenizer.num_tokens) for _ in range(n)) for n in lengths]


def in_a_hurry(engine: Engine, most: int) -> None:
    """All passes as large as they may be, whatever the device is known to compute."""
    engine._scheduler.pace = Pace(2048, engine._scheduler.waiting.books.company, most)
    engine._scheduler.pace.observe(10**6, 1e-3)


def test_scores_of_large_passes_have_the_bits_of_small_ones(
    model: GPTNeoX, tokenizer: Tokenizer
) -> None:
    texts = prompts(tokenizer, 1)
    small, large = make(model, tokenizer, 300, 300), make(model, tokenizer, 2048, 8192)
    want = small.generate([score_request(text, 1) for text in texts])
    sizes = []
    for most in (8192, 8192, 4096, 8192):  # launched, captured, and again
        in_a_hurry(large, most)
        steps = large.stats().steps
        found = large.generate([score_request(text, 1) for text in texts])
        sizes.append(large.stats().steps - steps)
        for [one], [other] in zip(found, want, strict=True):
            assert one.prompt_logprobs == other.prompt_logprobs
    assert sizes[2] > sizes[0] == sizes[1] == sizes[3]
    runner = large._executor
    assert isinstance(runner, CudaModelRunner)
    captured = runner.prefill._stretches._graphs
    assert (SEQUENCES, 8192) in captured
    small.close()
    large.close()


def test_tokens_after_large_passes_are_those_after_small_ones(
    model: GPTNeoX, tokenizer: Tokenizer
) -> None:
    def asked(seed: int) -> list[Request]:
        params = SamplingParams(max_tokens=6, temperature=0.7, seed=seed, ignore_eos=True)
        texts = prompts(tokenizer, seed)
        return [Request(f"{i}", text, params) for i, text in enumerate(texts)]

    small, large = make(model, tokenizer, 300, 300), make(model, tokenizer, 2048, 8192)
    for seed in (2, 3, 4):
        in_a_hurry(large, 8192)
        found, want = large.generate(asked(seed)), small.generate(asked(seed))
        assert [one.token_ids for [one] in found] == [one.token_ids for [one] in want]
    small.close()
    large.close()
