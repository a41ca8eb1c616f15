"""Callers by turns: whoever brings thousands delays others by one."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

_Entry = TypeVar("_Entry")


class RoundRobin(Generic[_Entry]):
    """A queue in which each caller's entries keep their order. For one thread at a time."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, deque[_Entry]] = OrderedDict()  # none is empty
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, caller: Hashable, entry: _Entry) -> None:
        """One more of a caller's; its turn comes after one entry of each other caller."""
        self._lines.setdefault(caller, deque()).append(entry)
        self._length += 1

    def take(self) -> _Entry:
        """The next one; raises KeyError where there is none."""
        caller, line = self._lines.popitem(last=False)
        entry = line.popleft()
        if line:
            self._lines[caller] = line
        self._length -= 1
        return entry
