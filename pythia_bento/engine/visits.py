"""Whose weights compute next, where several checkpoints share a device. Policy alone.

Checkpoints do not share a batch: each has the device for a while, step after step, and then another
one that has work. Between callers the one that was served least goes first, as in ``fair_queue``;
among a caller's checkpoints the one that waits longest. Nobody waits for more than twice as many
changes as there are checkpoints with work.

A turn ends before its time for who has nothing running and was served less than all whose turn it
is, or is one of these and in more of a hurry: somebody's first token does not wait for the turn of
a thousand texts that are scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from pythia_bento.engine.fair_queue import Books

Callers = Mapping[str, int]
"""Priorities by caller: of the first of what each has, lower ones being more urgent."""


class Visit(NamedTuple):
    """The next step is made with the weights of ``key``."""

    key: str
    is_last: bool  # others' weights come after it


class Visits:
    """Chooses; for one thread."""

    def __init__(
        self, seconds: float, books: Books, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """A checkpoint keeps the device for ``seconds`` and one step more while others wait."""
        self._seconds, self._books, self._clock = seconds, books, clock
        self._current: str | None = None
        self._is_over = False
        self._began = 0.0
        # Since what number of changes each one waits; of those with work alone.
        self._since: dict[str, int] = {}
        self.changes = 0

    def next(
        self,
        ready: Sequence[str],
        callers: Callable[[str], Callers],
        newcomers: Callable[[str], Callers] = lambda key: {},
    ) -> Visit:
        """One of ``ready``, which are those with work and weights; ``callers`` of each.

        ``newcomers`` are those of them who have nothing running.
        """
        is_shared = len(ready) > 1
        if self._current not in ready or (self._is_over and is_shared):
            self._change(ready, callers)
        elif is_shared and (first := self._first(ready, callers, newcomers)) is not None:
            self._begin(first)
        assert self._current is not None
        self._is_over = is_shared and self._clock() - self._began >= self._seconds
        return Visit(self._current, self._is_over)

    def _change(self, ready: Sequence[str], callers: Callable[[str], Collection[str]]) -> None:
        since = self._since = {key: self._since.get(key, self.changes) for key in ready}
        others = [key for key in ready if key != self._current] or ready
        chosen = min(others, key=since.__getitem__)
        if self.changes - since[chosen] < 2 * len(ready) - 1:
            chosen = min(others, key=lambda key: (self._standing(callers(key)), since[key]))
        self._begin(chosen)

    def _begin(self, key: str) -> None:
        self.changes += 1
        self._since[key] = self.changes
        self._current, self._began = key, self._clock()

    def _first(
        self,
        ready: Sequence[str],
        callers: Callable[[str], Callers],
        newcomers: Callable[[str], Callers],
    ) -> str | None:
        """Whose newcomer comes before all whose turn it is; None where nobody's does."""
        claims = {
            key: min(map(self._claim, come.items()))
            for key in ready
            if key != self._current and (come := newcomers(key))
        }
        if not claims:
            return None
        assert self._current is not None
        own = min(map(self._claim, callers(self._current).items()), default=(0, 0))
        first = min(claims, key=claims.__getitem__)
        return first if claims[first] < own else None

    def _claim(self, caller: tuple[str, int]) -> tuple[int, int]:
        name, priority = caller
        return self._books.standing(name)[0], priority

    def _standing(self, callers: Collection[str]) -> tuple[int, int]:
        return min(map(self._books.standing, callers), default=(0, 0))
