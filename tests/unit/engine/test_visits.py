"""Whose weights compute next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pythia_bento.engine.fair_queue import Books, FairQueue
from pythia_bento.engine.sequence import Sequence
from pythia_bento.engine.visits import Visits
from tests.unit.engine.toy import TOKENIZER, request


class Clock:
    """Stands still until it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def anyone(key: str) -> dict[str, int]:
    return {"anyone": 0}


def test_one_alone_keeps_the_device() -> None:
    visits = Visits(0.05, Books(), clock := Clock())
    for _ in range(5):
        assert visits.next(["a"], anyone) == ("a", False)
        clock.now += 1
    assert visits.changes == 1


def test_a_turn_ends_one_step_after_its_time() -> None:
    visits = Visits(0.05, Books(), clock := Clock())
    seen = []
    for _ in range(9):
        seen.append(visits.next(["a", "b"], anyone))
        clock.now += 0.02
    wanted = [("a", False)] * 3 + [("a", True)] + [("b", False)] * 3 + [("b", True), ("a", False)]
    assert seen == wanted


def test_who_has_no_work_leaves_at_once() -> None:
    visits = Visits(60, Books(), Clock())
    assert visits.next(["a", "b"], anyone).key == "a"
    assert visits.next(["b", "c"], anyone).key == "b"
    assert visits.next(["a", "c"], anyone).key == "c"


def test_none_of_many_waits_for_more_than_twice_their_number() -> None:
    books = Books()
    queue = FairQueue(books)
    # One caller was served much, and all checkpoints but one are others'.
    asked = replace(request("r", tuple(range(2, 40)), max_tokens=9), caller="rich")
    sequence = Sequence(asked, 0, 0, TOKENIZER, 4)
    queue.add(sequence)
    queue.admit(sequence)
    keys = [f"m{number}" for number in range(7)]
    visits = Visits(0, books, Clock())
    waits = 0
    for _ in range(100):
        key = visits.next(keys, lambda key: {"rich": 0} if key == "m3" else {"poor": 0}).key
        waits = 0 if key == "m3" else waits + 1
        assert waits <= 2 * len(keys)


def test_the_caller_that_was_served_least_goes_first() -> None:
    books = Books()
    queue = FairQueue(books)
    for number, (caller, length) in enumerate((("rich", 40), ("poor", 4))):
        asked = replace(request(caller, tuple(range(2, length)), max_tokens=2), caller=caller)
        sequence = Sequence(asked, 0, number, TOKENIZER, 4)
        queue.add(sequence)
        queue.admit(sequence)
    visits = Visits(0, books, Clock())
    callers = {"a": {"rich": 0}, "b": {"rich": 0}, "c": {"poor": 0}}
    order = [visits.next([*callers], callers.__getitem__).key for _ in range(40)]
    assert 16 <= order.count("c") <= 20 and min(order.count("a"), order.count("b")) >= 9


def test_every_step_may_be_another_ones() -> None:
    visits = Visits(0, Books(), Clock())
    seen = [visits.next(["a", "b"], anyone) for _ in range(4)]
    assert seen == [("a", True), ("b", True), ("a", True), ("b", True)]


def served(**tokens: int) -> Books:
    """Books of callers who were served so much."""
    queue = FairQueue(books := Books())
    for number, (caller, count) in enumerate(tokens.items()):
        asked = replace(request(caller, tuple(range(2, count)), max_tokens=2), caller=caller)
        queue.add(sequence := Sequence(asked, 0, number, TOKENIZER, 4))
        queue.admit(sequence)
    return books


@pytest.mark.parametrize(
    ("caller", "priority", "is_first"),
    [
        ("poor", 0, True),  # who was served less
        ("poor", 20, True),
        ("rich", -20, False),  # no hurry makes up for that
        ("sweep", 9, True),  # of the same caller's, what is in a hurry
        ("sweep", 10, False),
        ("sweep", 11, False),
    ],
)
def test_a_newcomer_may_end_a_turn(caller: str, priority: int, is_first: bool) -> None:
    visits = Visits(60, served(poor=4, sweep=40, rich=80), Clock())
    busy = {"a": {"sweep": 10}, "b": {caller: priority}, "c": {"sweep": 10}}

    def newcomers(key: str) -> dict[str, int]:
        return busy[key] if key == "b" else {}

    assert visits.next(["a", "c"], busy.__getitem__, newcomers) == ("a", False)
    found = visits.next(["a", "b", "c"], busy.__getitem__, newcomers)
    assert found == ("b" if is_first else "a", False)
    if is_first:  # whose turn it then is, as anybody's
        assert visits.next(["a", "b", "c"], busy.__getitem__).key == "b"
        assert visits.next(["a", "c"], busy.__getitem__).key == "c"


def test_who_has_something_running_waits_for_the_turn() -> None:
    visits = Visits(60, served(poor=4, sweep=40), Clock())
    busy = {"a": {"sweep": 10}, "b": {"poor": 0}}
    assert visits.next(["a"], busy.__getitem__).key == "a"
    assert visits.next(["a", "b"], busy.__getitem__, lambda key: {}).key == "a"
