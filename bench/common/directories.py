"""Checkpoints in local directories, as a shelf, and reading them from the disk itself."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pythia_bento.checkpoints.held_files import JOBS
from pythia_bento.checkpoints.shelf import Shelf
from pythia_bento.checkpoints.shelf_entry import ShelfEntry


class Directories(Shelf):
    """Of local directories, which no pattern names."""

    def __init__(self, entries: list[ShelfEntry]) -> None:
        """The first is the default."""
        super().__init__(entries[0], "")
        self._all = {entry.name: entry for entry in entries}

    def known(self, name: str) -> ShelfEntry | None:
        """See ``Shelf``, here and below."""
        return self._all.get(name)

    def entries(self) -> list[ShelfEntry]:
        """All of them."""
        return list(self._all.values())


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def forget(folder: Path) -> None:
    """Files leave the system's cache."""
    os.sync()
    for path in _weights(folder):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_weights(folder: Path, jobs: int = JOBS, chunk: int = 1 << 20) -> int:
    """Bytes of the weights, each of which was read; ``jobs`` files at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        return sum(pool.map(lambda path: _read_file(path, chunk), _weights(folder)))


def read_pieces(folder: Path, jobs: int, chunk: int) -> int:
    """The same, ``jobs`` pieces of ``chunk`` bytes at a time, one file after the other."""
    places = [
        (path, start) for path in _weights(folder) for start in range(0, path.stat().st_size, chunk)
    ]
    with ThreadPoolExecutor(jobs) as pool:
        return sum(pool.map(lambda place: _read_piece(*place, chunk), places))


def _read_file(path: Path, chunk: int) -> int:
    buffer, total = memoryview(bytearray(chunk)), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total


def _read_piece(path: Path, start: int, count: int) -> int:
    with path.open("rb", buffering=0) as file:
        return len(os.pread(file.fileno(), count, start))
