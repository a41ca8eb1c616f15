"""Counts the requests that are in flight, over all transports; once closed, no more get in."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pythia_bento.errors import EngineUnavailable


class InFlight:
    """From a request's arrival to the last byte of its answer. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._count = 0
        self._when_empty: Callable[[], object] | None = None  # set once closed

    def enter(self) -> None:
        """Count one more until ``leave``; raises EngineUnavailable once closed."""
        with self._lock:
            if self._when_empty is not None:
                raise EngineUnavailable("the server is shutting down")
            self._count += 1

    def leave(self) -> None:
        """Count one less; the last one to leave after ``close`` calls its ``when_empty``."""
        with self._lock:
            self._count -= 1
            when_empty = None if self._count else self._when_empty
        if when_empty:
            when_empty()

    def close(self, when_empty: Callable[[], object]) -> None:
        """Let nobody in; ``when_empty`` is called once all have left, perhaps at once."""
        with self._lock:
            self._when_empty = when_empty
            is_empty = not self._count
        if is_empty:
            when_empty()
