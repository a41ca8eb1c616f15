"""How much may be under way at a time, in sequences and in tokens, and when to come again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pythia_bento.engine.params import Request
from pythia_bento.errors import Overloaded
from pythia_bento.runtime.rate import Rate

RETRY_SECONDS = (1.0, 60.0)  # nobody is told to come sooner or later


@dataclass(frozen=True, slots=True)
class Load:
    """What requests ask of the engine."""

    sequences: int
    tokens: int  # of prompts, and to generate at most

    def __add__(self, other: Load) -> Load:
        return Load(self.sequences + other.sequences, self.tokens + other.tokens)

    def __mul__(self, count: int) -> Load:
        return Load(self.sequences * count, self.tokens * count)


LEAST = Load(1, 1)
"""What any request asks."""


def share_of(request: Request) -> Load:
    """One continuation's part of a request."""
    return Load(1, len(request.prompt) + request.params.max_tokens)


def load_of(requests: Iterable[Request]) -> Load:
    """All requests together."""
    return sum((share_of(request) * request.n for request in requests), Load(0, 0))


class Gate:
    """Counts what is under way and refuses what would be too much; for one thread at a time."""

    def __init__(self, most: Load, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = Load(0, 0)
        self._sequences, self._tokens = Rate(clock), Rate(clock)  # that left

    def enter(self, load: Load) -> None:
        """Raises Overloaded with the seconds until there is room, at the rate of late."""
        self.check(load)
        self._now += load

    def check(self, load: Load) -> None:
        """What ``enter`` raises, without entering."""
        after = self._now + load
        # An idle engine takes a request of any size, or a large one could never be served.
        if self._now.sequences:
            for what, rate in (("sequences", self._sequences), ("tokens", self._tokens)):
                now, most = getattr(self._now, what), getattr(self._most, what)
                if getattr(after, what) > most:
                    raise Overloaded(
                        f"the server has {now} {what} to work on, and {getattr(load, what)} more "
                        f"would pass its limit of {most}; try again later",
                        retry_after=_seconds(getattr(after, what) - most, rate.per_second()),
                    )

    def leave(self, load: Load) -> None:
        """So much has ended."""
        self._now += load * -1
        self._sequences.add(load.sequences)
        self._tokens.add(load.tokens)


def _seconds(excess: int, rate: float) -> float:
    """How long it takes until ``excess`` has ended."""
    shortest, longest = RETRY_SECONDS
    return min(max(excess / rate, shortest), longest) if rate else shortest
