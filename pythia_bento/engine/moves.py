"""Brings weights to the device when somebody waits for them, one checkpoint after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.members import Loaded, Loader, Member, Source
from pythia_bento.engine.outputs import Outputs, failure
from pythia_bento.engine.params import Request
from pythia_bento.engine.residents import Residents
from pythia_bento.engine.stats import LoadTimes
from pythia_bento.errors import DeadlineExceeded, OutOfMemory, Overloaded, PythiaError

logger = logging.getLogger(__name__)

LATE_SECONDS = 0.05  # how often those that wait for weights are asked whether they still can


class Moves:
    """Decides with ``residents``, moves with ``loader``, and tells those for whom it failed."""

    def __init__(
        self,
        members: Mapping[str, Member],
        residents: Residents,
        loader: Loader,
        max_cold: int,
        make_engine: Callable[[Loaded], Engine],
        let_go: Callable[[Any], None],
    ) -> None:
        """``max_cold`` are the checkpoints that requests may wait for.

        ``let_go`` is told what weights leave the device: whoever computes with them holds them.
        """
        self._members, self._residents, self._loader = members, residents, loader
        self._max_cold, self._make_engine, self._let_go = max_cold, make_engine, let_go
        self._cold: dict[str, None] = {}  # who has work and no weights, longest first
        self._loading: str | None = None
        self._unloading: set[str] = set()  # who is to go whether others wait or not
        self._looked = 0.0  # time.monotonic() when late requests were looked for
        self.loads: dict[Source, LoadTimes] = {"disk": LoadTimes(), "host": LoadTimes()}
        """Those that succeeded, by where they came from."""
        self._began = 0.0  # time.monotonic() when the one under way did
        self.failed_loads = self.host_evictions = 0

    @property
    def is_loading(self) -> bool:
        """Whether something is on its way."""
        return self._loading is not None

    def want(self, key: str) -> None:
        """Somebody asks for it; raises what keeps it from being loaded, and Overloaded."""
        member, resident = self._members[key], self._residents[key]
        if member.weights is not None or key in self._cold or key == self._loading:
            return
        if resident.error is not None and not self._loader.has_changed(member.entry):
            raise resident.error
        if len(self._cold) >= self._max_cold:
            raise Overloaded(
                f"{len(self._cold)} checkpoints wait to be loaded, which is the limit; "
                "try again later",
                param="model",
                retry_after=self._seconds_of(len(self._cold)),
            )
        self._cold[key] = None

    def settle(self) -> Outputs:
        """Take what has arrived, begin what comes next; the ends of requests that cannot go on."""
        if not (self._cold or self._loading or self._unloading or self._residents.draining):
            return []
        ended = self._take()
        ended += self._end_late()
        for key in [key for key in self._unloading if not self._members[key].is_running]:
            self._evict(key)
        self._cold = {key: None for key in self._cold if self._members[key].has_work}
        self._begin()
        return ended

    def arrive(self, key: str, loaded: Loaded) -> None:
        """It is on the device, and what waited for it goes on; raises CheckpointError."""
        member = self._members[key]
        if member.engine is None:
            member.engine = self._make_engine(loaded)
        member.weights = loaded.weights
        member.engine.pause(is_paused=False)
        waiting, member.waiting = member.waiting, {}
        for request in waiting.values():
            member.engine.add_request(request)
        self._residents.put(key, "device")

    def stay(self, key: str) -> None:
        """It is not to leave any more, where it was to."""
        self._unloading.discard(key)
        if self._residents.draining == key:
            self._residents.draining = None
        if (member := self._members.get(key)) and member.engine is not None:
            member.engine.pause(is_paused=False)

    def unload(self, key: str) -> None:
        """Evict it now, or as soon as none of its sequences runs."""
        member = self._members.get(key)
        if member is None or member.weights is None:
            return
        if member.is_running and member.engine is not None:
            self._unloading.add(key)
            member.engine.pause(is_paused=True)
        else:
            self._evict(key)

    def _take(self) -> Outputs:
        if (end := self._loader.take()) is None:
            return []
        self._loading = None
        if isinstance(end.found, MemoryError):
            return self._without_memory(end.key)
        if isinstance(end.found, PythiaError):
            return self._fail(end.key, end.found)
        try:
            self.arrive(end.key, end.found)
        except PythiaError as error:
            return self._fail(end.key, error)
        self.loads[end.found.source].add(time.monotonic() - self._began)
        return []

    def _begin(self) -> None:
        """Load what waits longest, into a free place or another's."""
        if self._loading is not None:
            self._loader.expect(self._next())
            return
        if (key := next(iter(self._cold), None)) is None:
            self._drain(is_paused=False)  # nobody waits for its place any more
            self._residents.draining = None
            return
        if not self._residents.has_room:
            victim = self._residents.victim(self._is_running, self._with_work())
            if victim is None:
                self._drain(is_paused=True)
                return
            self._evict(victim)
        del self._cold[key]
        self._loading, self._began = key, time.monotonic()
        self._residents.put(key, "loading")
        self._loader.begin(key, self._members[key].entry)

    def _next(self) -> Any:
        """The entry that is read from the disk next."""
        cold = (key for key in self._cold if self._residents[key].state != "host")
        key = next(cold, None)
        return None if key is None else self._members[key].entry

    def _evict(self, key: str) -> None:
        member = self._members[key]
        weights, member.weights = member.weights, None
        self._unloading.discard(key)
        self._let_go(weights)
        is_kept = self._loader.keep(key, weights)
        self._residents.evict(key, "host" if is_kept else "disk")
        for dropped in self._loader.take_dropped():
            if self._residents[dropped].state == "host":  # else it is on the device besides
                self._residents.put(dropped, "disk")
                self.host_evictions += 1
        if member.has_work:
            self._cold[key] = None

    def _drain(self, *, is_paused: bool) -> None:
        """Whether the one that is to make room begins anything more."""
        key = self._residents.draining
        if key is None or key in self._unloading:
            return
        if (engine := self._members[key].engine) is not None:
            engine.pause(is_paused=is_paused)

    def _without_memory(self, key: str) -> Outputs:
        """Try again with another's memory; where there is none, end what waits for it."""
        self._residents.put(key, "disk")
        victim = self._residents.victim(self._is_running, self._with_work())
        if victim is not None:
            self._evict(victim)
            self._cold = {key: None} | self._cold
            return []
        error = OutOfMemory("the device has no memory for this checkpoint; try again later")
        return self._end(self._members[key], error)

    def _fail(self, key: str, error: PythiaError) -> Outputs:
        logger.error("%s", error.message)
        self.failed_loads += 1
        self._residents.put(key, "failed", error=error)
        return self._end(self._members[key], error)

    def _end(self, member: Member, error: PythiaError) -> Outputs:
        """All that waits for a checkpoint."""
        waiting, member.waiting = member.waiting, {}
        ended = _failures(waiting.values(), error)
        return ended + (member.engine.fail_all(error) if member.engine else [])

    def _end_late(self) -> Outputs:
        """Whoever's deadline passed while the weights were not there."""
        now = time.monotonic()
        if now < self._looked + LATE_SECONDS:
            return []
        self._looked, ended = now, []
        error = DeadlineExceeded("the request's deadline passed while its checkpoint was loaded")
        for member in self._members.values():
            if member.weights is not None or not member.has_work:
                continue
            late = [request for request in member.waiting.values() if request.deadline <= now]
            for request in late:
                del member.waiting[request.request_id]
            ended += _failures(late, error)
            ended += member.engine.end_late() if member.engine else []
        return ended

    def _seconds_of(self, loads: int) -> float:
        """What so many loads take, by those that there were; at least one second."""
        ended = self.loads.values()
        mean = sum(one.seconds for one in ended) / max(sum(one.count for one in ended), 1)
        return max(loads * mean, 1.0)

    def _is_running(self, key: str) -> bool:
        return self._members[key].is_running

    def _with_work(self) -> set[str]:
        return {key for key, member in self._members.items() if member.has_work}


def _failures(requests: Iterable[Request], error: PythiaError) -> Outputs:
    return [failure(one.request_id, index, error) for one in requests for index in range(one.n)]
