"""Who comes next: turns between callers, priority with aging within one."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import replace

from pythia_bento.engine.fair_queue import AGING_SECONDS, FairQueue
from pythia_bento.engine.sequence import Sequence
from tests.amounts import amounts
from tests.unit.engine.toy import TOKENIZER, request, toy_engine


def one(
    order: int, caller: str = "a", arrived: float = 0.0, priority: int = 0, length: int = 8
) -> Sequence:
    asked = request(str(order), tuple(range(2, 2 + length)), max_tokens=8)
    asked = replace(asked, caller=caller, priority=priority)
    sequence = Sequence(asked, 0, order, TOKENIZER, 4)
    sequence.arrived = arrived
    return sequence


def drained(waiting: FairQueue) -> list[int]:
    """Orders by turn, while everybody takes all that it is charged for."""
    turns = []
    while (sequence := waiting.first()) is not None:
        waiting.admit(sequence)
        turns.append(sequence.order[0])
    return turns


def filled(*sequences: Sequence) -> FairQueue:
    waiting = FairQueue()
    for sequence in sequences:
        waiting.add(sequence)
    return waiting


def test_one_caller_is_served_in_order_of_arrival() -> None:
    assert drained(filled(one(3, arrived=3), one(1, arrived=1), one(2, arrived=2))) == [1, 2, 3]


def test_a_thousand_of_one_caller_do_not_delay_another_ones_first() -> None:
    waiting = filled(*(one(i, "a", arrived=i, priority=-20) for i in range(1000)))
    for _ in range(10):
        first = waiting.first()
        assert first is not None
        waiting.admit(first)
    waiting.add(one(5000, "b", arrived=5000, priority=20))
    first = waiting.first()
    assert first is not None and first.request.caller == "b"


def test_callers_get_the_same_number_of_tokens() -> None:
    waiting = filled(
        *(one(i, "long", length=56) for i in range(50)),
        *(one(100 + i, "short", length=8) for i in range(200)),
    )
    tokens = {"long": 0, "short": 0}
    for _ in range(100):
        sequence = waiting.first()
        assert sequence is not None
        waiting.admit(sequence)
        tokens[sequence.request.caller] += len(sequence.token_ids)
    assert abs(tokens["long"] - tokens["short"]) <= 64


def test_a_pause_saves_up_no_turns() -> None:
    waiting = filled(*(one(i, "a") for i in range(20)))
    for _ in range(10):
        first = waiting.first()
        assert first is not None
        waiting.admit(first)
    for i in range(10):
        waiting.add(one(100 + i, "b"))
    turns = [order >= 100 for order in drained(waiting)]
    assert turns[:4].count(True) <= 3  # not all of b's at once


def test_tokens_that_were_not_taken_are_given_back() -> None:
    waiting = filled(one(1, "a", length=48), one(2, "a"), one(3, "b", length=48), one(4, "b"))
    ended = waiting.first()
    assert ended is not None and ended.order[0] == 1
    waiting.admit(ended)
    waiting.books.refund(ended)  # of 56 tokens it took 48
    waiting.admit(waiting.first() or ended)
    first = waiting.first()
    assert first is not None and first.order[0] == 2


def test_priority_is_worth_so_many_seconds() -> None:
    second = AGING_SECONDS
    waiting = filled(
        one(1, arrived=0, priority=1),
        one(2, arrived=second - 1),
        one(3, arrived=second + 1),
        one(4, arrived=2 * second, priority=-2),
    )
    assert drained(waiting) == [4, 2, 1, 3]


def test_who_has_begun_goes_before_all_others() -> None:
    begun = one(9, "a", arrived=100, priority=20)
    begun.num_admissions = 1
    waiting = filled(one(1, "b", priority=-20), begun)
    assert drained(waiting) == [9, 1]


def test_a_removed_one_has_no_turn() -> None:
    gone = one(1)
    waiting = filled(gone, one(2, "b"), one(3))
    waiting.remove(gone)
    assert len(waiting) == len(list(waiting)) == 2
    assert sorted(drained(waiting)) == [2, 3]


class Compared(Sequence):
    """Counts how often it is compared with another one."""

    __slots__ = ()
    count = 0

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return self is other

    __hash__ = object.__hash__  # type: ignore[assignment]


@amounts(5000, 100_000)
def test_removing_thousands_looks_at_each_of_them_once(amount: int) -> None:
    sequences = [Compared(request(str(i), (2, 3)), 0, i, TOKENIZER, 4) for i in range(amount)]
    waiting = filled(*sequences)
    Compared.count = 0
    for sequence in reversed(sequences[1:]):  # the order that a list is slowest at
        waiting.remove(sequence)
    assert len(waiting) == 1 and waiting.first() is sequences[0]
    assert Compared.count <= amount


class Watched(Sequence):
    __slots__ = ("__weakref__",)


def test_what_was_removed_is_not_kept() -> None:
    sequences = [Watched(request(str(i), (2, 3)), 0, i, TOKENIZER, 4) for i in range(1000)]
    references = [weakref.ref(sequence) for sequence in sequences]
    waiting = filled(*sequences)
    while len(sequences) > 1:
        waiting.remove(sequences.pop())
    gc.collect()
    assert sum(reference() is not None for reference in references) < 20
    assert drained(waiting) == [0]


def test_one_that_comes_back_has_its_old_place() -> None:
    waiting = filled(one(1), one(2))
    first = waiting.first()
    assert first is not None
    waiting.admit(first)
    first.num_admissions = 1
    for _ in range(3):  # preempted again and again
        waiting.add(first)
        assert waiting.first() is first and len(waiting) == 2
        waiting.admit(first)
    assert drained(waiting) == [2]


def test_callers_can_be_passed_over() -> None:
    begun = one(9, "a")
    begun.num_admissions = 1
    waiting = filled(begun, one(1, "b"), one(2, "c"))
    orders = [waiting.first(passed) for passed in ((), {"a"}, {"a", "b"}, {"a", "b", "c"})]
    assert [found and found.order[0] for found in orders] == [9, 1, 2, None]
    assert waiting.callers == {"a", "b", "c"}


def test_neither_callers_nor_priorities_change_an_answer() -> None:
    rng = random.Random(1)
    asked = [
        request(str(i), tuple(rng.randrange(2, 90) for _ in range(9)), n=2, max_tokens=12, seed=i)
        for i in range(12)
    ]
    marked = [replace(r, caller=rng.choice("abc"), priority=rng.randrange(-20, 21)) for r in asked]
    plain = toy_engine(24, max_batch_size=3).generate(asked)
    turned = toy_engine(24, max_batch_size=3).generate(marked)
    assert [[o.token_ids for o in answer] for answer in plain] == [
        [o.token_ids for o in answer] for answer in turned
    ]
