"""Which checkpoints callers keep on the device, and that a place is left for the others."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from pythia_bento.errors import InvalidRequest


class Pins:
    """Looked at and changed in one piece: of two that would take the last place one is refused.

    For any thread.
    """

    def __init__(self, keys: Iterable[str], places: int) -> None:
        """``keys`` are those pinned from the start, ``places`` those of the device."""
        self._lock = threading.Lock()
        self._keys, self._places = set(keys), places

    def add(self, key: str) -> None:
        """Raises InvalidRequest for one that would take the last place; harmless when repeated."""
        with self._lock:
            count = len(self._keys | {key})
            if count >= self._places:
                raise InvalidRequest(
                    f"pin would keep {count} checkpoints on the device, which holds "
                    f"{self._places}: one place is for the others",
                    param="pin",
                )
            self._keys.add(key)

    def discard(self, key: str) -> None:
        """It may leave."""
        with self._lock:
            self._keys.discard(key)
