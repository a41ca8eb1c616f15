"""Slabs that left the device, in page-locked memory of the host: one copy brings them back.

Locking memory takes most of a second for a slab of a gigabyte, so it is locked once and used again,
and only by ``prepare``, which nobody waits for.
"""

from __future__ import annotations

import logging
import mmap
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.slab import outline, placed

logger = logging.getLogger(__name__)


class Aside:
    """A stream of its own beside the one that computes, for a thread that loads."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # Its kernels are small: behind the blocks of large ones each would wait long.
            self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]

    @contextmanager
    def work(self) -> Iterator[None]:
        """What is queued inside is done when it returns; only this thread waits.

        It begins when the device is done with all that was queued before: memory that others gave
        back is then free to be written.
        """
        if self._stream is None:
            yield
            return
        computing = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        computing.record(torch.cuda.default_stream(self._device))
        computing.synchronize()
        with torch.cuda.stream(self._stream):
            yield
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record()
        done.synchronize()

    def download(self, source: Tensor, target: Tensor) -> torch.cuda.Event | None:
        """Queue a copy to page-locked memory; ``source`` may be forgotten at once.

        What it returns is for ``await_copy``.
        """
        if self._stream is None:
            target.copy_(source)
            return None
        self._stream.wait_stream(torch.cuda.default_stream(self._device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
        source.record_stream(self._stream)
        return done

    def await_copy(self, done: torch.cuda.Event | None) -> None:
        """What is queued here from now on follows a copy that another stream makes."""
        if self._stream is not None and done is not None:
            self._stream.wait_event(done)

    def hand_over(self, memory: Tensor) -> None:
        """Memory that was taken here is read where the device computes, until it is forgotten."""
        if self._stream is not None:
            memory.record_stream(torch.cuda.default_stream(self._device))


class LockedMemory:
    """Page-locked memory of the host, as much as is asked for: torch's own rounds up to 2^n."""

    def __init__(self, size: int, device: torch.device) -> None:
        """Raises RuntimeError where it cannot be locked, MemoryError where there is none."""
        self._is_locked = False
        try:
            pages = mmap.mmap(-1, size)
        except OSError as error:
            raise MemoryError(f"the host has no {size} bytes for a checkpoint") from error
        self.bytes = torch.frombuffer(pages, dtype=torch.uint8)
        if device.type == "cuda":
            if int(status := _runtime().cudaHostRegister(self.bytes.data_ptr(), size, 0)):
                with suppress(RuntimeError):  # or the next kernel's launch would find the error
                    torch.zeros(1, device=device)
                raise RuntimeError(f"{size} bytes cannot be locked: {status}")
            self._is_locked = True

    def unlock(self) -> None:
        """Nothing may be copied from or to it any more."""
        if self._is_locked:
            self._is_locked = False
            _runtime().cudaHostUnregister(self.bytes.data_ptr())


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class _Kept:
    shape: PackedWeights  # without memory
    tag: bytes
    memory: LockedMemory
    done: torch.cuda.Event | None  # when it is all there
    readers: int = 0


class HostSlabs:
    """Weights by key, those used longest ago dropped first. For any thread."""

    def __init__(self, device: torch.device, size: int, budget: int) -> None:
        """Slabs of ``size`` bytes, of which ``budget`` bytes may be locked together."""
        self._device, self._size = device, size
        self._left = budget // size  # slabs that may still be locked
        # One each way: what comes does not wait for what leaves.
        self._leaving, self._coming = Aside(device), Aside(device)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._free: list[LockedMemory] = []
        self._dropped: list[str] = []  # that made room since ``take_dropped``
        self._is_closed = False

    @property
    def keys(self) -> list[str]:
        """Whose weights are here, those used longest ago first."""
        with self._lock:
            return list(self._kept)

    def prepare(self) -> None:
        """Lock room for one more slab, unless there is some or the budget ends.

        Takes a second: for a thread that nobody waits for.
        """
        with self._lock:
            if self._free or not self._left:
                return
            self._left -= 1
        try:
            memory = LockedMemory(self._size, self._device)
        except (MemoryError, RuntimeError) as error:
            logger.warning("no more memory is locked for checkpoints: %s", error)
            self._left = 0
            return
        with self._lock:
            if self._is_closed:
                memory.unlock()
            else:
                self._free.append(memory)

    @torch.inference_mode()
    def put(self, key: str, weights: PackedWeights) -> bool:
        """Keep what is about to leave the device, if there is room; waits for nothing."""
        if (slab := weights.slab) is None:
            return False
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return True
            if (memory := self._take()) is None:
                return False
            done = self._leaving.download(slab.memory, memory.bytes)
            self._kept[key] = _Kept(outline(weights), slab.tag, memory, done)
            return True

    def take_dropped(self) -> list[str]:
        """Keys of those that made room for others, each once."""
        with self._lock:
            dropped, self._dropped = self._dropped, []
        return dropped

    @torch.inference_mode()
    def get(self, key: str) -> PackedWeights | None:
        """The weights on the device again, when they are there; None where they are not kept.

        Raises torch's error where the device has no memory for them.
        """
        with self._lock:
            if (kept := self._kept.get(key)) is None:
                return None
            self._kept.move_to_end(key)
            kept.readers += 1
        try:
            with self._coming.work():
                self._coming.await_copy(kept.done)
                memory = torch.empty(self._size, dtype=torch.uint8, device=self._device)
                memory.copy_(kept.memory.bytes, non_blocking=True)
            self._coming.hand_over(memory)
            return placed(kept.shape, memory, kept.tag)
        finally:
            with self._lock:
                kept.readers -= 1

    def close(self) -> None:
        """Forget everything and give the memory back; nothing is being read."""
        # Of a device that failed nothing is left.
        with suppress(RuntimeError), self._leaving.work(), self._coming.work():
            pass
        with self._lock:
            for memory in (*self._free, *(kept.memory for kept in self._kept.values())):
                memory.unlock()
            self._kept.clear()
            self._free.clear()
            self._left, self._is_closed = 0, True

    def _take(self) -> LockedMemory | None:
        """Room that is locked already: free, or that of weights used longest ago."""
        if self._free:
            return self._free.pop()
        unread = (key for key, kept in self._kept.items() if not kept.readers)
        if (oldest := next(unread, None)) is None:
            return None
        self._dropped.append(oldest)
        return self._kept.pop(oldest).memory
