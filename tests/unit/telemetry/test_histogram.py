from __future__ import annotations

from pythia_bento.telemetry.histogram import SECONDS, Histogram, cumulative


def test_a_value_belongs_to_the_first_bound_that_is_not_below_it() -> None:
    found = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        found.observe(value)
    found.observe(1.5, times=3)
    assert found.counts == [2, 5, 1]
    assert found.sum == 12.0
    assert cumulative(found.bounds, found.counts) == [("1", 2), ("2", 7), ("+Inf", 8)]


def test_bounds_of_times_rise_and_have_names_of_their_own() -> None:
    assert list(SECONDS) == sorted(SECONDS)
    names = [name for name, _ in cumulative(SECONDS, Histogram().counts)]
    assert len(set(names)) == len(names) == len(SECONDS) + 1
