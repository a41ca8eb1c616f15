"""What keeps callers from each other's way: who comes next, and how long steps are.

Between callers the one that has been served the fewest tokens goes first: the Virtual Token Counter
of Sheng et al., "Fairness in Serving Large Language Models", 2024. One with a thousand waiting
sequences therefore does not delay another one's first. A caller that comes back after a pause is
set to where the others are, so that nobody saves up turns.

Within a caller the order is arrival, moved by ``AGING_SECONDS`` for each level of priority. Every
sequence so becomes the first of its caller in time: nobody starves.

A newcomer's first token takes the rest of the step that is under way, and one more. Where a caller
is alone a step is filled: nobody else waits for it. Where besides nobody waits for a next token, as
where texts are scored, it may have as many tokens as this device computes in ``LONG_SECONDS``.
Where others are about, or were a moment ago, it has as many tokens of prompts as this device
computes in ``STEP_SECONDS``, or in ``PATIENT_SECONDS`` where all that is in it has a priority above
0, as sweeps have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, KeysView
from heapq import heapify, heappop, heappush

from pythia_bento.engine.sequence import Sequence

AGING_SECONDS = 10.0  # of waiting are worth as much as one level of priority
STEP_SECONDS = 0.05
LONG_SECONDS = 0.02  # of a step larger than others, which nobody waits for but newcomers
PATIENT_SECONDS = 0.006  # the same of steps in which nothing is in a hurry: others may come
COMPANY_SECONDS = 10.0  # for which a caller is still about that has nothing to do
LEAST_TOKENS = 16  # of prompts in a step, however slow the device is

Rank = tuple[float, tuple[int, int]]  # no two sequences have the same


class Company:
    """Who has had something to do of late; for one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, float] = {}  # when, by caller

    def see(self, callers: Iterable[str]) -> None:
        """These have something to do."""
        now = self._clock()
        self._seen |= dict.fromkeys(callers, now)
        if len(self._seen) > 1:
            oldest = now - COMPANY_SECONDS
            self._seen = {caller: seen for caller, seen in self._seen.items() if seen >= oldest}

    @property
    def is_shared(self) -> bool:
        """Whether several callers are about."""
        return len(self._seen) > 1


class Books:
    """What each caller has been served, by one queue or by several that share them."""

    def __init__(self) -> None:
        self.company = Company()
        """Of all these queues: who waits for one checkpoint waits for a step of another."""
        self._served: dict[str, int] = {}  # tokens by caller; there are few callers
        self._turns: dict[str, int] = {}  # number of each caller's last turn
        self._level = 0  # what the last caller that had its turn had been served

    def enter(self, caller: str) -> None:
        """A caller has something to do again."""
        self.company.see((caller,))
        self._served[caller] = max(self._served.get(caller, 0), self._level)

    def charge(self, sequence: Sequence) -> None:
        """Its caller takes a turn, and all tokens that it may ever take."""
        caller = sequence.request.caller
        self._level = max(self._level, self._served[caller])
        self._served[caller] += len(sequence.token_ids)
        self._turns[caller] = 1 + max(self._turns.values(), default=0)

    def refund(self, sequence: Sequence) -> None:
        """A sequence that was charged has ended: the tokens it did not take were not served."""
        self._served[sequence.request.caller] -= len(sequence.token_ids) - sequence.num_tokens

    def standing(self, caller: str) -> tuple[int, int]:
        """The lowest of all callers is who comes next."""
        return self._served.get(caller, 0), self._turns.get(caller, 0)


class FairQueue:
    """Preempted sequences, oldest first, then those that have not begun.

    Adding and removing take the logarithm of a line's length: a thousand sequences that leave
    together cost a thousand times as much as one.
    """

    def __init__(self, books: Books | None = None) -> None:
        """``books`` may be shared with other queues of the same device."""
        self.books = books or Books()
        self._preempted: dict[str, _Line] = {}  # by caller, none of them empty
        self._new: dict[str, _Line] = {}  # the same

    def __len__(self) -> int:
        return sum(map(len, (*self._preempted.values(), *self._new.values())))

    def __bool__(self) -> bool:
        """Whether somebody waits; cheaper than how many."""
        return bool(self._preempted or self._new)

    def __iter__(self) -> Iterator[Sequence]:
        """By no order that means anything."""
        for line in (*self._preempted.values(), *self._new.values()):
            yield from line

    @property
    def callers(self) -> set[str]:
        """Whose sequences wait."""
        return {*self._preempted, *self._new}

    @property
    def firsts(self) -> dict[str, int]:
        """Whose sequences wait, and the priority of the first of each."""
        lines = {**self._new, **self._preempted}
        return {caller: line.first().request.priority for caller, line in lines.items()}

    def add(self, sequence: Sequence) -> None:
        """One more; it was preempted if it had begun."""
        caller = sequence.request.caller
        lines = self._lines(sequence)
        if caller not in lines:
            lines[caller] = _Line()
            if lines is self._new:
                self.books.enter(caller)
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
        if self._preempted and (begun := _without(self._preempted.keys(), passed)):
            return min((self._preempted[caller].first() for caller in begun), key=_order)
        if len(self._new) == 1 and not passed:
            [line] = self._new.values()
            return line.first()
        if callers := _without(self._new.keys(), passed):
            return self._new[min(callers, key=self.books.standing)].first()
        return None

    def admit(self, sequence: Sequence) -> None:
        """``first`` takes its turn and is charged for all it may ever take.

        To be called before the admission is counted.
        """
        self.remove(sequence)
        if not sequence.num_admissions:
            self.books.charge(sequence)

    def _lines(self, sequence: Sequence) -> dict[str, _Line]:
        return self._preempted if sequence.num_admissions else self._new


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


class Pace:
    """Knows who is about and how fast steps are; for one thread."""

    def __init__(self, max_tokens: int, company: Company, most_tokens: int = 0) -> None:
        """``max_tokens`` is what a step may have in any case.

        ``most_tokens``, if more, is what one may have that nobody waits for.
        """
        self._max_tokens, self._most_tokens, self._company = max_tokens, most_tokens, company
        self._rate = 0.0  # tokens a second, of late; 0 before the first step

    def see(self, callers: Iterable[str]) -> None:
        """See ``Company``, and so below."""
        self._company.see(callers)

    @property
    def is_shared(self) -> bool:
        """Whether several callers are about."""
        return self._company.is_shared

    def observe(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long.

        A small step takes longer for a token than a large one. What follows from it is too little,
        so that the next ones are larger, until they take the time they may.
        """
        if tokens:  # none where a device is asked ahead of its answers
            rate = tokens / max(seconds, 1e-6)
            self._rate = (self._rate + rate) / 2 if self._rate else rate

    def prompt_tokens(
        self, decodes: int, *, is_patient: bool = False, is_unhurried: bool = False
    ) -> int:
        """What a step may have of prompts beside so many other tokens.

        ``is_unhurried``: nobody waits for the next token of something.
        """
        most = self._max_tokens - decodes
        if not self._rate or not self._company.is_shared:
            return self._long() if is_unhurried else most
        seconds = PATIENT_SECONDS if is_patient else STEP_SECONDS
        return min(max(int(self._rate * seconds) - decodes, LEAST_TOKENS), most)

    def _long(self) -> int:
        """By doubling, so that there are few sizes of such steps, which captured graphs have."""
        tokens = self._max_tokens
        while 2 * tokens <= min(self._most_tokens, self._rate * LONG_SECONDS):
            tokens *= 2
        return tokens


def _without(callers: KeysView[str], passed: Collection[str]) -> Collection[str]:
    return [caller for caller in callers if caller not in passed] if passed else callers


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.order


def _rank(sequence: Sequence) -> Rank:
    if sequence.num_admissions:
        return 0.0, sequence.order
    request = sequence.request
    return sequence.arrived + request.priority * AGING_SECONDS, sequence.order
