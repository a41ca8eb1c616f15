"""The loads of bench.serving.serve and bench.gpu.latency, on an engine without arithmetic."""

from __future__ import annotations

import itertools

import pytest

from bench.common.stats import Timing
from bench.gpu import latency
from bench.gpu.dependence import Answer, common, compare
from bench.serving import closed_loop
from bench.serving.closed_loop import Load, decode_rate, measure, run
from bench.serving.serve import ENGINE
from bench.serving.serve import compare as shares
from tests.unit.engine.toy import toy_engine


def test_every_client_asks_again_when_its_answer_has_ended() -> None:
    seen: list[int] = []

    def before(chunks: object) -> None:
        seen.append(engine.stats().running + engine.stats().waiting)

    engine = toy_engine(64, max_batch_size=8, before=before)
    timings = run(engine, Load(clients=4, rounds=3, prompt=6, new=5))
    assert len(timings) == 12
    assert all(timing.tokens == 5 == len(timing.arrivals) for timing in timings)
    assert all(timing.start < timing.arrivals[0] < timing.end for timing in timings)
    assert max(seen) == 4


def test_requests_differ_by_client_round_and_seed() -> None:
    prompts = {
        request.prompt
        for seed in (0, 1)
        for client in Load(3, 2, 8, 4, seed).requests(100)
        for request in client
    }
    assert len(prompts) == 12


def test_measure_reports_rates_under_both_loads() -> None:
    found = measure(toy_engine(64), Load(clients=2, rounds=2, prompt=4, new=6))
    assert found["tokens"] == 24
    assert found["tokens_per_s"] > 0
    assert found["decode_tokens_per_s"] > 0
    assert decode_rate(toy_engine(64), Load(1, 1, 4, 1)) == 0.0  # nothing after the first token


def test_the_rate_of_decoding_counts_what_came_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single tokens beside the others' prompts say nothing of the visits afterwards."""
    timings = [Timing(0.0, 10, [1.0, 2.0, 3.0, 5.0], 5.0), Timing(0.0, 9, [2.0, 3.0, 5.0], 5.0)]
    arrived = [(1.0, 1), (2.0, 2), (3.0, 4), (5.0, 12)]
    monkeypatch.setattr(closed_loop, "_run", lambda engine, load: (timings, arrived))
    assert decode_rate(toy_engine(64), Load(2, 1, 4, 10)) == (4 + 12) / 3


def test_shares_are_of_the_engine_in_the_same_run() -> None:
    rows = [
        {"backend": ENGINE, "tokens_per_s": 1000.0, "decode_tokens_per_s": 2000.0},
        {"backend": "http", "tokens_per_s": 800.0},
        {"backend": "http-stream", "tokens_per_s": 599.0},
    ]
    shares(rows)
    assert "share_of_engine" not in rows[0]
    assert (rows[1]["share_of_engine"], rows[1]["share_of_decode"]) == (0.8, 0.4)
    assert rows[1]["reached"] is True
    assert rows[2]["reached"] is False


def ticking() -> itertools.count[float]:
    return itertools.count(0.0, 0.001)


def test_long_prompts_arrive_and_their_time_counts_from_when_they_were_due() -> None:
    clock = ticking().__next__  # each look at the clock takes a millisecond
    engine = toy_engine(256, max_batch_size=8, max_tokens_per_step=32)
    found = latency.run(engine, 2, 30, 20, 4.0, 0, prompt=6, clock=clock)
    assert found["long_prompts"] > 3
    assert found["gap_ms"]["p50"] > 0
    assert found["long_first_token_ms"]["p50"] > 0
    assert not engine.has_work
    engine.check()


def test_without_arrivals_there_is_no_long_prompt() -> None:
    engine = toy_engine(256, max_batch_size=8, max_tokens_per_step=32)
    found = latency.run(engine, 2, 30, 20, None, 0, prompt=6, clock=ticking().__next__)
    assert found["long_prompts"] == 0
    assert found["long_first_token_ms"] is None
    assert found["tokens_per_arrival"] == 1.0


def test_a_smaller_budget_cuts_long_prompts_into_more_pieces() -> None:
    steps = []
    for budget in (32, 9):
        engine = toy_engine(256, max_batch_size=8, max_tokens_per_step=32)
        latency.set_budget(engine, budget)
        latency.run(engine, 2, 30, 28, 20.0, 0, prompt=6, clock=ticking().__next__)
        steps.append(engine.stats().steps)
    assert steps[1] > steps[0]


@pytest.mark.parametrize(
    ("one", "other", "same"), [([1, 2, 3], [1, 2, 3], 3), ([1, 2], [1, 3], 1), ([1], [2], 0)]
)
def test_common_beginning(one: list[int], other: list[int], same: int) -> None:
    assert common(one, other) == same


def test_compare_looks_no_further_than_the_first_difference() -> None:
    alone = [Answer([1, 2, 3], [-0.5, -1.0, -9.0]), Answer([4, 5, 6], [-1.0, -1.0, -1.0])]
    together = [Answer([1, 2, 4], [-0.5, -1.25, -1.0]), Answer([4, 5, 6], [-1.0, -1.0, -1.0])]
    assert compare(alone, together) == {"changed": 1, "of": 2, "max_logprob_difference": 0.25}
    assert compare(alone, alone)["max_logprob_difference"] == 0.0
