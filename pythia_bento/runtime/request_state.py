"""What is left to do of a request, and for whom."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from pythia_bento.engine.outputs import Outputs, failure
from pythia_bento.errors import EngineUnavailable
from pythia_bento.runtime.admission import Demand
from pythia_bento.runtime.streams import Stream
from pythia_bento.telemetry.request_timings import RequestTimings


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
