"""How long a request waited, was prepared and was answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pythia_bento.engine.params import SequenceOutput


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds; queue + prefill + decode = total."""

    queue: float  # from arrival to the first step
    prefill: float  # from there to the first token
    decode: float  # from there to the last one
    total: float


class Clock:
    """Watches the outputs of one request go by; made when it arrives."""

    def __init__(self) -> None:
        self._arrived = time.monotonic()
        self._started = 0.0
        self._first = 0.0
        self._last = 0.0

    def saw(self, outputs: Sequence[SequenceOutput]) -> None:
        """Outputs arrived just now."""
        self._last = time.monotonic()
        if not self._first:
            self._first = self._last
            self._started = min(output.started for output in outputs)

    def timings(self) -> Timings:
        """Valid once something was seen."""
        return Timings(
            queue=self._started - self._arrived,
            prefill=self._first - self._started,
            decode=self._last - self._first,
            total=self._last - self._arrived,
        )
