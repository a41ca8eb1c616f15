"""How fast something happened lately."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WINDOW_SECONDS = 10.0  # what is older counts little


class Rate:
    """Events a second, older ones weighing less and less. For one thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sum = 0.0
        self._weight = 0.0  # what a rate of 1 would have summed up to
        self._at = clock()

    def add(self, count: float) -> None:
        """``count`` happened just now."""
        self._age()
        self._sum += count

    def per_second(self) -> float:
        """0 while nothing is known."""
        self._age()
        return self._sum / self._weight if self._weight else 0.0

    def _age(self) -> None:
        now = self._clock()
        kept = math.exp((self._at - now) / WINDOW_SECONDS)
        self._sum *= kept
        self._weight = self._weight * kept + WINDOW_SECONDS * (1 - kept)
        self._at = now
