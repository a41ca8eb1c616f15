"""Many checkpoints of one shape behind the methods of one engine.

Each has an engine of its own: its queue and its sequences. They share the executor with its KV
cache, the pool of blocks, and the books of who was served how much. One of them at a time computes;
``visits`` says which, ``residents`` whose weights are on the device, and a ``Loader`` brings them
there while the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pythia_bento.engine.block_pool import BlockPool
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import Executor
from pythia_bento.engine.fair_queue import Books
from pythia_bento.engine.grammars import Constraint
from pythia_bento.engine.guides import grammars_of
from pythia_bento.engine.members import Loaded, Loader, Member
from pythia_bento.engine.moves import Moves
from pythia_bento.engine.outputs import Outputs
from pythia_bento.engine.params import Request
from pythia_bento.engine.residents import Residency, Residents
from pythia_bento.engine.stats import EngineStats, GroupStats, total
from pythia_bento.engine.validate import Limits
from pythia_bento.engine.visits import Visits
from pythia_bento.errors import EngineUnavailable, InvalidRequest, ModelNotFound

WAIT_SECONDS = 0.05  # of ``step`` where there is nothing to compute and something to load


class EngineGroup:
    """The methods of an ``Engine`` over many checkpoints. For one thread.

    Requests name theirs by its key, ``Request.weights``, which ``introduce`` has told before.
    """

    def __init__(
        self,
        executor: Executor,
        default: Loaded,
        limits: Limits,
        loader: Loader,
        *,
        default_key: str,
        default_entry: Any,
        capacity: int,
        turn_seconds: float,
        max_cold: int,
    ) -> None:
        """``default`` answers requests without a key; the executor computes with it already.

        ``capacity`` are the checkpoints that the device holds, ``max_cold`` those that requests may
        wait for.
        """
        self.limits, self.tokenizer = limits, default.tokenizer
        self._executor: Executor | None = executor
        self._pool, self._books = BlockPool(executor.config.num_blocks), Books()
        self._visits = Visits(turn_seconds, self._books)
        self._residents = Residents(capacity)
        self._members: dict[str, Member] = {}
        self._loader = loader
        self._moves = Moves(
            self._members, self._residents, loader, max_cold, self._engine_of, self._let_go
        )
        self._default_key = default_key
        self._active = default.weights  # what the executor computes with
        self._is_last = False
        self._switch_seconds = 0.0
        self.introduce(default_key, default_entry)
        self._moves.arrive(default_key, default)

    def introduce(self, key: str, entry: Any) -> None:
        """A checkpoint that requests may name from now on; harmless when repeated."""
        self._members.setdefault(key, Member(entry))

    def pin(self, key: str, *, is_pinned: bool) -> None:
        """Keep a checkpoint on the device once it is there, or do not any more."""
        self._residents.pin(key, is_pinned=is_pinned)
        if is_pinned:
            self._moves.stay(key)

    def unload(self, key: str) -> None:
        """Evict a checkpoint as soon as none of its sequences runs; no pin keeps it."""
        self._residents.pin(key, is_pinned=False)
        self._moves.unload(key)

    @property
    def residencies(self) -> Mapping[str, Residency]:
        """Where each checkpoint's weights are, by key; another mapping after each change."""
        return self._residents.all

    def prepare(self, constraint: Constraint) -> None:
        """See ``Engine.prepare``; checkpoints of one shape have the same tokens."""
        grammars_of(self.tokenizer).get(constraint)

    def lend(self, arena: np.ndarray) -> None:
        """See ``Engine.lend``."""
        self._alive().arena = arena

    def add_request(self, request: Request) -> None:
        """See ``Engine.add_request``; raises what keeps its checkpoint from being loaded too."""
        self._alive()
        key = request.weights or self._default_key
        member = self._members.get(key)
        if member is None:
            raise ModelNotFound(f"no checkpoint is called {key!r}", param="model")
        if any(request.request_id in other.waiting for other in self._members.values()):
            raise InvalidRequest(f"request id {request.request_id!r} is in use")
        self._moves.want(key)
        if member.engine is not None:
            member.engine.add_request(request)
        else:
            member.waiting[request.request_id] = request

    def abort(self, request_id: str) -> Outputs:
        """See ``Engine.abort``."""
        for member in self._members.values():
            if member.waiting.pop(request_id, None) is not None:
                return []
            if member.engine is not None and (outputs := member.engine.abort(request_id)):
                return outputs
        return []

    def step(self) -> Outputs:
        """See ``Engine.step``: of the checkpoint whose turn it is."""
        executor = self._alive()
        ended = self._moves.settle()
        ready = [key for key, member in self._members.items() if member.can_compute]
        if not ready:
            if self._moves.is_loading and not ended:
                self._loader.wait(WAIT_SECONDS)
            return ended
        key, is_last = self._visits.next(ready, self._callers, self._newcomers)
        engine, weights = self._members[key].engine, self._members[key].weights
        assert engine is not None
        if weights is not self._active or is_last != self._is_last:
            ended += self._activate(executor, weights, is_last=is_last)
        self._residents.use(key)
        return ended + engine.step()

    def interrupt(self) -> None:
        """Let a ``step`` that waits for a checkpoint return. In any thread."""
        self._loader.wake()

    @property
    def is_alive(self) -> bool:
        """Whether it takes requests: until ``close``."""
        return self._executor is not None

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has something to do."""
        return any(member.has_work for member in self._members.values())

    def stats(self) -> EngineStats:
        """All checkpoints' together."""
        members = tuple(self._members.values())
        engines = [member.engine.stats() for member in members if member.engine is not None]
        found = total(engines, self._group_stats())
        cold = sum(len(member.waiting) for member in members)
        return replace(found, waiting=found.waiting + cold) if cold else found

    def check(self) -> None:
        """Raise RuntimeError when a block is lost or held twice; for tests and debugging."""
        engines = [m.engine for m in self._members.values() if m.engine is not None]
        self._pool.check(s.blocks for engine in engines for s in engine.running)

    def close(self) -> Outputs:
        """Abort everything, drop all weights; further calls raise EngineUnavailable."""
        outputs: Outputs = []
        for member in self._members.values():
            member.waiting.clear()
            member.weights = None
            if member.engine is not None:
                outputs += member.engine.close()
        self._loader.close()
        self._executor = self._active = None
        return outputs

    def _alive(self) -> Executor:
        if self._executor is None:
            raise EngineUnavailable("the engine is closed")
        return self._executor

    def _activate(self, executor: Executor, weights: Any, *, is_last: bool) -> Outputs:
        """What those before have found; from now on it is ``weights`` that compute."""
        began = time.perf_counter()
        landed = [
            output
            for member in self._members.values()
            if member.engine is not None and member.weights is not weights
            for output in member.engine.land()
        ]
        executor.activate(weights, is_last=is_last)
        self._active, self._is_last = weights, is_last
        self._switch_seconds += time.perf_counter() - began
        return landed

    def _engine_of(self, loaded: Loaded) -> Engine:
        limits = replace(self.limits, num_tokens=loaded.tokenizer.num_tokens)
        tokenizer, root = loaded.tokenizer, loaded.root
        return Engine(self._alive(), tokenizer, limits, root, pool=self._pool, books=self._books)

    def _let_go(self, weights: Any) -> None:
        """Nothing is to hold them any more: they leave the device, and none of theirs runs."""
        if weights is self._active:
            self._alive().activate(None, is_last=False)
            self._active, self._is_last = None, False

    def _callers(self, key: str) -> dict[str, int]:
        engine = self._members[key].engine
        return engine.callers if engine else {}

    def _newcomers(self, key: str) -> dict[str, int]:
        engine = self._members[key].engine
        return engine.newcomers if engine else {}

    def _group_stats(self) -> GroupStats:
        moves, states = self._moves, [one.state for one in self.residencies.values()]
        return GroupStats(
            changes=self._visits.changes,
            switch_microseconds=int(self._switch_seconds * 1e6),
            load_microseconds_disk=moves.loads["disk"].microseconds,
            load_microseconds_host=moves.loads["host"].microseconds,
            failed_loads=moves.failed_loads,
            evictions=self._residents.evictions,
            host_evictions=moves.host_evictions,
            places=self._residents.capacity,
            on_device=states.count("device"),
            on_host=states.count("host"),
            loading=states.count("loading"),
            failed=states.count("failed"),
            load_progress=self._loader.progress,
            load_times_disk=moves.loads["disk"].counts,
            load_times_host=moves.loads["host"].counts,
        )
