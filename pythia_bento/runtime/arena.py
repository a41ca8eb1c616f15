"""Memory for what requests see of a model's inside, shared by the engine and those who answer.

A request's bytes are reserved before it begins, so that memory never grows with what is asked.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np

from pythia_bento.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    Overloaded,
    PayloadTooLarge,
    PythiaError,
)

MOST_WAITING = 64
_CLOSED = "the server is shutting down"
PAGE = mmap.PAGESIZE


class SharedMemory:
    """Bytes that a process which is started with this among its arguments has too.

    Not in /dev/shm, of which a container has 64 MB. What nobody wrote to takes no memory.
    """

    def __init__(self, nbytes: int) -> None:
        self._take(os.memfd_create("pythia-captures", os.MFD_CLOEXEC), nbytes)
        os.ftruncate(self._descriptor, len(self))

    keeps_pages = False
    """Whether a GPU may have them page-locked. It would go on writing to those that were given
    back, of which nobody reads anything any more."""

    def _take(self, descriptor: int, nbytes: int) -> None:
        self._descriptor, self._nbytes = descriptor, max(-(-nbytes // PAGE), 1) * PAGE
        self._close = weakref.finalize(self, os.close, descriptor)
        self._map: mmap.mmap | None = None

    def __len__(self) -> int:
        return self._nbytes

    @property
    def pages(self) -> mmap.mmap:
        """All of it; one mapping a process."""
        if self._map is None:
            self._map = mmap.mmap(self._descriptor, len(self))
        return self._map

    @property
    def array(self) -> np.ndarray:
        """The same as uint8."""
        return np.frombuffer(self.pages, np.uint8)

    def forget(self, offset: int, nbytes: int) -> None:
        """Give whole pages back to the system, unless it keeps them; they are zeros then."""
        if self.keeps_pages:
            return
        with suppress(OSError):  # a system that cannot keeps them
            self.pages.madvise(mmap.MADV_REMOVE, offset, nbytes)

    def close(self) -> None:
        """Nobody is given it any more; it is gone with the last view of it."""
        self._close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (DupFd(self._descriptor), len(self))


def _attached(descriptor: Any, nbytes: int) -> SharedMemory:
    memory = SharedMemory.__new__(SharedMemory)
    memory._take(descriptor.detach(), nbytes)
    return memory


class Region:
    """Part of an arena. It is free when its reader has released it and nobody writes to it."""

    def __init__(self, arena: Arena, offset: int, nbytes: int) -> None:
        self.offset, self.nbytes = offset, nbytes
        self._arena, self._lock = arena, threading.Lock()
        self._holders = 1  # the reader, and those who write
        self._is_released = False

    @property
    def memory(self) -> memoryview:
        """Not to be read after ``release``."""
        return memoryview(self._arena.pages)[self.offset : self.offset + self.nbytes]

    def hold(self) -> None:
        """Somebody may write to it, until ``drop``. In any thread, and so below."""
        with self._lock:
            self._holders += 1

    def drop(self) -> None:
        """See ``hold``."""
        with self._lock:
            self._holders -= 1
            is_free = self._holders == 0
        if is_free:
            self._arena.take_back(self)

    def release(self) -> None:
        """Its reader is done; harmless when repeated."""
        with self._lock:
            was_released, self._is_released = self._is_released, True
        if not was_released:
            self.drop()


class Arena:
    """Who has which bytes of a shared memory; who comes first is served first."""

    def __init__(self, memory: SharedMemory) -> None:
        self.memory, self.pages = memory, memory.pages  # mapped before anybody closes it
        self._lock = threading.Lock()  # guards what follows
        self._free = [(0, len(memory))]  # (offset, bytes), by offset, none beside another
        self._waiting: deque[_Waiter] = deque()
        self._is_closed = False
        self.used = 0  # bytes
        # Pages are given back by a thread: of many that takes a while.
        self._cleaner = ThreadPoolExecutor(1, "pythia-arena")

    async def reserve(self, nbytes: int, timeout: float) -> Region:
        """Bytes of one's own, when all who came before have theirs.

        Raises PayloadTooLarge for more than there are, Overloaded where too many wait,
        DeadlineExceeded after ``timeout`` seconds, and EngineUnavailable once it is closed.
        """
        size = -(-nbytes // PAGE) * PAGE
        if size > len(self.memory):
            raise PayloadTooLarge(
                f"capture asks for {nbytes:,} bytes, but the server has {len(self.memory):,} "
                "(PYTHIA_CAPTURE_GB)"
            )
        waiter = _Waiter(nbytes, size)
        with self._lock:
            if self._is_closed:
                raise EngineUnavailable(_CLOSED)
            if len(self._waiting) >= MOST_WAITING:
                raise Overloaded(
                    f"{MOST_WAITING} requests wait for memory for captures, which is the limit; "
                    "try again later"
                )
            self._waiting.append(waiter)
            self._serve()
        return await self._granted(waiter, timeout)

    async def _granted(self, waiter: _Waiter, timeout: float) -> Region:
        timer = waiter.loop.call_later(timeout, waiter.expire, timeout)
        try:
            return await waiter.future
        except BaseException:
            self._withdraw(waiter)
            raise
        finally:
            timer.cancel()

    def _withdraw(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._serve()  # those behind it may fit
                return
        if waiter.region is not None:
            waiter.region.release()

    def take_back(self, region: Region) -> None:
        """Nobody has a region any more."""
        with suppress(RuntimeError):  # closed: nobody will ask
            self._cleaner.submit(self._clean, region.offset, -(-region.nbytes // PAGE) * PAGE)

    def close(self) -> None:
        """Nobody is given anything any more; harmless when repeated."""
        with self._lock:
            self._is_closed = True
            for waiter in self._waiting:
                waiter.tell(EngineUnavailable(_CLOSED))
            self._waiting.clear()
        self._cleaner.shutdown(wait=False)
        self.memory.close()

    def _clean(self, offset: int, size: int) -> None:
        if size:
            self.memory.forget(offset, size)
        with self._lock:
            self.used -= size
            if size:
                self._free = _merged([*self._free, (offset, size)])
            self._serve()

    def _serve(self) -> None:
        """Give the first ones theirs as long as they fit."""
        while self._waiting and (found := self._fit(self._waiting[0].size)) is not None:
            waiter = self._waiting.popleft()
            self.used += waiter.size
            waiter.grant(Region(self, found, waiter.nbytes))

    def _fit(self, size: int) -> int | None:
        """Take the first place that is large enough."""
        if size == 0:
            return 0
        for index, (offset, room) in enumerate(self._free):
            if room >= size:
                rest = [(offset + size, room - size)] if room > size else []
                self._free[index : index + 1] = rest
                return offset
        return None


class _Waiter:
    """Who waits in an event loop."""

    def __init__(self, nbytes: int, size: int) -> None:
        self.nbytes, self.size = nbytes, size
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Region] = self.loop.create_future()
        self.region: Region | None = None

    def grant(self, region: Region) -> None:
        """In any thread, as ``tell``."""
        self.region = region
        if not self.tell(region):
            region.release()

    def tell(self, end: Region | PythiaError) -> bool:
        """End its waiting; false where nobody can be told, as the loop was closed."""
        try:
            self.loop.call_soon_threadsafe(self._arrive, end)
        except RuntimeError:
            return False
        return True

    def expire(self, timeout: float) -> None:
        """It waits no more."""
        words = f"there was no memory for captures within {timeout:g} seconds"
        self._arrive(DeadlineExceeded(words))

    def _arrive(self, end: Region | PythiaError) -> None:
        if self.future.done():
            return
        if isinstance(end, PythiaError):
            self.future.set_exception(end)
        else:
            self.future.set_result(end)


def _merged(free: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for offset, size in sorted(free):
        if merged and sum(merged[-1]) == offset:
            merged[-1] = merged[-1][0], merged[-1][1] + size
        else:
            merged.append((offset, size))
    return merged
