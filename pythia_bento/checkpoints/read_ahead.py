"""Files of the checkpoint that is loaded next come to the system's cache while nothing is read.

Between the last byte of one checkpoint and the first of the next are its last part, a pass with it,
and whoever makes room: tenths of a second in which the disk would have nothing to do.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

from pythia_bento.checkpoints.arriving import PIECE
from pythia_bento.checkpoints.files import is_weights
from pythia_bento.checkpoints.shelf_entry import ShelfEntry

MOST = 1 << 30  # bytes that are read ahead: the system may need its memory for others


class ReadAhead:
    """For one loader. What is read here is only a wish: nothing depends on it."""

    def __init__(self) -> None:
        self.next: ShelfEntry | None = None
        """Who comes after the one that is being loaded, as far as is known."""
        self._stopped = threading.Event()

    def begin(self) -> None:
        """Read what comes next, in a thread that nobody waits for, until ``stop``."""
        self._stopped = stopped = threading.Event()
        if (entry := self.next) is not None:
            work = threading.Thread(
                target=_read, args=(entry, stopped), name="pythia-ahead", daemon=True
            )
            work.start()

    def stop(self) -> None:
        """It is being loaded itself, or nobody wants it any more."""
        self._stopped.set()


def _read(entry: ShelfEntry, stopped: threading.Event) -> None:
    left = MOST
    for name in sorted(filter(is_weights, entry.files)):
        with suppress(OSError):  # whoever loads it says what is wrong with it
            left = _ask(entry.path / name, left, stopped)


def _ask(path: Path, left: int, stopped: threading.Event) -> int:
    """Ask the system for a file; what is left of ``left``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        for start in range(0, min(size, left), PIECE):
            if stopped.is_set():
                return 0
            os.posix_fadvise(descriptor, start, PIECE, os.POSIX_FADV_WILLNEED)
        return max(left - size, 0)
    finally:
        os.close(descriptor)
