"""Whose weights compute next, where several checkpoints share a device. Policy alone.

Checkpoints do not share a batch: each has the device for a while, step after step, and then another
one that has work. Between callers the one that was served least goes first, as in ``fair_queue``;
among a caller's checkpoints the one that waits longest. Nobody waits for more than twice as many
changes as there are checkpoints with work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from pythia_bento.engine.fair_queue import Books


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

    def next(self, ready: Sequence[str], callers: Callable[[str], Collection[str]]) -> Visit:
        """One of ``ready``, which are those with work and weights; ``callers`` of each."""
        is_shared = len(ready) > 1
        if self._current not in ready or (self._is_over and is_shared):
            self._change(ready, callers)
        assert self._current is not None
        self._is_over = is_shared and self._clock() - self._began >= self._seconds
        return Visit(self._current, self._is_over)

    def _change(self, ready: Sequence[str], callers: Callable[[str], Collection[str]]) -> None:
        since = self._since = {key: self._since.get(key, self.changes) for key in ready}
        others = [key for key in ready if key != self._current] or ready
        chosen = min(others, key=since.__getitem__)
        if self.changes - since[chosen] < 2 * len(ready) - 1:
            chosen = min(others, key=lambda key: (self._standing(callers(key)), since[key]))
        self.changes += 1
        since[chosen] = self.changes
        self._current, self._began = chosen, self._clock()

    def _standing(self, callers: Collection[str]) -> tuple[int, int]:
        return min(map(self._books.standing, callers), default=(0, 0))
