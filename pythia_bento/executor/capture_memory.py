"""Memory that captures are written to, as a device sees it."""

from __future__ import annotations

import logging
import mmap
import threading
import weakref
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)


class CaptureMemory:
    """Bytes of the host, which a GPU writes to by itself once they are page-locked.

    Locking a gigabyte takes most of a second. So a thread does it when something is captured for
    the first time, and until then the host writes.
    """

    def __init__(self, array: np.ndarray, device: torch.device) -> None:
        """``array`` is uint8."""
        self.array, self._device = array, device
        self._guard = threading.Lock()  # of what follows
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._stream: torch.cuda.Stream | None = None
        self._unlock: weakref.finalize[[int], CaptureMemory] | None = None

    def stream(self) -> torch.cuda.Stream | None:
        """On which the device may write there; None as long as the host has to. Waits for nothing.

        The first call has the memory locked.
        """
        if self._thread is None and self._device.type == "cuda" and len(self.array):
            self._thread = threading.Thread(target=self._lock, name="pythia-lock", daemon=True)
            self._thread.start()
        return self._stream

    def settle(self) -> None:
        """Wait until the memory is locked, or known not to be lockable."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """No device writes there any more; nothing is under way."""
        with self._guard:
            self._is_closed, self._stream = True, None
            if self._unlock is not None:
                self._unlock()

    def _lock(self) -> None:
        """In a thread; a failure is not its caller's, as CUDA keeps errors by thread."""
        self.array[:: mmap.PAGESIZE].max(initial=0)  # or all its pages come while CUDA is locked
        with torch.cuda.device(self._device):
            address = self.array.ctypes.data
            if int(status := _runtime().cudaHostRegister(address, len(self.array), 0)):
                logger.warning("captures are copied by the host: memory is not locked: %s", status)
                return
            with self._guard:
                if self._is_closed:
                    _unlock(address)
                    return
                self._unlock = weakref.finalize(self, _unlock, address)
                self._unlock.atexit = False  # the process takes it along
                self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]


def _unlock(address: int) -> None:
    _runtime().cudaHostUnregister(address)


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
