"""Counts the requests that are open, over all transports, and lets no more in when it is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pythia_bento.errors import EngineUnavailable


class Door:
    """Any thread may pass and close."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._inside = 0
        self._when_empty: Callable[[], object] | None = None

    def enter(self) -> None:
        """Be inside until ``leave``; raises EngineUnavailable once the door is closed."""
        with self._lock:
            if self._when_empty is not None:
                raise EngineUnavailable("the server is shutting down")
            self._inside += 1

    def leave(self) -> None:
        """The last to leave a closed door says so."""
        with self._lock:
            self._inside -= 1
            when_empty = None if self._inside else self._when_empty
        if when_empty:
            when_empty()

    def close(self, when_empty: Callable[[], object]) -> None:
        """Let nobody in; ``when_empty`` is called once all have left, perhaps at once."""
        with self._lock:
            self._when_empty = when_empty
            is_empty = not self._inside
        if is_empty:
            when_empty()
