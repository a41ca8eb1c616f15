"""How much may be under way at a time, in sequences and in tokens, and when to come again.

No account (a caller with an API key; without keys each request) counts for more than its share.
One that has nothing under way may begin a request of any size that is valid: what of it is above
the share waits in a place of its own, where nobody else is in need of it. So large requests are
served, and at most one for each share is, whatever the size of the queue.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
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

    def up_to(self, most: Demand) -> Demand:
        """At most so much of each."""
        return Demand(min(self.sequences, most.sequences), min(self.tokens, most.tokens))

    def portion(self, part: float) -> Demand:
        """A part between 0 and 1, rounded down, but something of each."""
        return Demand(max(int(self.sequences * part), 1), max(int(self.tokens * part), 1))


NOTHING = Demand(0, 0)
LEAST = Demand(1, 1)
"""What any request asks."""


def share_of(request: Request) -> Demand:
    """One continuation's part of a request."""
    return Demand(1, len(request.prompt) + request.params.max_tokens)


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

    def __init__(
        self, most: Demand, clock: Callable[[], float] = time.monotonic, share: float = 1.0
    ) -> None:
        """``share`` is the part of ``most`` that one account may have."""
        self._most = most
        self._share = most.portion(share)
        self._now = NOTHING  # of all accounts, each up to its share
        self._accounts: dict[Hashable, Demand] = {}  # all that each has under way; none has nothing
        self._sequences, self._tokens = Rate(clock), Rate(clock)  # that left

    def enter(self, demand: Demand, account: Hashable = None) -> None:
        """Raises Overloaded with the seconds until there is room, at the rate of late."""
        self.check(demand, account)
        self._set(account, self._of(account) + demand)

    def check(self, demand: Demand, account: Hashable = None) -> None:
        """What ``enter`` raises, without entering."""
        own = self._of(account)
        if own != NOTHING:
            has = "this caller has {} {} to work on, and {} more would pass its share of {}"
            self._check(own, demand, self._share, f"{has} (PYTHIA_CALLER_SHARE)")
        counted = own.up_to(self._share)
        more = (own + demand).up_to(self._share) + counted * -1
        has = "the server has {} {} to work on, and {} more would pass its limit of {}"
        self._check(self._now, more, self._most, has)

    def leave(self, demand: Demand, account: Hashable = None) -> None:
        """So much has ended."""
        self._set(account, self._of(account) + demand * -1)
        self._sequences.add(demand.sequences)
        self._tokens.add(demand.tokens)

    def _check(self, now: Demand, more: Demand, most: Demand, words: str) -> None:
        for what, rate in (("sequences", self._sequences), ("tokens", self._tokens)):
            has, asked, limit = (getattr(demand, what) for demand in (now, more, most))
            if has + asked > limit:
                # One that is too large for the share begins when nothing else of its caller is left
                excess = min(has + asked - limit, has)
                raise Overloaded(
                    f"{words.format(has, what, asked, limit)}; try again later",
                    retry_after=_seconds(excess, rate.per_second()),
                )

    def _of(self, account: Hashable) -> Demand:
        return self._accounts.get(account, NOTHING)

    def _set(self, account: Hashable, demand: Demand) -> None:
        """What an account has under way from now on."""
        before = self._of(account).up_to(self._share)
        self._now += demand.up_to(self._share) + before * -1
        if demand.sequences:
            self._accounts[account] = demand
        else:
            self._accounts.pop(account, None)


def _seconds(excess: int, rate: float) -> float:
    """How long it takes until ``excess`` has ended."""
    shortest, longest = RETRY_SECONDS
    return min(max(excess / rate, shortest), longest) if rate else shortest
