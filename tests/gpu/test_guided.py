"""Masks on the device: against the definition, and beside rows of captured steps."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from bench.gpu.invariance import facts, together
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import EngineConfig
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.executor import make_executor
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sampling import choose
from tests.constraints import CASES
from tests.gpu.test_options import DEVICE, odd_logits, odd_rows, requests
from tests.gpu.test_triton import RandomWeights, on_gpu
from tests.tokenizer_parts import raw_tokenizer


@pytest.mark.parametrize("vocab, count", [(307, 48), (50304, 24)])
def test_choices_among_what_masks_leave_follow_the_definition(vocab: int, count: int) -> None:
    """Greedy and by top-k of few, where backends' last places of exp and ln decide nothing."""
    from pythia_bento.model.kernels.gpu.kernels import TritonKernels

    draw, num_tokens = np.random.default_rng(vocab), vocab - 7
    logits, rows = odd_logits(count, vocab), []
    for index, row in enumerate(odd_rows(count, vocab, num_tokens)):
        words = draw.integers(-(2**31), 2**31, -(-num_tokens // 32)).astype(np.int32)
        mask = words if index % 3 else np.zeros_like(words)
        mask[1] |= 1 << 4
        plain = replace(row, temperature=0.0, seed=index) if index % 2 else replace(row, top_k=1)
        rows.append(replace(plain, mask=None if index % 5 == 0 else mask))
    kernels = TritonKernels(ModelConfig(1, 128, 4, 512, vocab, 64, 8), DEVICE)
    found = kernels.sample(logits.to(DEVICE), rows, num_tokens).tolist()
    assert found == [choose(own, row, num_tokens) for own, row in zip(logits, rows, strict=True)]


def guided(count: int) -> list[Request]:
    draw, cases = random.Random(count), [*CASES.values()]
    return [
        Request(
            f"g{index}",
            tuple(draw.randrange(1, 200) for _ in range(draw.randint(1, 90))),
            SamplingParams(
                max_tokens=60,
                temperature=draw.choice([0.0, 0.7, 1.3]),
                top_p=draw.choice([1.0, 0.9]),
                repetition_penalty=draw.choice([1.0, 1.3]),
                logprobs=draw.choice([None, 0, 5]),
                seed=draw.getrandbits(63),
                constraint=cases[index % len(cases)].constraint,
            ),
        )
        for index in range(count)
    ]


@pytest.mark.parametrize("blocks", [600, 26])
def test_neither_kind_of_rows_depends_on_the_other(blocks: int) -> None:
    """With few blocks sequences are preempted."""
    model, tokenizer = on_gpu(RandomWeights(64)), Tokenizer(raw_tokenizer())

    def engine(blocks: int) -> Engine:
        sizes = EngineConfig(blocks, 16, 512)
        return Engine(make_executor(model, sizes, tokenizer.num_tokens), tokenizer)

    asked = [*guided(24), *requests(30, blocks)]
    random.Random(blocks).shuffle(asked)
    mixed, single = engine(blocks), engine(600)
    answers = together(mixed, asked)
    mixed.check()
    for request in asked:
        [[alone]] = single.generate([request])
        assert facts(alone) == facts(answers[request.request_id])
        if request.params.constraint and alone.finish_reason == "stop":
            [conforms, *_] = [
                case.conforms
                for case in CASES.values()
                if case.constraint == request.params.constraint
            ]
            assert conforms(alone.text)
    mixed.close()
    single.close()
