"""The engine's numbers: plain integers, so that they fit into memory shared between processes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

# Steps are counted by how many sequences they had: up to each of these, and more.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


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

    def numbers(self) -> tuple[int, ...]:
        """All fields as one row of NUM_NUMBERS integers, for shared memory."""
        return (*_single(self), *self.batch_sizes)

    @classmethod
    def of(cls, numbers: Sequence[int]) -> EngineStats:
        """The inverse of ``numbers``."""
        single = len(fields(cls)) - 1
        return cls(*numbers[:single], tuple(numbers[single:]))  # type: ignore[call-arg, arg-type]


_single = attrgetter(*(field.name for field in fields(EngineStats) if field.name != "batch_sizes"))
NUM_NUMBERS = len(fields(EngineStats)) + len(BATCH_SIZES)


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
