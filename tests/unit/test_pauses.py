"""Which places ``--pauses`` stops threads at."""

from __future__ import annotations

import pytest

from tests.pauses import SECONDS, Pauses

PLACES = 10_000


def drawn(seed: str, test: str, often: float = 1.0) -> list[float]:
    pauses = Pauses(seed, often)
    pauses._begin(test)
    return [pauses._seconds("callback") for _ in range(PLACES)]


def test_a_seed_and_a_test_say_where() -> None:
    assert drawn("1", "a") == drawn("1", "a")
    assert len({tuple(drawn(seed, test)) for seed in "12" for test in "ab"}) == 4


def test_many_places_are_not_many_stops() -> None:
    found = [[seconds for seconds in drawn("1", f"{n}") if seconds] for n in range(50)]
    assert 250 < sum(map(len, found)) < 550  # eight in each test, more or less
    assert all(SECONDS[0] <= seconds <= SECONDS[1] for one in found for seconds in one)
    assert sum(map(bool, drawn("1", "a", often=0.0))) == 0


def test_it_is_off_unless_somebody_asks(pytestconfig: pytest.Config) -> None:
    is_on = pytestconfig.getoption("pauses") is not None
    assert pytestconfig.pluginmanager.has_plugin("pauses") == is_on
