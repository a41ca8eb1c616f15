"""Who comes next: sequences that wait for a place in the batch.

Between callers the one that has been served the fewest tokens goes first: the Virtual Token Counter
of Sheng et al., "Fairness in Serving Large Language Models", 2024. One with a thousand waiting
sequences therefore does not delay another one's first. A caller that comes back after a pause is
set to where the others are, so that nobody saves up turns.

Within a caller the order is arrival, moved by ``AGING_SECONDS`` for each level of priority. Every
sequence so becomes the first of its caller in time: nobody starves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, KeysView
from heapq import heapify, heappop, heappush

from pythia_bento.engine.sequence import Sequence

AGING_SECONDS = 10.0  # of waiting are worth as much as one level of priority

Rank = tuple[float, tuple[int, int]]  # no two sequences have the same


class FairQueue:
    """Preempted sequences, oldest first, then those that have not begun.

    Adding and removing take the logarithm of a line's length: a thousand sequences that leave
    together cost a thousand times as much as one.
    """

    def __init__(self) -> None:
        self._preempted: dict[str, _Line] = {}  # by caller, none of them empty
        self._new: dict[str, _Line] = {}  # the same
        self._served: dict[str, int] = {}  # tokens by caller; there are few callers
        self._turns: dict[str, int] = {}  # number of each caller's last turn
        self._level = 0  # what the last caller that had its turn had been served

    def __len__(self) -> int:
        return sum(map(len, (*self._preempted.values(), *self._new.values())))

    def __iter__(self) -> Iterator[Sequence]:
        """By no order that means anything."""
        for line in (*self._preempted.values(), *self._new.values()):
            yield from line

    @property
    def callers(self) -> set[str]:
        """Whose sequences wait."""
        return {*self._preempted, *self._new}

    def add(self, sequence: Sequence) -> None:
        """One more; it was preempted if it had begun."""
        caller = sequence.request.caller
        lines = self._lines(sequence)
        if caller not in lines:
            lines[caller] = _Line()
            if lines is self._new:
                self._served[caller] = max(self._served.get(caller, 0), self._level)
        lines[caller].add(_rank(sequence), sequence)

    def remove(self, sequence: Sequence) -> None:
        """It waits no more."""
        caller = sequence.request.caller
        lines = self._lines(sequence)
        lines[caller].remove(sequence)
        if not lines[caller]:
            del lines[caller]

    def first(self, passed: Collection[str] = ()) -> Sequence | None:
        """Whose turn it is, leaving out the callers in ``passed``; stays in the queue."""
        if begun := _without(self._preempted.keys(), passed):
            return min((self._preempted[caller].first() for caller in begun), key=_order)
        if callers := _without(self._new.keys(), passed):
            return self._new[min(callers, key=self._standing)].first()
        return None

    def admit(self, sequence: Sequence) -> None:
        """``first`` takes its turn and is charged for all it may ever take.

        To be called before the admission is counted.
        """
        self.remove(sequence)
        if not sequence.num_admissions:
            caller = sequence.request.caller
            self._level = max(self._level, self._served[caller])
            self._served[caller] += len(sequence.token_ids)
            self._turns[caller] = 1 + max(self._turns.values(), default=0)

    def refund(self, sequence: Sequence) -> None:
        """An admitted sequence has ended: the tokens it did not take were not served."""
        self._served[sequence.request.caller] -= len(sequence.token_ids) - sequence.num_tokens

    def _lines(self, sequence: Sequence) -> dict[str, _Line]:
        return self._preempted if sequence.num_admissions else self._new

    def _standing(self, caller: str) -> tuple[int, int]:
        return self._served[caller], self._turns.get(caller, 0)


class _Line:
    """Sequences by rank. One that left stays in the heap until it comes up or most there have."""

    __slots__ = ("_heap", "_ranks")

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, Sequence]] = []
        self._ranks: dict[Sequence, Rank] = {}  # of those that wait

    def __len__(self) -> int:
        return len(self._ranks)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._ranks)

    def add(self, rank: Rank, sequence: Sequence) -> None:
        self._ranks[sequence] = rank
        heappush(self._heap, (rank, sequence))

    def remove(self, sequence: Sequence) -> None:
        del self._ranks[sequence]
        if len(self._heap) > 2 * len(self._ranks) + 16:
            self._heap = [(rank, waiting) for waiting, rank in self._ranks.items()]
            heapify(self._heap)

    def first(self) -> Sequence:
        """Of a line that is not empty."""
        while self._heap[0][1] not in self._ranks:
            heappop(self._heap)
        return self._heap[0][1]


def _without(callers: KeysView[str], passed: Collection[str]) -> Collection[str]:
    return [caller for caller in callers if caller not in passed] if passed else callers


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.order


def _rank(sequence: Sequence) -> Rank:
    if sequence.num_admissions:
        return 0.0, sequence.order
    request = sequence.request
    return sequence.arrived + request.priority * AGING_SECONDS, sequence.order
