"""What of its inside a request wants to see, and where each number of it goes.

A request's numbers lie in one region of shared memory, which is reserved before it begins: sizes
follow from the request and its tokens alone.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sites import Place

Dtype = Literal["float32", "bfloat16", "float16", "int32"]
ITEM_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "int32": 4}
ALIGNMENT = 64  # bytes; of each part's beginning

Positions = range | tuple[int, ...]
"""Rising positions of a sequence's inputs, from 0; those that never come are not captured."""


@dataclass(frozen=True, slots=True, eq=False)
class Project:
    """Products with directions."""

    directions: np.ndarray  # fp32 [D, the site's last dimension]


@dataclass(frozen=True, slots=True)
class Lens:
    """What the final norm and the head make of a row: the ``top`` best, and some given tokens."""

    top: int
    tokens: tuple[int, ...] = ()


Reduction = Literal["mean", "norm"] | Project | Lens


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of an answer, rows of positions first."""

    suffix: str  # of its name after the place's
    row: tuple[int, ...]  # shape of a position
    dtype: Dtype
    has_rows: bool = True  # False for what is of all positions together

    def nbytes(self, rows: int) -> int:
        """Of so many positions."""
        return (rows if self.has_rows else 1) * math.prod(self.row) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Tap:
    """What is read at one place."""

    place: Place
    positions: Positions
    heads: tuple[int, ...] | None = None  # None is all, of "heads" and "keys"
    neurons: tuple[int, ...] | None = None  # None is all, of "inner"
    reduction: Reduction | None = None
    dtype: Dtype = "float32"  # of values; what a reduction makes is float32

    def row(self, config: ModelConfig, keys: int) -> tuple[int, ...]:
        """Shape of a position's values; ``keys`` are those of a pattern."""
        shape = self.place.shape(config)
        if self.heads is not None:
            shape = (len(self.heads), *shape[1:])
        if self.neurons is not None:
            shape = (len(self.neurons),)
        return (*shape, keys) if self.place.site.kind == "keys" else shape

    def parts(self, config: ModelConfig, keys: int) -> tuple[Part, ...]:
        """The tensors that it makes, in order."""
        row, reduction = self.row(config, keys), self.reduction
        if reduction is None:
            return (Part("", row, self.dtype),)
        if reduction == "mean":
            return (Part(":mean", row, "float32", has_rows=False),)
        if reduction == "norm":
            return (Part(":norm", row[:-1], "float32"),)
        if isinstance(reduction, Project):
            return (Part(":project", (*row[:-1], len(reduction.directions)), "float32"),)
        return (
            Part(":lens_ids", (reduction.top,), "int32"),
            Part(":lens_logprobs", (reduction.top,), "float32"),
            Part(":lens_token_logprobs", (len(reduction.tokens),), "float32"),
        )


@dataclass(frozen=True, slots=True)
class LogitsTap:
    """Logits of some tokens."""

    tokens: tuple[int, ...]
    positions: Positions

    @property
    def part(self) -> Part:
        """The tensor that it makes."""
        return Part("logits", (len(self.tokens),), "float32")


class _Layouts(dict[Any, tuple[list[tuple["Placed", ...]], int]]):
    """Of one capture, by what they depend on; another process makes its own."""

    def __reduce__(self) -> tuple[type[_Layouts], tuple[()]]:
        return _Layouts, ()


@dataclass(frozen=True, slots=True)
class Capture:
    """All that one request wants to see; for requests of one continuation."""

    taps: tuple[Tap, ...]
    logits: LogitsTap | None = None
    region: int = 0
    """Byte of the arena where its region begins; see ``layout``."""
    layouts: _Layouts = field(default_factory=_Layouts, compare=False, repr=False)
    """Those that were asked for, here or before it was placed."""


class Placed(NamedTuple):
    """A part and where its first row is."""

    part: Part
    offset: int  # bytes from the region's beginning, a multiple of ``ALIGNMENT``
    rows: int  # that it has at most


def layout(
    capture: Capture, config: ModelConfig, inputs: int
) -> tuple[list[tuple[Placed, ...]], int]:
    """Where the parts of each tap are, those of ``logits`` last, and the bytes of all.

    ``inputs`` are the tokens that may be computed: of the prompt, and all that are generated but
    for the last. A pattern's rows have so many keys. The bytes are a multiple of ``ALIGNMENT``.
    """
    key = config, inputs
    if (known := capture.layouts.get(key)) is None:
        known = capture.layouts[key] = _laid_out(capture, config, inputs)
    return known


def capture_bytes(capture: Capture, config: ModelConfig, inputs: int) -> int:
    """Of all of a ``layout``."""
    return layout(capture, config, inputs)[1]


def _laid_out(
    capture: Capture, config: ModelConfig, inputs: int
) -> tuple[list[tuple[Placed, ...]], int]:
    offset = 0
    groups: list[tuple[Placed, ...]] = []
    for one in _needed(capture, config, inputs):
        groups.append(tuple([Placed(part, offset + at, one.rows) for part, at in one.parts]))
        offset += one.nbytes
    return groups, offset


class _Need(NamedTuple):
    """What one tap needs."""

    rows: int
    parts: tuple[tuple[Part, int], ...]  # and the bytes before each
    nbytes: int

    @classmethod
    def of(cls, parts: Sequence[Part], rows: int) -> _Need:
        placed, nbytes = [], 0
        for part in parts:
            placed.append((part, nbytes))
            nbytes += -(-part.nbytes(rows) // ALIGNMENT) * ALIGNMENT
        return cls(rows, tuple(placed), nbytes)


def _needed(capture: Capture, config: ModelConfig, inputs: int) -> Iterator[_Need]:
    """Of each tap, those of logits last.

    Those that are of one shape share one: there may be thousands of taps.
    """
    known: dict[Hashable, _Need] = {}
    for tap in capture.taps:
        like = (
            tap.place.site.kind,
            tap.dtype,
            id(tap.positions),
            id(tap.heads),
            id(tap.neurons),
            id(tap.reduction),
        )
        if (need := known.get(like)) is None:
            parts, rows = tap.parts(config, inputs), num_rows(tap.positions, inputs)
            need = known[like] = _Need.of(parts, rows)
        yield need
    if (logits := capture.logits) is not None:
        yield _Need.of((logits.part,), num_rows(logits.positions, inputs))


def next_position(positions: Positions, start: int) -> int | None:
    """The first from ``start`` on; None where there is none."""
    _, found = within(positions, start, None)
    return found[0] if len(found) else None


def within(positions: Positions, start: int, end: int | None) -> tuple[int, Positions]:
    """Those from ``start`` on and before ``end``, and the number of the first of them."""
    if isinstance(positions, tuple):
        first = bisect_left(positions, start)
        return first, positions[first : None if end is None else bisect_left(positions, end)]
    first = max(-(-(start - positions.start) // positions.step), 0)
    stop = positions.stop if end is None else min(positions.stop, end)
    return first, range(positions.start + first * positions.step, stop, positions.step)


def num_rows(positions: Positions, inputs: int) -> int:
    """How many positions are among the first ``inputs``."""
    return len(within(positions, 0, inputs)[1])
