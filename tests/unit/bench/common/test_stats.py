from __future__ import annotations

import pytest

from bench.common.stats import Timing, percentile, spread_ms, summary


@pytest.mark.parametrize(
    ("percent", "wanted"), [(0, 1.0), (1, 1.0), (50, 2.0), (51, 3.0), (99, 4.0), (100, 4.0)]
)
def test_percentile_is_one_of_the_values(percent: float, wanted: float) -> None:
    assert percentile([3.0, 1.0, 4.0, 2.0], percent) == wanted


def test_spread_is_in_milliseconds_and_empty_without_values() -> None:
    assert spread_ms([0.002, 0.001, 0.0045]) == {"p50": 2.0, "p99": 4.5, "max": 4.5}
    assert spread_ms([]) is None


def test_summary_counts_from_the_first_start_to_the_last_end() -> None:
    streamed = Timing(start=10.0, tokens=5, arrivals=[10.5, 11.0, 12.5], end=12.5)
    plain = Timing(start=11.0, tokens=15, end=15.0)
    found = summary([streamed, plain])
    assert found["tokens"] == 20
    assert found["seconds"] == 5.0
    assert found["tokens_per_s"] == 4.0
    assert found["first_token_ms"] == {"p50": 500.0, "p99": 500.0, "max": 500.0}
    assert found["gap_ms"] == {"p50": 500.0, "p99": 1500.0, "max": 1500.0}
    assert found["token_ms"]["max"] == 500.0  # two seconds for four tokens
    assert found["answer_ms"]["max"] == 4000.0


def test_summary_of_plain_answers_has_no_stream() -> None:
    found = summary([Timing(start=0.0, tokens=4, end=2.0)])
    assert found["tokens_per_s"] == 2.0
    assert found["first_token_ms"] is found["gap_ms"] is found["token_ms"] is None
