"""How much may be under way, and when a refused client is told to come again."""

from __future__ import annotations

import pytest

from pythia_bento.engine.params import Request, SamplingParams
from pythia_bento.errors import Overloaded
from pythia_bento.runtime.admission import LEAST, Gate, Load, load_of, share_of
from pythia_bento.runtime.rate import Rate


def test_a_request_is_its_continuations() -> None:
    request = Request("r", (1, 2, 3), SamplingParams(max_tokens=7), n=4)
    assert share_of(request) == Load(1, 10)
    assert load_of([request, request]) == Load(8, 80)


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (Load(2, 1), "has 9 sequences to work on, and 2 more would pass its limit of 10"),
        (Load(1, 11), "has 90 tokens to work on, and 11 more would pass its limit of 100"),
    ],
)
def test_both_limits_hold(load: Load, words: str) -> None:
    gate = Gate(Load(10, 100))
    gate.enter(Load(9, 90))
    with pytest.raises(Overloaded, match=words):
        gate.enter(load)
    gate.enter(Load(1, 10))
    gate.leave(Load(10, 100))
    gate.enter(Load(10, 100))


def test_a_check_enters_nothing() -> None:
    gate = Gate(Load(2, 100))
    gate.enter(Load(1, 10))
    for _ in range(3):
        gate.check(LEAST)
    gate.enter(Load(1, 10))
    with pytest.raises(Overloaded, match="2 sequences to work on, and 1 more"):
        gate.check(LEAST)
    gate.leave(Load(1, 10))
    gate.check(LEAST)


def test_an_idle_engine_takes_a_request_of_any_size() -> None:
    gate = Gate(Load(10, 100))
    gate.enter(Load(50, 500))
    with pytest.raises(Overloaded):
        gate.enter(Load(1, 1))


def test_come_again_when_there_is_room_at_the_rate_of_late() -> None:
    now = 0.0
    gate = Gate(Load(1000, 10**6), lambda: now)
    gate.enter(Load(1000, 1000))
    with pytest.raises(Overloaded) as nothing_known:
        gate.enter(Load(20, 20))
    for _ in range(40):  # 2 a second
        now += 0.5
        gate.leave(Load(1, 1))
        gate.enter(Load(1, 1))
    with pytest.raises(Overloaded) as refused:
        gate.enter(Load(20, 20))
    with pytest.raises(Overloaded) as far_too_much:
        gate.enter(Load(900, 900))
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
