"""A device of a pool, whose engine is started anew whenever it ends."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythia_bento.engine.stats import NUM_NUMBERS, EngineStats, added, ended
from pythia_bento.runtime.backend import LOOK_SECONDS, GiveUp
from pythia_bento.runtime.devices import Device
from pythia_bento.runtime.pool.replica import Replica

if TYPE_CHECKING:  # it brings torch
    from pythia_bento.runtime.process import EngineProcess

logger = logging.getLogger(__name__)

# Until an engine is started anew: twice as long each time, unless it has lived for long.
FIRST_SECONDS, LONGEST_SECONDS, LONG_LIFE_SECONDS = 0.5, 60.0, 300.0
CLOSE_SECONDS, CLOSE_LOOK_SECONDS = 10.0, 0.02
# An engine that starts hangs when it tells nothing for so long, or for so many times as long as
# the whole of the first start took.
SILENT_SECONDS, SILENT_TIMES = 60.0, 4

_NOTHING = EngineStats.of([0] * NUM_NUMBERS)
Start = Callable[[GiveUp], "EngineProcess"]


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One engine of a service, as metrics have it."""

    device: str
    is_up: bool
    stats: EngineStats  # gauges of now, counters since the service began
    died: int = 0  # engines that ended by themselves
    hung: int = 0  # that were given up
    restarts: int = 0


class Place:
    """What is not said to be for any thread is for the pool's."""

    def __init__(
        self, device: Device, process: EngineProcess, start: Start, start_seconds: float
    ) -> None:
        """``start`` is called on a thread of the place's own; the first took ``start_seconds``."""
        self.device, self._start = device, start
        self._silent_seconds = max(SILENT_SECONDS, SILENT_TIMES * start_seconds)
        # One thing, as others look at it: its engine, and what those before it have counted.
        self._now: tuple[Replica | None, EngineStats] = Replica(process), _NOTHING
        self.died = self.hung = self.restarts = 0
        self.failures = 0
        """Starts in a row that went wrong."""
        self.ended: EngineProcess | None = None
        """The last one that is known to be no more, perhaps the replica's. Set by any thread."""
        self._left: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._arrived: queue.SimpleQueue[EngineProcess] = queue.SimpleQueue()
        self._is_closing = threading.Event()
        self._delay, self._began = FIRST_SECONDS, time.monotonic()
        self._thread: threading.Thread | None = None

    def keep(self, wake: Callable[[], None]) -> None:
        """Look after the process from now on; ``wake`` is called where the pool is to look."""
        assert self.replica is not None  # as at the begin
        arguments = (self.replica.process, wake)
        self._thread = threading.Thread(
            target=self._run, args=arguments, name="pythia-keeper", daemon=True
        )
        self._thread.start()

    @property
    def replica(self) -> Replica | None:
        """None while there is none. In any thread."""
        return self._now[0]

    @property
    def is_up(self) -> bool:
        """Whether an engine answers. In any thread."""
        return (replica := self.replica) is not None and replica.process.is_alive

    def lose(self) -> Replica:
        """Its replica is of no use any more: another one will come, unless it is to end."""
        replica, past = self._now
        assert replica is not None  # as who calls this has seen
        self._now = None, added([past, ended(replica.process.stats())])
        self.hung += replica.hangs
        self.died += not replica.hangs
        replica.process.kill()
        replica.stopped.set_result(None)
        self._left.put(None)
        return replica

    def arrived(self) -> Replica | None:
        """Another one, where it is there now."""
        try:
            replica = Replica(self._arrived.get(block=False))
        except queue.Empty:
            return None
        self._now = replica, self._now[1]
        self.restarts += 1
        return replica

    def stay_down(self) -> None:
        """From now on what ends is not started anew. In any thread."""
        self._is_closing.set()

    def close(self) -> None:
        """End the process, and what looks after it."""
        self.stay_down()
        end = time.monotonic() + CLOSE_SECONDS
        while True:
            if (replica := self.replica or self.arrived()) is not None:
                self._now = None, self._now[1]
                replica.stopped.set_result(None)
                replica.process.close()
                self._left.put(None)
            if self._thread is None or time.monotonic() > end:
                return
            self._thread.join(CLOSE_LOOK_SECONDS)
            if not self._thread.is_alive():
                return

    def state(self) -> ReplicaState:
        """In any thread."""
        replica, past = self._now
        stats = past if replica is None else added([past, replica.process.stats()])
        return ReplicaState(
            self.device.name, self.is_up, stats, self.died, self.hung, self.restarts
        )

    def _run(self, process: EngineProcess, wake: Callable[[], None]) -> None:
        while True:
            process.join()
            self.ended = process
            wake()
            self._left.get()
            process.close()
            if (other := self._anew()) is None:
                return
            process = other
            self._arrived.put(process)
            wake()

    def _gives_up(self, silent_looks: int) -> str | None:
        """See ``GiveUp``."""
        if self._is_closing.is_set():
            return "the service ends"
        if silent_looks * LOOK_SECONDS < self._silent_seconds:
            return None
        return f"it told nothing for {self._silent_seconds:.0f} seconds while it was started"

    def _anew(self) -> EngineProcess | None:
        """Another process, when one has loaded; None where none is to be."""
        if time.monotonic() > self._began + LONG_LIFE_SECONDS:
            self._delay = FIRST_SECONDS
        while not self._is_closing.wait(self._delay):
            self._delay = min(2 * self._delay, LONGEST_SECONDS)
            try:
                process = self._start(self._gives_up)
            except Exception as error:  # whatever it is, it may be over the next time
                self.failures += 1
                logger.error("no engine could be started on %s: %s", self.device.name, error)
                continue
            if self._is_closing.is_set():
                process.close()
                return None
            self.failures, self._began = 0, time.monotonic()
            logger.warning("there is an engine on %s again", self.device.name)
            return process
        return None
