"""Many engines in the place of one: each has a device and a process, and one thread drives all.

What waits, who is let in and who is served next is of the whole service, as there is one thread.
An engine that ends or hangs takes nothing with it: what it had is asked of another one, whose
answer has the same bits, and of which what was told before is left out.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from pythia_bento.engine.grammars import Constraint
from pythia_bento.engine.outputs import Outputs
from pythia_bento.engine.params import Request
from pythia_bento.engine.residents import Residency
from pythia_bento.engine.stats import EngineStats, added
from pythia_bento.errors import EngineUnavailable
from pythia_bento.runtime.backend import GiveUp, patiently
from pythia_bento.runtime.devices import Device
from pythia_bento.runtime.interrupts import Interrupts
from pythia_bento.runtime.model_info import Progress
from pythia_bento.runtime.pool.asked import MOST_TRIES, Asked
from pythia_bento.runtime.pool.place import Place, ReplicaState
from pythia_bento.runtime.pool.replica import Replica
from pythia_bento.runtime.pool.whereabouts import Whereabouts
from pythia_bento.runtime.served_models import warm_up
from pythia_bento.settings import SettingsError

if TYPE_CHECKING:  # it brings torch
    from pythia_bento.runtime.process import EngineProcess

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # outputs are waited for this long at a time, unless interrupted
RETRY_SECONDS = 5.0  # where no engine is left: one is there again about then

StartEngine = Callable[[Device, Progress, GiveUp], "EngineProcess"]


class EnginePool:
    """A ``ShelfBackend`` for an ``EngineThread``, as an ``EngineProcess`` is one."""

    def __init__(
        self, devices: Sequence[Device], start: StartEngine, on_progress: Progress
    ) -> None:
        """Start an engine on each device, at the same time; raises what starting one raises."""
        began = time.monotonic()
        processes = _started(devices, start, on_progress)
        seconds = time.monotonic() - began
        self._places = [
            Place(device, process, partial(start, device, _silent), seconds)
            for device, process in zip(devices, processes, strict=True)
        ]
        self._interrupts = Interrupts()
        self._due: Outputs = []  # what is to be told with the next step
        self._entries: dict[str, Any] = {}  # checkpoints that requests may name
        self._pins: dict[str, bool] = {}  # that were asked for since the start
        self._unspread = {key for key, one in processes[0].residencies.items() if one.is_pinned}
        self._whereabouts = Whereabouts()
        self._stall_seconds = 0.0
        self.repeats = 0
        """Requests that were asked once more."""
        first, all_limits = processes[0], [process.limits for process in processes]
        self.info, self.tokenizer = first.info, first.tokenizer
        tokens = min(limits.cache_tokens for limits in all_limits)
        self.limits = replace(first.limits, cache_tokens=tokens)

    def __len__(self) -> int:
        return len(self._places)

    def keep(self, wake: Callable[[], None]) -> None:
        """Start anew what ends; ``wake`` lets the thread make a step where it has no work."""
        for place in self._places:
            place.keep(wake)

    def watch(self, seconds: float) -> None:
        """Give up each engine that has work and makes no step for so long. In any thread."""
        self._stall_seconds = seconds
        for _, engine in self._up():
            engine.watch(seconds)

    def stay_down(self) -> None:
        """From now on what ends is not started anew. In any thread."""
        for place in self._places:
            place.stay_down()

    @property
    def is_alive(self) -> bool:
        """Whether an engine answers, or may soon."""
        return any(place.is_up or not place.failures for place in self._places)

    @property
    def is_silent(self) -> bool:
        """Whether none answers now. In any thread."""
        return not any(place.is_up for place in self._places)

    def states(self) -> list[ReplicaState]:
        """Of each engine. In any thread."""
        return [place.state() for place in self._places]

    def prepare(self, constraint: Constraint) -> None:
        """Nothing: the processes do so before their engines see a request."""

    def add_request(self, request: Request) -> None:
        """Hand a request to one of them; an error comes back as the output of its sequences."""
        if request.weights in self._unspread:
            self._spread(request.weights)
        self._give(Asked(request))

    def abort(self, request_id: str) -> None:
        """End a request before the next step; an unknown id is ignored."""
        for place, engine in self._up():
            if request_id in engine.open:
                self._try(place, lambda engine: engine.abort(request_id))

    def step(self) -> Outputs:
        """The outputs of the steps made meanwhile; none when there are none for a moment."""
        ready = self._ready()
        outputs: Outputs = []
        for place, engine in self._up():
            if events := ready.get(engine.process.wire.fileno(), 0):
                self._hear(place, events, outputs)
            while place.replica is engine and place.ended is engine.process:  # up to its end
                self._hear(place, select.POLLIN, outputs)
        self._welcome()
        outputs += self._due
        self._due = []
        return outputs

    def interrupt(self) -> None:
        """Let ``step`` return at once: something was ordered. In any thread."""
        self._interrupts.set()

    def introduce(self, key: str, entry: Any) -> None:
        """See ``ShelfBackend``; those hear of it who are to answer for it."""
        self._entries[key] = entry

    def pin(self, key: str, *, is_pinned: bool) -> None:
        """See ``ShelfBackend``: on all of them."""
        self._pins[key] = is_pinned
        self._unspread -= {key}
        self._unspread |= {key} if is_pinned else set()
        for place, _ in self._up():
            self._try(place, lambda engine: engine.process.pin(key, is_pinned=is_pinned))

    def unload(self, key: str) -> None:
        """See ``ShelfBackend``."""
        self._pins.pop(key, None)
        self._unspread -= {key}
        for place, _ in self._up():
            self._try(place, lambda engine: engine.process.unload(key))

    @property
    def residencies(self) -> Mapping[str, Residency]:
        """See ``ShelfBackend``: of several places of one checkpoint's weights the best."""
        return self._whereabouts.of([engine.residencies for _, engine in self._up()])

    def stats(self) -> EngineStats:
        """Of all together; counters are those of ended engines too."""
        return added(state.stats for state in self.states())

    def close(self) -> None:
        """End the processes."""
        self.stay_down()
        with ThreadPoolExecutor(len(self._places)) as threads:
            list(threads.map(Place.close, self._places))
        self._interrupts.close()

    def _up(self) -> list[tuple[Place, Replica]]:
        return [(place, one) for place in self._places if (one := place.replica) is not None]

    def _ready(self) -> dict[int, int]:
        """What can be read or written, by descriptor."""
        poll = select.poll()
        poll.register(self._interrupts.fileno(), select.POLLIN)
        for _, engine in self._up():
            poll.register(engine.process.wire.fileno(), engine.process.wire.events)
        ready = dict(poll.poll(0 if self._due else POLL_SECONDS * 1000))
        if ready.pop(self._interrupts.fileno(), 0):
            self._interrupts.clear()
        return ready

    def _hear(self, place: Place, events: int, outputs: Outputs) -> None:
        self._try(place, lambda engine: outputs.extend(engine.news(events)))

    def _try(self, place: Place, act: Callable[[Replica], object]) -> bool:
        """Whether a replica could do something; one that could not is lost."""
        if (engine := place.replica) is None:
            return False
        try:
            act(engine)
        except EngineUnavailable as error:
            self._lose(place, error)
            return False
        return True

    def _give(self, asked: Asked) -> None:
        entry = self._entries.get(asked.request.weights)
        while up := self._up():
            place, _ = min(up, key=lambda one: one[1].cost(asked))
            if self._try(place, lambda engine: engine.give(asked, entry)):
                return
        self._due += asked.failures(nobody_left())

    def _lose(self, place: Place, error: EngineUnavailable) -> None:
        engine = place.lose()
        left = [*engine.open.values()]
        why = "hangs" if engine.hangs else error.message
        logger.error("the engine on %s: %s; it had %d requests", place.device.name, why, len(left))
        if any(asked.request.capture is not None for asked in left):
            engine.process.join()  # two must not write to one place
        for asked in left:
            self._again(asked, error)

    def _again(self, asked: Asked, error: EngineUnavailable) -> None:
        if asked.is_abandoned:
            self._due += asked.abandoned() if asked.request.capture is not None else []
        elif asked.tries >= MOST_TRIES:
            self._due += asked.failures(EngineUnavailable(error.message, retry_after=RETRY_SECONDS))
        else:
            self.repeats += 1
            self._give(asked)

    def _welcome(self) -> None:
        """Take in those that were started anew."""
        for place in self._places:
            if place.replica is None and (engine := place.arrived()) is not None:
                if self._stall_seconds:
                    engine.watch(self._stall_seconds)
                self._try(place, self._pin_all)
                pinned = [key for key, one in self.residencies.items() if one.is_pinned]
                for key in pinned:
                    self._warm(place, key)

    def _pin_all(self, engine: Replica) -> None:
        for key, is_pinned in self._pins.items():
            engine.process.pin(key, is_pinned=is_pinned)

    def _spread(self, key: str) -> None:
        """Bring a pinned checkpoint to all of them."""
        self._unspread.discard(key)
        for place, _ in self._up():
            self._warm(place, key)

    def _warm(self, place: Place, key: str) -> None:
        if (entry := self._entries.get(key)) is not None:
            asked = Asked(replace(warm_up(), weights=key))
            asked.is_abandoned = True  # nobody waits for it
            self._try(place, lambda engine: engine.give(asked, entry))


def nobody_left() -> EngineUnavailable:
    """What those are told who ask while no engine answers."""
    return EngineUnavailable(
        "no engine is left, and another one is being started; try again later",
        retry_after=RETRY_SECONDS,
    )


def _silent(what: str, done: int, total: int) -> None:
    pass


def _started(
    devices: Sequence[Device], start: StartEngine, on_progress: Progress
) -> list[EngineProcess]:
    """One for each device; the first one's progress is told."""
    with ThreadPoolExecutor(len(devices)) as threads:
        tellers = chain([on_progress], repeat(_silent))
        starting = [threads.submit(start, device, next(tellers), patiently) for device in devices]
    failures = [failure for one in starting if (failure := one.exception()) is not None]
    started = [one.result() for one in starting if one.exception() is None]
    names = {one.device_name for one in started}
    if len(names) > 1:
        failures.append(
            SettingsError(
                f"setting devices (PYTHIA_DEVICES) names devices of several kinds, whose answers "
                f"differ: {', '.join(sorted(names))}"
            )
        )
    if failures:
        for process in started:
            process.close()
        raise failures[0]
    return started
