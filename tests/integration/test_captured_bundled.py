"""What is seen of ``bundled`` through a runner: in this process and in one of its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pythia_bento.engine.capture import Capture, Lens, Tap
from pythia_bento.engine.interventions import Intervention
from pythia_bento.engine.outputs import SequenceOutput
from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.model.sites import RESID_POST, RESID_PRE, Place
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.integration.captures import ALL, Rows, capturing, changing, everything, rows_of, same

PROMPT = (5, 60, 7, 80, 9, 100, 11, 120, 13, 140)
PARAMS = SamplingParams(max_tokens=6, temperature=0.7, seed=9, logprobs=2, ignore_eos=True)


def runner(**settings: Any) -> PythiaRunner:
    return PythiaRunner.load(Settings(device="cpu", max_batch_size=8, kv_cache_gb=0.02, **settings))


def seen(
    runner: PythiaRunner, requests: list[Request]
) -> tuple[list[list[SequenceOutput]], list[Rows]]:
    """All answers, and what each request shows."""

    async def ask() -> tuple[list[list[SequenceOutput]], list[Rows]]:
        with await runner.capture(requests) as found:
            rows = [
                {
                    name: values.copy()
                    for name, values in rows_of(
                        request, answers[0], runner.config, np.frombuffer(memory, np.uint8)
                    ).items()
                }
                for request, answers, memory in zip(
                    requests, found.outputs, found.memory, strict=True
                )
            ]
        return found.outputs, rows

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def near():
    torch.set_num_threads(1)
    with runner() as near:
        yield near


def test_a_process_of_its_own_has_the_same_bits(near):
    config = near.config
    everywhere = capturing(Request("all", PROMPT, PARAMS), everything(config))
    vector = np.linspace(-1, 1, config.hidden_size, dtype=np.float32)
    steered = Intervention(Place(RESID_PRE, 1), "add", ALL, values=vector, scale=2.0)
    changed = changing(replace(everywhere, request_id="changed"), steered)
    with runner(engine_process=True) as far:
        assert far.config == config
        one, other = seen(near, [everywhere, changed]), seen(far, [everywhere, changed])
    assert one[0] == other[0]
    assert all(same(ours, theirs) for ours, theirs in zip(one[1], other[1], strict=True))
    assert one[0][0][0].logprobs != one[0][1][0].logprobs


def test_seeing_and_the_last_layers_lens_agree_with_scores(near):
    plain = Request("p", PROMPT, SamplingParams(max_tokens=0, prompt_logprobs=3))
    last = Place(RESID_POST, near.config.num_layers - 1)
    lens = Capture((Tap(last, ALL, reduction=Lens(3, tuple(dict.fromkeys(PROMPT)))),))
    [[scored]], [rows] = seen(near, [capturing(plain, lens)])
    [[expected]] = near.complete_sync([plain])
    assert list(scored.prompt_logprobs) == list(expected.prompt_logprobs)
    ids, best, given = rows.values()
    for position, token in enumerate(expected.prompt_logprobs):
        alternatives = zip(ids[position].tolist(), best[position].tolist(), strict=True)
        assert list(alternatives) == list(token.top)
        assert given[position, PROMPT.index(token.token_id)] == token.logprob
