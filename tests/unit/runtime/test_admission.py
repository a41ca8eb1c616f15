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
    share_of,
)


def test_a_request_is_its_continuations() -> None:
    request = Request("r", (1, 2, 3), SamplingParams(max_tokens=7), n=4)
    assert share_of(request) == Demand(1, 10)


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
        admission.enter(demand, "another")
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


def test_who_has_nothing_under_way_may_begin_a_request_of_any_size() -> None:
    """It counts as its share, so that others have theirs."""
    admission = AdmissionControl(Demand(10, 100), share=0.5)
    admission.enter(Demand(50, 500), "a")
    with pytest.raises(Overloaded, match=r"caller has 50 sequences.* share of 5 \(PYTHIA_C"):
        admission.enter(Demand(1, 1), "a")
    admission.enter(Demand(5, 50), "b")
    with pytest.raises(Overloaded, match=r"the server has 10 sequences .* 1 more .* limit of 10"):
        admission.enter(Demand(1, 1), "c")
    admission.leave(Demand(45, 450), "a")
    with pytest.raises(Overloaded):  # its share is full still
        admission.enter(Demand(1, 1), "a")
    admission.leave(Demand(2, 20), "a")
    admission.enter(Demand(2, 20), "a")
    admission.leave(Demand(5, 50), "a")
    admission.enter(Demand(5, 50), "c")


@pytest.mark.parametrize("many", [Demand(3, 1), Demand(1, 30)])
def test_a_share_holds_for_all_requests_of_an_account(many: Demand) -> None:
    admission = AdmissionControl(Demand(10, 100), share=0.5)
    admission.enter(many, "a")
    with pytest.raises(Overloaded, match=r"this caller has .* share of 50? "):
        admission.enter(many, "a")
    admission.enter(many, "b")


def test_a_share_has_room_for_something() -> None:
    admission = AdmissionControl(Demand(1, 1), share=0.01)
    admission.enter(LEAST, "a")
    admission.leave(LEAST, "a")
    admission.enter(LEAST, "b")


def test_what_is_too_large_for_a_share_comes_again_when_the_rest_has_ended() -> None:
    now = 0.0
    admission = AdmissionControl(Demand(100, 10**6), lambda: now, share=0.5)
    admission.enter(Demand(40, 40), "a")
    for _ in range(40):  # 2 a second
        now += 0.5
        admission.leave(Demand(1, 1), "a")
        admission.enter(Demand(1, 1), "a")
    with pytest.raises(Overloaded) as refused:
        admission.enter(Demand(1000, 1000), "a")
    assert refused.value.retry_after == pytest.approx(20, rel=0.1)


def test_nothing_is_left_of_accounts_that_ended() -> None:
    admission = AdmissionControl(Demand(10, 100), share=0.5)
    for account in range(1000):
        admission.enter(Demand(8, 70), account)
        admission.leave(Demand(8, 70), account)
    assert admission._accounts == {}
    admission.enter(Demand(5, 50), "a")
    admission.enter(Demand(5, 50), "b")


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
