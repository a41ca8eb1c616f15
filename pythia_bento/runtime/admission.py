"""How much may be under way at a time, in sequences and in tokens, and when to come again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pythia_bento.engine.params import Request
from pythia_bento.errors import Overloaded

RETRY_SECONDS = (1.0, 60.0)  # nobody is told to come sooner or later
WINDOW_SECONDS = 10.0  # of the rate at which work ends: what is older counts little


@dataclass(frozen=True, slots=True)
class Demand:
    """What requests ask of the engine."""

    sequences: int
    tokens: int  # of prompts, and to generate at most

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.sequences + other.sequences, self.tokens + other.tokens)

    def __mul__(self, count: int) -> Demand:
        return Demand(self.sequences * count, self.tokens * count)


LEAST = Demand(1, 1)
"""What any request asks."""


def share_of(request: Request) -> Demand:
    """One continuation's part of a request."""
    return Demand(1, len(request.prompt) + request.params.max_tokens)


def demand_of(requests: Iterable[Request]) -> Demand:
    """All requests together."""
    return sum((share_of(request) * request.n for request in requests), Demand(0, 0))


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


class AdmissionControl:
    """Counts what is under way and refuses what would be too much; for one thread at a time."""

    def __init__(self, most: Demand, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = Demand(0, 0)
        self._sequences, self._tokens = Rate(clock), Rate(clock)  # that left

    def enter(self, demand: Demand) -> None:
        """Raises Overloaded with the seconds until there is room, at the rate of late."""
        self.check(demand)
        self._now += demand

    def check(self, demand: Demand) -> None:
        """What ``enter`` raises, without entering."""
        after = self._now + demand
        # An idle engine takes a request of any size, or a large one could never be served.
        if self._now.sequences:
            for what, rate in (("sequences", self._sequences), ("tokens", self._tokens)):
                now, most = getattr(self._now, what), getattr(self._most, what)
                if getattr(after, what) > most:
                    raise Overloaded(
                        f"the server has {now} {what} to work on, and {getattr(demand, what)} more "
                        f"would pass its limit of {most}; try again later",
                        retry_after=_seconds(getattr(after, what) - most, rate.per_second()),
                    )

    def leave(self, demand: Demand) -> None:
        """So much has ended."""
        self._now += demand * -1
        self._sequences.add(demand.sequences)
        self._tokens.add(demand.tokens)


def _seconds(excess: int, rate: float) -> float:
    """How long it takes until ``excess`` has ended."""
    shortest, longest = RETRY_SECONDS
    return min(max(excess / rate, shortest), longest) if rate else shortest
