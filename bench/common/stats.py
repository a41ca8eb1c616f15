"""Percentiles of times, and streams of tokens timed where they arrive."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of the values do not exceed."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


def spread_ms(seconds: Iterable[float]) -> dict[str, float] | None:
    """Median, 99th percentile and largest in milliseconds; None without values."""
    values = list(seconds)
    if not values:
        return None
    found = {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": max(values)}
    return {name: round(value * 1e3, 3) for name, value in found.items()}


@dataclass(slots=True)
class Timing:
    """One answer as its reader saw it; times are seconds of the monotonic clock."""

    start: float
    tokens: int = 0
    arrivals: list[float] = field(default_factory=list)  # of parts with new tokens
    end: float = 0.0

    @property
    def gaps(self) -> list[float]:
        """Seconds between parts."""
        return [after - before for before, after in itertools.pairwise(self.arrivals)]


def summary(timings: Sequence[Timing]) -> dict[str, Any]:
    """Throughput from the first start to the last end, and what readers waited for.

    ``gap_ms`` is between two arrivals, which may bring several tokens; ``token_ms`` is each
    answer's time after its first arrival, shared by the tokens that came in it.
    """
    seconds = max(t.end for t in timings) - min(t.start for t in timings)
    tokens = sum(t.tokens for t in timings)
    streamed = [t for t in timings if len(t.arrivals) > 1]
    return {
        "tokens_per_s": round(tokens / seconds, 1),
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "answer_ms": spread_ms(t.end - t.start for t in timings),
        "first_token_ms": spread_ms(t.arrivals[0] - t.start for t in streamed),
        "gap_ms": spread_ms(gap for t in streamed for gap in t.gaps),
        "token_ms": spread_ms((t.arrivals[-1] - t.arrivals[0]) / (t.tokens - 1) for t in streamed),
        "tokens_per_arrival": round(tokens / max(1, sum(len(t.arrivals) for t in timings)), 2),
    }
