"""How much may be under way, and when a refused client is told to come again."""

from __future__ import annotations

import pytest

from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.errors import Overloaded
from pythia_bento.runtime.admission import (
    LEAST,
    AdmissionControl,
    Demand,
    Rate,
    demand_of,
    share_of,
)


def test_a_request_is_its_continuations() -> None:
    request = Request("r", (1, 2, 3), SamplingParams(max_tokens=7), n=4)
    assert share_of(request) == Demand(1, 10)
    assert demand_of([request, request]) == Demand(8, 80)


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        (Demand(2, 1), "has 9 sequences to work on, and 2 more would pass its limit of 10"),
        (Demand(1, 11), "has 90 tokens to work on, and 11 more would pass its limit of 100"),
    ],
)
def test_both_limits_hold(demand: Demand, words: str) -> None:
    admission = AdmissionControl(Demand(10, 100))
    admission.enter(Demand(9, 90))
    with pytest.raises(Overloaded, match=words):
        admission.enter(demand)
    admission.enter(Demand(1, 10))
    admission.leave(Demand(10, 100))
    admission.enter(Demand(10, 100))


def test_a_check_enters_nothing() -> None:
    admission = AdmissionControl(Demand(2, 100))
    admission.enter(Demand(1, 10))
    for _ in range(3):
        admission.check(LEAST)
    admission.enter(Demand(1, 10))
    with pytest.raises(Overloaded, match="2 sequences to work on, and 1 more"):
        admission.check(LEAST)
    admission.leave(Demand(1, 10))
    admission.check(LEAST)


def test_an_idle_engine_takes_a_request_of_any_size() -> None:
    admission = AdmissionControl(Demand(10, 100))
    admission.enter(Demand(50, 500))
    with pytest.raises(Overloaded):
        admission.enter(Demand(1, 1))


def test_come_again_when_there_is_room_at_the_rate_of_late() -> None:
    now = 0.0
    admission = AdmissionControl(Demand(1000, 10**6), lambda: now)
    admission.enter(Demand(1000, 1000))
    with pytest.raises(Overloaded) as nothing_known:
        admission.enter(Demand(20, 20))
    for _ in range(40):  # 2 a second
        now += 0.5
        admission.leave(Demand(1, 1))
        admission.enter(Demand(1, 1))
    with pytest.raises(Overloaded) as refused:
        admission.enter(Demand(20, 20))
    with pytest.raises(Overloaded) as far_too_much:
        admission.enter(Demand(900, 900))
    assert nothing_known.value.retry_after == 1
    assert refused.value.retry_after == pytest.approx(10, rel=0.1)
    assert far_too_much.value.retry_after == 60


def test_a_rate_forgets() -> None:
    now = 0.0
    rate = Rate(lambda: now)
    assert rate.per_second() == 0
    for _ in range(100):
        now += 0.1
        rate.add(5)
    assert rate.per_second() == pytest.approx(50, rel=0.02)
    now += 100
    assert rate.per_second() < 0.01
