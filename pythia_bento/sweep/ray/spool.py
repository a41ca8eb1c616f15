"""Rows that came before those in front of them, on the driver's disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path


class Spool:
    """Blocks of rows of many checkpoints, in any order. No more than one is in memory."""

    def __init__(self, folder: Path, blocks: int) -> None:
        """``blocks`` are those of one checkpoint; ``folder`` is empty and somebody else's."""
        self._folder, self._blocks = folder, blocks
        self._there: dict[int, set[int]] = defaultdict(set)

    def put(self, group: int, block: int, rows: bytes) -> bool:
        """Whether that was the last that was missing; raises OSError."""
        self._path(group, block).write_bytes(rows)
        self._there[group].add(block)
        return len(self._there[group]) == self._blocks

    def read(self, group: int) -> Iterator[bytes]:
        """All blocks of one that is complete, in order."""
        for block in range(self._blocks):
            yield self._path(group, block).read_bytes()

    def drop(self, group: int) -> None:
        """They are not needed any more."""
        for block in self._there.pop(group, ()):
            self._path(group, block).unlink()

    def _path(self, group: int, block: int) -> Path:
        return self._folder / f"{group}-{block}.jsonl"
