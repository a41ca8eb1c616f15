"""Runs an engine on a thread of its own and carries its outputs to where they are awaited.

Callers hand over requests and read an ``AsyncStream`` or a ``SyncStream``. A stream that is closed
early ends its requests before the next step, or some hundred of them before each of the next.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import cast
from weakref import WeakKeyDictionary

from pythia_bento.checkpoints.shelf_entry import ShelfEntry
from pythia_bento.engine.grammars import Constraint
from pythia_bento.engine.outputs import Outputs, SequenceOutput, failure
from pythia_bento.engine.params import Request
from pythia_bento.engine.residents import Residency
from pythia_bento.engine.stats import EngineStats
from pythia_bento.errors import EngineUnavailable, PythiaError
from pythia_bento.runtime.admission import LEAST, AdmissionControl, Intake, RequestState
from pythia_bento.runtime.backend import MOST_ORDERS, ORDERS_SECONDS, Backend, ShelfBackend
from pythia_bento.runtime.deliveries import Deliveries
from pythia_bento.runtime.streams import AsyncStream, Stream
from pythia_bento.runtime.turns import RoundRobin
from pythia_bento.runtime.watchdog import Pulse, pulse_of
from pythia_bento.runtime.writing import Writing
from pythia_bento.telemetry.request_timings import RequestTimings, RequestWatch

logger = logging.getLogger(__name__)

_Due = tuple[Hashable, AsyncStream, Outputs]

# For a thread that was abandoned: one that can leave its engine does so at once.
LEAVE_SECONDS = 1.0


class EngineThread:
    """Owns an engine; all its methods may be called from any thread."""

    def __init__(self, engine: Backend, admission: AdmissionControl) -> None:
        """Start the thread; ``admission``, which it takes over, says how much it may have to do."""
        self._engine = engine
        self._wake = threading.Condition()  # guards everything below
        # Done by the thread between steps; who begins or ends thousands of requests takes turns.
        self._orders: RoundRobin[Callable[[], None]] = RoundRobin()
        self._states: dict[str, RequestState] = {}  # by request id
        self._ordered: set[Future[None]] = set()  # of orders that are not done yet
        self._admission, self._writing = admission, Writing()
        # By the event loop that reads; for the thread alone.
        self._deliveries: WeakKeyDictionary[asyncio.AbstractEventLoop, Deliveries] = (
            WeakKeyDictionary()
        )
        self.watch = RequestWatch()
        self._stop_reason: EngineUnavailable | None = None
        self._num_outputs = self._num_orders = 0  # that came, that were done
        self._is_abandoned = False
        self._has_left = threading.Event()  # the engine: the thread is about to end
        self.stopped: Future[None] = Future()
        """Done when the thread has ended everything, for whatever reason."""
        self._thread = threading.Thread(target=self._run, name="pythia-engine", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether requests are taken."""
        return self.stop_reason is None

    @property
    def stop_reason(self) -> EngineUnavailable | None:
        """Why no requests are taken any more; None while they are."""
        if self._stop_reason is None and not self._engine.is_alive:
            return EngineUnavailable("the engine's process ended")
        return self._stop_reason

    @property
    def is_stuck(self) -> bool:
        """Whether the thread is in a step that it may never come back from."""
        return self._is_abandoned and not self._has_left.is_set()

    def prepare(self, constraint: Constraint) -> None:
        """See ``Backend.prepare``."""
        self._engine.prepare(constraint)

    def stats(self) -> EngineStats:
        """The engine's counters; a snapshot that may be torn between two steps."""
        return self._engine.stats()

    def submit(self, intake: Intake) -> None:
        """Queue requests, all or none; raises Overloaded or EngineUnavailable."""
        with self._wake:
            if self._stop_reason is not None:
                raise self._stop_reason
            self._admission.enter(intake.demand, intake.account)
            intake.taken()
            self._states.update(intake.states)
            if intake.writes:
                self._writing.begin(intake.writes)
            if (entry := intake.entry) is not None:
                self._orders.add(intake.account, partial(self._introduce, entry))
            for state in intake.states.values():
                self._orders.add(intake.account, partial(self._add, state.timings.request))
            self._notify()

    def order(self, follow: Callable[[ShelfBackend], object]) -> Future[None]:
        """Have something done with an engine of many checkpoints; done when it is.

        The future raises EngineUnavailable where the engine ends before.
        """
        done: Future[None] = Future()

        def do() -> None:
            follow(cast(ShelfBackend, self._engine))
            self._ordered.discard(done)
            with suppress(InvalidStateError):  # nobody waits any more
                done.set_result(None)

        with self._wake:
            if self._stop_reason is not None:
                raise self._stop_reason
            self._ordered.add(done)
            self._orders.add(None, do)
            self._notify()
        return done

    @property
    def residencies(self) -> Mapping[str, Residency]:
        """Where the weights of an engine's checkpoints are."""
        return cast(ShelfBackend, self._engine).residencies

    def check_room(self, account: Hashable) -> None:
        """Raises Overloaded while ``submit`` would refuse whatever it is given."""
        with self._wake:
            self._admission.check(LEAST, account)

    def abort(self, request_ids: Sequence[str]) -> None:
        """End requests before the next steps; unknown ids are ignored."""
        with self._wake:
            for request_id in request_ids:
                if state := self._states.get(request_id):
                    self._orders.add(state.account, partial(self._remove, request_id))
            self._notify()

    def close(self) -> None:
        """End everything and wait for the thread; open streams get EngineUnavailable."""
        self._stop(EngineUnavailable("the server is shutting down"))
        if not self._is_abandoned or self._has_left.wait(LEAVE_SECONDS):
            self._thread.join()

    def pulse(self) -> Pulse | None:
        """Changes whenever the engine gets on; None while it has nothing to do."""
        if self._stop_reason is not None or not (self._states or self._orders):
            return None
        return pulse_of(self._engine.stats(), self._num_outputs, self._num_orders)

    def abandon(self, error: EngineUnavailable) -> None:
        """End everything without the thread, which does not come back; ``error`` says why."""
        self._is_abandoned = True
        self._stop(error)
        self._fail_all()
        self._say_stopped()

    def _stop(self, error: EngineUnavailable) -> None:
        with self._wake:
            self._stop_reason = self._stop_reason or error
            self._notify()

    def _notify(self) -> None:
        self._wake.notify()
        self._engine.interrupt()

    def _run(self) -> None:
        try:
            while self._follow_orders():
                if outputs := self._engine.step():
                    self._num_outputs += len(outputs)
                    if self._writing.regions:
                        self._writing.see(outputs)
                    self._deliver(outputs)
        except BaseException as error:
            logger.exception("the engine died")
            died = EngineUnavailable(f"the engine died of {type(error).__name__}")
            self._stop(error if isinstance(error, EngineUnavailable) else died)
        self._has_left.set()
        self._fail_all()
        self._engine.close()
        self._writing.end_all()
        self._say_stopped()

    def _say_stopped(self) -> None:
        for done in tuple(self._ordered):
            with suppress(InvalidStateError):
                done.set_exception(self._stop_reason)
        with suppress(InvalidStateError):  # said before, when the engine was abandoned
            self.stopped.set_result(None)

    def _has_work(self) -> bool:
        """Or waits for the engine to say that a request that was aborted is ended."""
        return bool(self._stop_reason or self._orders or self._states or self._writing.regions)

    def _follow_orders(self) -> bool:
        """Wait for work and do some of what was ordered; false when it is time to end."""
        with self._wake:
            self._wake.wait_for(self._has_work)
            if self._stop_reason is not None:
                return False
        began = time.monotonic()
        for _ in range(MOST_ORDERS):
            with self._wake:
                order = self._orders.take() if self._orders else None
            if order is None:
                return True
            order()
            self._num_orders += 1
            if time.monotonic() > began + ORDERS_SECONDS:
                break
        if self._orders:
            self._engine.interrupt()  # they are not to wait for a step that waits
        return True

    def _add(self, request: Request) -> None:
        try:
            self._engine.add_request(request)
        except PythiaError as error:
            self._writing.end(request.request_id)
            self._deliver([failure(request.request_id, i, error) for i in range(request.n)])

    def _introduce(self, entry: ShelfEntry) -> None:
        cast(ShelfBackend, self._engine).introduce(entry.weights, entry)

    def _remove(self, request_id: str) -> None:
        if self._engine.abort(request_id) is not None:
            self._writing.end(request_id)
        with self._wake:
            if state := self._states.pop(request_id, None):
                self.watch.on_abort(state.timings)
                self._admission.leave(state.demand, state.account)

    def _fail_all(self) -> None:
        """Only once there is a reason to stop: from then on nothing is added."""
        error = self._stop_reason
        assert error is not None
        with self._wake:
            failures = [o for state in self._states.values() for o in state.failures(error)]
        self._deliver(failures)

    def _deliver(self, outputs: Outputs) -> None:
        """Bring each output to its stream."""
        by_stream: dict[Stream, tuple[Hashable, Outputs]] = {}
        seen: list[tuple[RequestTimings, SequenceOutput]] = []
        with self._wake:
            for output in outputs:
                if (state := self._states.get(output.request_id)) is None:
                    continue
                if (entry := by_stream.get(state.stream)) is None:
                    by_stream[state.stream] = state.account, [output]
                else:
                    entry[1].append(output)
                seen.append((state.timings, output))
                if output.finish_reason is not None:
                    self._finish(state, output.index)
            self.watch.on_outputs(seen)
        self._bring(by_stream)

    def _bring(self, by_stream: Mapping[Stream, tuple[Hashable, Outputs]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Due]] = defaultdict(list)
        for stream, (account, own) in by_stream.items():
            if not (due := stream.due(own)):
                continue
            if isinstance(stream, AsyncStream):
                by_loop[stream.loop].append((account, stream, due))
            else:
                stream.post(due)
        for loop, all_due in by_loop.items():
            deliveries = self._deliveries.setdefault(loop, Deliveries())
            # A loop that was closed has nobody left to read; its requests run to their end.
            with suppress(RuntimeError):
                deliveries.bring(loop, all_due)

    def _finish(self, state: RequestState, index: int) -> None:
        """One continuation has ended."""
        state.unfinished.discard(index)
        self._admission.leave(state.share, state.account)
        if not state.unfinished:
            del self._states[state.timings.request.request_id]
