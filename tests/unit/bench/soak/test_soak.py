"""What bench.soak finds wrong, and what it adds up."""

from __future__ import annotations

import pytest

from bench.soak.__main__ import Sample, _faults, _memory
from bench.soak.figures import DOCUMENTED, answers, gauges
from bench.soak.load import Outcome
from bench.soak.overload import share_of_best


def samples(*memory: float) -> list[Sample]:
    return [Sample(i, rss, 50, 1, 0, 1) for i, rss in enumerate(memory)]


def outcomes(*kinds: str) -> list[Outcome]:
    return [Outcome(i, kind, 0.5, 0.1, 7) for i, kind in enumerate(kinds)]


LEVEL = {"memory_growth": 0.0, "left": {"running": 0, "waiting": 0, "blocks": 0}}


def test_a_quiet_run_has_no_faults() -> None:
    assert _faults(outcomes(*DOCUMENTED), LEVEL) == []


@pytest.mark.parametrize(
    ("kinds", "found", "words"),
    [
        (["ok", "internal_error"], LEVEL, "an answer was internal_error"),
        (["overloaded"], LEVEL, "nothing was answered"),
        (["ok"], LEVEL | {"memory_growth": 0.031}, "memory grew by 3.1%"),
        (["ok"], LEVEL | {"left": {"blocks": 2, "running": 0}}, "2 blocks are left"),
    ],
)
def test_each_fault_is_named(kinds: list[str], found: dict, words: str) -> None:
    assert _faults(outcomes(*kinds), found) == [words]


def test_memory_is_compared_with_its_level_after_warm_up() -> None:
    found = _memory(samples(*[500] * 10, *[1000] * 35, *[1050] * 5))
    assert found["levels"]["rss_mb"] == [1000, 1050]
    assert found["memory_growth"] == 0.05


def test_answers_are_counted_by_kind() -> None:
    found = answers(outcomes("ok", "ok", "cancelled", "overloaded"), 10)
    assert found["kinds"] == {"ok": 2, "cancelled": 1, "overloaded": 1}
    assert (found["answers_per_s"], found["tokens_per_s"]) == (0.2, 1.4)
    assert found["refusal_ms"]["p99"] == 500


def test_gauges_are_read_with_labels_and_without() -> None:
    page = (
        "pythia_num_requests_running 3.0\n"
        'pythia_num_requests_waiting{model="bundled"} 4.0\n'
        "pythia_kv_blocks_used 5.0\n"
    )
    assert gauges(page) == {"running": 3, "waiting": 4, "blocks": 5}
    with pytest.raises(RuntimeError, match="kv_blocks_used"):
        gauges(page[: page.rindex("pythia")])


def test_the_share_of_overload_is_that_of_the_middle_round() -> None:
    assert share_of_best([100, 90, 200, 100, 100, 95]) == 0.9
