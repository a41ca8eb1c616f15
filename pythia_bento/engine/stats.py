"""The engine's numbers: plain integers, so that they fit into memory shared between processes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

# Steps are counted by how many sequences they had: up to each of these, and more.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# Loads of checkpoints by what they took: up to each of these seconds, and more.
LOAD_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_NO_LOADS = (0,) * (len(LOAD_SECONDS) + 1)


@dataclass(frozen=True, slots=True)
class GroupStats:
    """Of many checkpoints on one device: gauges and counters since the start."""

    changes: int = 0  # of the checkpoint that computes
    switch_microseconds: int = 0  # that they took on the host
    load_microseconds_disk: int = 0  # that loads took which succeeded, from there
    load_microseconds_host: int = 0
    failed_loads: int = 0
    evictions: int = 0  # from the device
    host_evictions: int = 0  # from the host, of what was there alone
    places: int = 1  # for checkpoints on the device
    on_device: int = 1  # checkpoints
    on_host: int = 0
    loading: int = 0
    failed: int = 0
    load_progress: int = 0  # grows while a checkpoint is being loaded
    load_times_disk: tuple[int, ...] = _NO_LOADS  # loads that succeeded; see LOAD_SECONDS
    load_times_host: tuple[int, ...] = _NO_LOADS

    @property
    def loads_disk(self) -> int:
        """That succeeded, from there."""
        return sum(self.load_times_disk)

    @property
    def loads_host(self) -> int:
        """As those from the disk."""
        return sum(self.load_times_host)

    def numbers(self) -> tuple[int, ...]:
        """All fields as one row of integers."""
        return (*_of_group(self), *self.load_times_disk, *self.load_times_host)

    @classmethod
    def of(cls, numbers: Sequence[int]) -> GroupStats:
        """The inverse of ``numbers``."""
        end = len(numbers) - len(_NO_LOADS)
        start = end - len(_NO_LOADS)
        disk, host = tuple(numbers[start:end]), tuple(numbers[end:])
        return cls(*numbers[:start], disk, host)  # type: ignore[call-arg, arg-type]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Gauges and counters since the start; tokens unless named otherwise."""

    running: int  # sequences
    waiting: int  # sequences
    blocks_used: int
    blocks_total: int
    blocks_cached: int  # readable through the prefix cache, used or not
    steps: int
    prompt_tokens: int  # of admitted requests
    generation_tokens: int
    prefix_queries: int
    prefix_hits: int
    preemptions: int  # sequences
    non_finite: int  # sequences
    drafts: int  # of sequences in steps
    draft_tokens: int
    accepted_tokens: int  # of these
    step_sequences: int  # of all steps together
    batch_sizes: tuple[int, ...]  # steps; see BATCH_SIZES
    group: GroupStats = GroupStats()

    def numbers(self) -> tuple[int, ...]:
        """All fields as one row of NUM_NUMBERS integers, for shared memory."""
        return (*_single(self), *self.group.numbers(), *self.batch_sizes)

    @classmethod
    def of(cls, numbers: Sequence[int]) -> EngineStats:
        """The inverse of ``numbers``."""
        single, sizes = _NUM_SINGLE, _NUM_SINGLE + _NUM_GROUP
        group = GroupStats.of(numbers[single:sizes])
        return cls(*numbers[:single], tuple(numbers[sizes:]), group)  # type: ignore[call-arg, arg-type]


_SINGLE = [f.name for f in fields(EngineStats) if f.name not in ("batch_sizes", "group")]
_NUM_SINGLE = len(_SINGLE)
_single = attrgetter(*_SINGLE)
_GROUP = [f.name for f in fields(GroupStats) if not f.name.startswith("load_times_")]
_of_group = attrgetter(*_GROUP)
_NUM_GROUP = len(_GROUP) + 2 * len(_NO_LOADS)
NUM_NUMBERS = _NUM_SINGLE + _NUM_GROUP + len(BATCH_SIZES) + 1

_GAUGES = ("running", "waiting", "blocks_used", "blocks_total", "blocks_cached")
_GROUP_GAUGES = ("places", "on_device", "on_host", "loading", "failed")
_OF_THE_POOL = ("blocks_used", "blocks_total", "blocks_cached")  # which engines share


def total(engines: Sequence[EngineStats], group: GroupStats) -> EngineStats:
    """Of engines that share a device, at least one."""
    sums = {
        name: max(values) if name in _OF_THE_POOL else sum(values)
        for name, values in zip(_SINGLE, zip(*map(_single, engines), strict=True), strict=True)
    }
    sizes = tuple(map(sum, zip(*(engine.batch_sizes for engine in engines), strict=True)))
    return EngineStats(**sums, batch_sizes=sizes, group=group)


def added(engines: Iterable[EngineStats]) -> EngineStats:
    """Of engines that have a device each, at least one."""
    columns = zip(*(engine.numbers() for engine in engines), strict=True)
    return EngineStats.of([sum(column) for column in columns])


def ended(engine: EngineStats) -> EngineStats:
    """What is left of an engine that is no more: counters, which never go back."""
    none: dict[str, Any] = dict.fromkeys(_GAUGES, 0)
    none_of_the_group: dict[str, Any] = dict.fromkeys(_GROUP_GAUGES, 0)
    return replace(engine, **none, group=replace(engine.group, **none_of_the_group))


class StepSizes:
    """Counts steps by their number of sequences."""

    def __init__(self) -> None:
        self.steps = 0
        self.sequences = 0
        self._counts = [0] * (len(BATCH_SIZES) + 1)

    def add(self, sequences: int) -> None:
        """A step was made."""
        self.steps += 1
        self.sequences += sequences
        self._counts[bisect_left(BATCH_SIZES, sequences)] += 1

    @property
    def counts(self) -> tuple[int, ...]:
        """Steps for each of BATCH_SIZES, and of more sequences."""
        return tuple(self._counts)


class LoadTimes:
    """Counts loads by what they took."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self._counts = list(_NO_LOADS)

    def add(self, seconds: float) -> None:
        """A checkpoint was loaded."""
        self.count += 1
        self.seconds += seconds
        self._counts[bisect_left(LOAD_SECONDS, seconds)] += 1

    @property
    def microseconds(self) -> int:
        """Of all together."""
        return int(self.seconds * 1e6)

    @property
    def counts(self) -> tuple[int, ...]:
        """Loads for each of LOAD_SECONDS, and longer ones."""
        return tuple(self._counts)
