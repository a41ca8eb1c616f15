"""How much may be under way at a time, in sequences and in tokens, and what is.

No account (a caller with an API key; without keys each request) counts for more than its share.
One that has nothing under way may begin a request of any size that is valid: what of it is above
the share waits in a place of its own, where nobody else is in need of it. So large requests are
served, and at most one for each share is, whatever the size of the queue.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.outputs import Outputs, failure
from pythia_bento.engine.params import Request
from pythia_bento.errors import EngineUnavailable, Overloaded
from pythia_bento.runtime.arena import Region
from pythia_bento.runtime.streams import Stream
from pythia_bento.telemetry.calls import CallContext, asked_by
from pythia_bento.telemetry.request_timings import RequestTimings

RETRY_SECONDS = (1.0, 60.0)  # nobody is told to come sooner or later
WINDOW_SECONDS = 10.0  # of the rate at which work ends: what is older counts little


@dataclass(frozen=True, slots=True)
class Demand:
    """What requests ask of the engine."""

    sequences: int
    tokens: int  # of prompts, and to generate at most

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.sequences + other.sequences, self.tokens + other.tokens)

    def __sub__(self, other: Demand) -> Demand:
        return Demand(self.sequences - other.sequences, self.tokens - other.tokens)

    def __mul__(self, count: int) -> Demand:
        return Demand(self.sequences * count, self.tokens * count)

    def up_to(self, most: Demand) -> Demand:
        """At most so much of each."""
        if self.sequences <= most.sequences and self.tokens <= most.tokens:
            return self
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
        more = (own + demand).up_to(self._share) - counted
        has = "the server has {} {} to work on, and {} more would pass its limit of {}"
        self._check(self._now, more, self._most, has)

    def leave(self, demand: Demand, account: Hashable = None) -> None:
        """So much has ended."""
        self._set(account, self._of(account) - demand)
        self._sequences.add(demand.sequences)
        self._tokens.add(demand.tokens)

    def _check(self, now: Demand, more: Demand, most: Demand, words: str) -> None:
        if (
            now.sequences + more.sequences <= most.sequences
            and now.tokens + more.tokens <= most.tokens
        ):
            return
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
        self._now += demand.up_to(self._share) - before
        if demand.sequences:
            self._accounts[account] = demand
        else:
            self._accounts.pop(account, None)


def _seconds(excess: int, rate: float) -> float:
    """How long it takes until ``excess`` has ended."""
    shortest, longest = RETRY_SECONDS
    return min(max(excess / rate, shortest), longest) if rate else shortest


@dataclass(slots=True)
class RequestState:
    """A request that the engine has not finished; ``timings`` has the request itself."""

    stream: Stream  # who waits for it
    timings: RequestTimings
    account: Hashable  # whose share of the queue it takes
    share: Demand  # of one continuation
    unfinished: set[int]  # indexes of continuations

    @property
    def demand(self) -> Demand:
        """What is still under way of it."""
        return self.share * len(self.unfinished)

    def failures(self, error: EngineUnavailable) -> Outputs:
        """The last outputs of what is unfinished, when the engine has ended."""
        request_id = self.timings.request.request_id
        return [failure(request_id, index, error) for index in self.unfinished]


@dataclass
class Intake:
    """What the thread is to take, all or none, made ready one by one: thousands take long.

    Nobody else knows of it before.
    """

    stream: Stream
    """Reads what comes of all of them."""
    call: CallContext | None
    """In whose name they are made."""
    account: Hashable
    """Whose share of the queue they take."""
    deadline: float
    """When they have to be done, of ``time.monotonic``."""
    entry: ShelfEntry | None = None
    """Who is to answer; None is the checkpoint that the engine has anyway."""
    demand: Demand = NOTHING
    states: dict[str, RequestState] = field(default_factory=dict)
    """By request id."""
    region: Region | None = None
    """Where what they capture goes."""

    @property
    def writes(self) -> dict[str, Region]:
        """Of those that capture something, by request id."""
        if self.region is None:
            return {}
        asked = ((id, state.timings.request) for id, state in self.states.items())
        return {id: self.region for id, request in asked if request.capture is not None}

    def add(self, request: Request) -> None:
        """One more, which ``engine.validate`` has passed.

        Raises ValueError for a capture without a place: it would overwrite others'.
        """
        if request.capture is not None and self.region is None:
            raise ValueError("captures are asked for by Served.capture")
        key = self.entry.weights if self.entry is not None else ""
        request = replace(asked_by(self.call, request, self.deadline), weights=key)
        timings, share = RequestTimings(request), share_of(request)
        self.states[request.request_id] = RequestState(
            self.stream, timings, self.account, share, set(range(request.n))
        )
        self.demand += share * request.n

    def taken(self) -> None:
        """Tell whoever waits for them that the thread has them."""
        timings = [state.timings for state in self.states.values()]
        self.stream.timings += timings
        if self.call is not None:
            self.call.requests += timings
