"""Who comes next: sequences that wait for a place in the batch.

Between callers the one that has been served the fewest tokens goes first: the Virtual Token Counter
of Sheng et al., "Fairness in Serving Large Language Models", 2024. One with a thousand waiting
sequences therefore does not delay another one's first. A caller that comes back after a pause is
set to where the others are, so that nobody saves up turns.

Within a caller the order is arrival, moved by ``AGING_SECONDS`` for each level of priority. Every
sequence so becomes the first of its caller in time: nobody starves.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from pythia_bento.engine.sequence import Sequence

AGING_SECONDS = 10.0  # of waiting are worth as much as one level of priority


class FairQueue:
    """Preempted sequences, oldest first, then those that have not begun."""

    def __init__(self) -> None:
        self._preempted: list[Sequence] = []
        self._new: dict[str, list[Sequence]] = {}  # by caller, none of them empty
        self._served: dict[str, int] = {}  # tokens by caller; there are few callers
        self._turns: dict[str, int] = {}  # number of each caller's last turn
        self._level = 0  # what the last caller that had its turn had been served

    def __len__(self) -> int:
        return len(self._preempted) + sum(map(len, self._new.values()))

    def __iter__(self) -> Iterator[Sequence]:
        """By no order that means anything."""
        yield from self._preempted
        for own in self._new.values():
            yield from own

    def add(self, sequence: Sequence) -> None:
        """One more; it was preempted if it had begun."""
        if sequence.num_admissions:
            insort(self._preempted, sequence, key=lambda s: s.order)
            return
        caller = sequence.request.caller
        if caller not in self._new:
            self._new[caller] = []
            self._served[caller] = max(self._served.get(caller, 0), self._level)
        insort(self._new[caller], sequence, key=_rank)

    def remove(self, sequence: Sequence) -> None:
        """It waits no more."""
        if sequence.num_admissions:
            self._preempted.remove(sequence)
            return
        caller = sequence.request.caller
        self._new[caller].remove(sequence)
        if not self._new[caller]:
            del self._new[caller]

    def first(self) -> Sequence | None:
        """Whose turn it is; stays in the list."""
        if self._preempted:
            return self._preempted[0]
        if not self._new:
            return None
        return self._new[min(self._new, key=self._standing)][0]

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

    def _standing(self, caller: str) -> tuple[int, int]:
        return self._served[caller], self._turns.get(caller, 0)


def _rank(sequence: Sequence) -> tuple[float, tuple[int, int]]:
    request = sequence.request
    return sequence.arrived + request.priority * AGING_SECONDS, sequence.order
