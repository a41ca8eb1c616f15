"""Tokens that a device chose, put into the results of their chunks."""

from __future__ import annotations

import math

import torch

from pythia_bento.engine.executor import ChunkResult
from pythia_bento.engine.logprobs import TokenLogprob
from pythia_bento.executor.choice import QueuedChoice, QueuedTokens
from pythia_bento.model.batch import Logprobs


def results(count: int) -> list[ChunkResult]:
    return [ChunkResult([], []) for _ in range(count)]


def test_tokens_of_some_rows_of_a_pass() -> None:
    found = results(2)
    QueuedTokens(lambda: [4, 5, -1], [0, 2]).put_into(found)
    assert [(r.token_ids, r.is_finite) for r in found] == [([4], True), ([-1], False)]


def test_log_probabilities_are_of_rows_that_have_a_limit() -> None:
    logprobs = Logprobs(
        chosen=torch.tensor([-0.5, -1.0, math.nan]),
        ranks=torch.tensor([1, 2, 0], dtype=torch.int32),
        top_ids=torch.tensor([[7, 8], [6, 5], [-1, -1]], dtype=torch.int32),
        top=torch.tensor([[-0.5, -2.0], [-0.25, -1.0], [math.nan, math.nan]]),
    )
    tokens = torch.tensor([9, 7, 5, -1], dtype=torch.int32)
    found = results(4)
    choice = QueuedChoice(tokens, [None, 0, 2, 1], logprobs)
    assert not choice.is_pending  # on a CPU there is no device to wait for
    choice.put_into(found)
    assert [r.token_ids for r in found] == [[9], [7], [5], [-1]]
    assert [r.logprobs for r in found] == [
        [],
        [TokenLogprob(7, -0.5)],
        [TokenLogprob(5, -1.0, ((6, -0.25), (5, -1.0)))],
        [],
    ]
    assert [r.is_finite for r in found] == [True, True, True, False]


def test_the_first_that_is_asked_completes_all() -> None:
    asked: list[str] = []

    def wait() -> list[int]:
        asked.append("once")
        return [3, 4]

    found = results(2)
    QueuedTokens(wait, [0, 1]).deliver(found, later=True)
    assert asked == [] and all(r.complete is not None for r in found)
    assert found[1].complete is not None
    found[1].complete()
    assert [r.token_ids for r in found] == [[3], [4]]
    assert asked == ["once"] and all(r.complete is None for r in found)
