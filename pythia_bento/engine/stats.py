"""The engine's numbers: plain integers, so that they fit into memory shared between processes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

# Steps are counted by how many sequences they had: up to each of these, and more.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class GroupStats:
    """Of many checkpoints on one device: gauges and counters since the start."""

    changes: int = 0  # of the checkpoint that computes
    switch_microseconds: int = 0  # that they took on the host
    loads_disk: int = 0  # that succeeded, from there
    loads_host: int = 0
    load_microseconds_disk: int = 0  # that these took
    load_microseconds_host: int = 0
    failed_loads: int = 0
    evictions: int = 0  # from the device
    places: int = 1  # for checkpoints on the device
    on_device: int = 1  # checkpoints
    on_host: int = 0
    loading: int = 0
    failed: int = 0
    load_progress: int = 0  # grows while a checkpoint is being loaded


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
    step_sequences: int  # of all steps together
    batch_sizes: tuple[int, ...]  # steps; see BATCH_SIZES
    group: GroupStats = GroupStats()

    def numbers(self) -> tuple[int, ...]:
        """All fields as one row of NUM_NUMBERS integers, for shared memory."""
        return (*_single(self), *_of_group(self.group), *self.batch_sizes)

    @classmethod
    def of(cls, numbers: Sequence[int]) -> EngineStats:
        """The inverse of ``numbers``."""
        single, sizes = _NUM_SINGLE, _NUM_SINGLE + len(_GROUP)
        group = GroupStats(*numbers[single:sizes])
        return cls(*numbers[:single], tuple(numbers[sizes:]), group)  # type: ignore[call-arg, arg-type]


_SINGLE = [f.name for f in fields(EngineStats) if f.name not in ("batch_sizes", "group")]
_NUM_SINGLE = len(_SINGLE)
_single = attrgetter(*_SINGLE)
_GROUP = [f.name for f in fields(GroupStats)]
_of_group = attrgetter(*_GROUP)
NUM_NUMBERS = _NUM_SINGLE + len(_GROUP) + len(BATCH_SIZES) + 1

_OF_THE_POOL = ("blocks_used", "blocks_total", "blocks_cached")  # which engines share


def total(engines: Sequence[EngineStats], group: GroupStats) -> EngineStats:
    """Of engines that share a device, at least one."""
    sums = {
        name: max(values) if name in _OF_THE_POOL else sum(values)
        for name, values in zip(_SINGLE, zip(*map(_single, engines), strict=True), strict=True)
    }
    sizes = tuple(map(sum, zip(*(engine.batch_sizes for engine in engines), strict=True)))
    return EngineStats(**sums, batch_sizes=sizes, group=group)


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
