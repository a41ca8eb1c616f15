"""One engine of a pool: its process, as long as that lives, and what it has to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from pythia_bento.engine.outputs import Outputs, SequenceOutput
from pythia_bento.engine.residents import Residency
from pythia_bento.errors import EngineUnavailable
from pythia_bento.runtime.pool.asked import Asked
from pythia_bento.runtime.pool.routing import FROM_HOST, LOAD, Prefixes
from pythia_bento.runtime.watchdog import Pulse, Watchdog, pulse_of

if TYPE_CHECKING:  # it brings torch
    from pythia_bento.runtime.process import EngineProcess

_THERE = ("device", "loading")


class Replica:
    """For the pool's thread, but for what a watchdog asks."""

    def __init__(self, process: EngineProcess) -> None:
        self.process = process
        process.patience = 0.1  # others wait meanwhile, and a GPU's memory is long in going
        self.open: dict[str, Asked] = {}
        """What it has not ended, by request id."""
        self.hangs = False
        """Whether it was given up."""
        self.stopped: Future[None] = Future()
        """See ``Watched``."""
        self._work = 0
        self._weights: Counter[str] = Counter()  # keys of checkpoints that are asked now
        self._prefixes = Prefixes(process.limits.cache_tokens)
        self._num_outputs = self._num_orders = 0

    def watch(self, seconds: float) -> None:
        """Give it up where it makes no step for so long."""
        Watchdog(self, seconds).start()

    def pulse(self) -> Pulse | None:
        """See ``Watched``."""
        if not self.open or self.stopped.done():
            return None
        return pulse_of(self.process.stats(), self._num_outputs, self._num_orders)

    def abandon(self, error: EngineUnavailable) -> None:
        """See ``Watched``: what it had is asked again when the pool sees its end."""
        self.hangs = True
        self.process.kill()

    def cost(self, asked: Asked) -> int:
        """What is to be done until a request has its answer, but what is so anywhere."""
        coming = self._coming(asked.request.weights)
        return self._work - self._prefixes.known(asked.names) + coming

    def give(self, asked: Asked, entry: Any = None) -> None:
        """Let it answer; ``entry`` is the checkpoint. Raises EngineUnavailable where it is dead."""
        request = asked.request
        if entry is not None:
            self.process.introduce(request.weights, entry)
        self.process.add_request(request)
        asked.begin()
        self.open[request.request_id] = asked
        self._work += asked.work
        self._weights[request.weights] += 1
        self._prefixes.add(asked.names)
        self._num_orders += 1

    def abort(self, request_id: str) -> None:
        """End a request; of one that captures the end is waited for. Raises as ``give``."""
        if (asked := self.open.get(request_id)) is None:
            return
        self._num_orders += 1
        asked.is_abandoned = True
        if asked.request.capture is None:
            self._end(asked)
        self.process.abort(request_id)

    def news(self, events: int) -> Outputs:
        """What is new of what has come; see ``EngineProcess.exchange``, and what it raises."""
        outputs = self.process.exchange(events)
        self._num_outputs += len(outputs)
        return [new for output in outputs if (new := self._take(output)) is not None]

    def _take(self, output: SequenceOutput) -> SequenceOutput | None:
        if (asked := self.open.get(output.request_id)) is None:
            return None
        before = asked.work
        new = asked.take(output)
        self._work += asked.work - before
        if output.finish_reason is not None and (asked.has_ended or asked.is_abandoned):
            self._end(asked)
        return new

    def _end(self, asked: Asked) -> None:
        del self.open[asked.request.request_id]
        self._work -= asked.work
        self._weights[asked.request.weights] -= 1
        if not self._weights[asked.request.weights]:
            del self._weights[asked.request.weights]

    @property
    def residencies(self) -> Mapping[str, Residency]:
        """Where its checkpoints are."""
        return self.process.residencies

    def _coming(self, key: str) -> int:
        """What bringing a checkpoint there is worth; twice that where another has to leave."""
        if not key or self._weights[key]:
            return 0
        state = self.residencies.get(key, Residency()).state
        if state in _THERE:
            return 0
        there = {key for key, one in self.residencies.items() if one.state in _THERE}
        num_there = len(there.union(self._weights))
        is_full = num_there >= self.process.stats().group.places
        # Where all else is equal they are spread.
        return (FROM_HOST if state == "host" else LOAD) * (1 + is_full) + num_there
