"""What an engine's thread is to take: requests that are made ready one by one."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.params import Request
from pythia_bento.runtime.admission import NOTHING, Demand, share_of
from pythia_bento.runtime.request_state import RequestState
from pythia_bento.runtime.streams import Stream
from pythia_bento.telemetry.calls import CallContext, asked_by
from pythia_bento.telemetry.request_timings import RequestTimings


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

    def add(self, request: Request) -> None:
        """One more, which ``engine.validate`` has passed."""
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
