"""Checkpoints that take turns on one runner: what benchmarks and tests of it share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import Chunk, Results
from pythia_bento.engine.group import EngineGroup
from pythia_bento.engine.members import Loaded, LoadEnd
from pythia_bento.engine.tokenizer import Tokenizer
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.host_slabs import HostSlabs

Make = Callable[[], PackedWeights]


def tag(key: str) -> bytes:
    """Whose weights a slab has."""
    return hashlib.sha256(key.encode()).digest()


class HostLoader:
    """A ``Loader`` that has weights at once: from the host where they are, else made anew."""

    def __init__(self, tokenizer: Tokenizer, host: HostSlabs | None = None) -> None:
        self._tokenizer, self._host = tokenizer, host
        self._end: LoadEnd | None = None
        self.made = self.returned = self.progress = 0

    def begin(self, key: str, entry: Make) -> None:
        """See ``Loader``; an entry makes its weights."""
        weights = None
        if self._host:
            weights = self._host.get(key)
            self._host.prepare()
        self.returned += weights is not None
        self.made += weights is None
        self._end = LoadEnd(key, Loaded(weights or entry(), self._tokenizer, tag(key)))

    def take(self) -> LoadEnd | None:
        """See ``Loader``."""
        end, self._end = self._end, None
        return end

    def keep(self, key: str, weights: PackedWeights) -> bool:
        """See ``Loader``."""
        return self._host is not None and self._host.put(key, weights)

    def expect(self, entry: Any) -> None:
        """Nothing is read ahead."""

    def take_dropped(self) -> list[str]:
        """See ``Loader``."""
        return self._host.take_dropped() if self._host else []

    def has_changed(self, entry: object) -> bool:
        """See ``Loader``."""
        return False

    def wait(self, seconds: float) -> None:
        """See ``Loader``: nothing is ever waited for."""

    def wake(self) -> None:
        """See ``Loader``."""

    def close(self) -> None:
        """See ``Loader``."""
        if self._host:
            self._host.close()


def group_of(
    runner: Any,
    first: PackedWeights,
    entries: Mapping[str, Make],
    loader: HostLoader,
    tokenizer: Tokenizer,
    *,
    capacity: int,
    turn_seconds: float,
) -> EngineGroup:
    """A group of ``entries``, the first of which has weights ``first``."""
    default, *others = entries
    runner.activate(first, is_last=False)
    group = EngineGroup(
        runner,
        Loaded(first, tokenizer, tag(default)),
        Engine(runner, tokenizer).limits,
        loader,
        default_key=default,
        default_entry=entries[default],
        capacity=capacity,
        turn_seconds=turn_seconds,
        max_cold=len(entries),
    )
    for key in others:
        group.introduce(key, entries[key])
    return group


class OneStep:
    """A look-ahead that never looks ahead, so that other weights may come before every step."""

    is_last = False

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def under_way(self, chunks: Sequence[Chunk]) -> None:
        """Nothing is."""

    def decode(self, chunks: Sequence[Chunk]) -> Results:
        """One step."""
        rows = [(chunk.sequence, chunk.start) for chunk in chunks]
        return list(self._runner.decode.start(rows, 1).results())

    def begin(self, chunks: Sequence[Chunk], tokens: Any) -> None:
        """Nothing is queued behind a pass."""

    def forget(self) -> None:
        """There is nothing to forget."""

    def pass_by(self) -> None:
        """There is nothing under way."""
