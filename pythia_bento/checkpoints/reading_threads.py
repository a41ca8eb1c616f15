"""Threads that read files and hash what was read, beside whoever uses it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Protocol


class Closed(Protocol):
    """What takes the system a while to give back."""

    def close(self) -> object:
        """Give it back."""
        ...


class Hash:
    """Of bytes that another thread takes in while the next ones are read."""

    def __init__(self, threads: Executor) -> None:
        self._state, self._threads = hashlib.sha256(), threads
        self._under_way: Future[None] | None = None

    def update(self, data: memoryview) -> None:
        """Queue bytes, which must stay as they are until the next call returns."""
        self._wait()
        self._under_way = self._threads.submit(self._state.update, data)

    def hexdigest(self) -> str:
        """Of all that was queued."""
        self._wait()
        return self._state.hexdigest()

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()


class Readers:
    """Threads that read some files at a time, and those that hash what was read, and look first."""

    def __init__(self, jobs: int, on_read: Callable[[], None] | None = None) -> None:
        """``on_read`` is called when the last of the files that were ``left`` was read."""
        self._reading = ThreadPoolExecutor(jobs, "pythia-read")
        self.hashing = ThreadPoolExecutor(jobs, "pythia-hash")
        self._freeing = ThreadPoolExecutor(1, "pythia-free")
        self._jobs, self._on_read, self.left = jobs, on_read, 0
        self.news = threading.Condition()  # of bytes that are there, and of ends
        self.freed: list[Closed] = []  # memory that is in use until then
        self.is_stopped = False

    def look(self, work: Callable[[], None]) -> None:
        """Do what is short now, and not after the files that are being read."""
        self.hashing.submit(work)

    def read(self, work: Callable[[], None]) -> None:
        """Do it as soon as a thread is free, in the order of the calls."""
        self._reading.submit(work)

    def note_read(self) -> None:
        """All bytes of a file were read."""
        with self.news:
            self.left -= 1
            is_last = self.left == 0
        if is_last and self._on_read is not None:
            self._on_read()

    def drop(self) -> None:
        """Give ``freed`` back in another thread, as long as there is more to be read.

        It takes the system a while, in which it is slow to map other memory: the last few files are
        given back by ``close``, which nobody waits for.
        """
        while self.freed and (self.left > 0 or len(self.freed) > self._jobs):
            self._freeing.submit(self.freed.pop().close)

    def stop(self) -> None:
        """Nobody wants the rest."""
        self.is_stopped = True

    def close(self) -> None:
        """Stop, and wait until nothing is read or hashed any more."""
        self.stop()
        while self.freed:
            self.freed.pop().close()
        self._reading.shutdown()
        self.hashing.shutdown()
        self._freeing.shutdown()
