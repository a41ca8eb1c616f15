"""A flag that can be waited for beside a pipe."""

from __future__ import annotations

import multiprocessing
import threading


class Interrupts:
    """A flag that ``poll`` can wait for, beside a pipe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._is_set = False
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)

    def fileno(self) -> int:
        """Readable while the flag is set."""
        return self._reader.fileno()

    def set(self) -> None:
        """In any thread; harmless when it is set, or closed."""
        with self._lock:
            if not self._is_set and not self._writer.closed:
                self._is_set = True
                self._writer.send_bytes(b"!")

    def clear(self) -> None:
        """Unset it."""
        with self._lock:
            self._is_set = False
            self._reader.recv_bytes()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._reader.close()
            self._writer.close()
