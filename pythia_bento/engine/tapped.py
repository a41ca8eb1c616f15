"""What one sequence shows of its passes, and changes in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pythia_bento.engine.block_pool import hash_block
from pythia_bento.engine.capture import (
    Capture,
    Lens,
    Positions,
    Project,
    Tap,
    next_position,
    within,
)
from pythia_bento.engine.interventions import Interventions
from pythia_bento.engine.params import Request

# What a pass may have of work that is as much as a row of logits: others wait for it.
MOST_EFFORT = 512
TOKENS_OF_EFFORT = 16  # of a lens, whose log-probabilities are computed one by one
DIRECTIONS_OF_EFFORT = 64


class Tapped:
    """Of a sequence with a capture or with interventions."""

    __slots__ = (
        "_heavy",
        "_positions",
        "_salted",
        "_tokens",
        "capture",
        "interventions",
        "kept",
        "means",
        "num_filled",
    )

    def __init__(self, request: Request, block_size: int) -> None:
        self.capture: Capture | None = request.capture
        self.interventions: Interventions | None = request.interventions
        self.num_filled = 0  # positions whose rows are captured: nobody asks for them again
        self.means: dict[int, Mean] = {}  # by number of the tap
        self.kept: Any = None  # what an executor has made ready
        self._salted: int | None = None  # the first block in which something is changed
        if self.interventions is not None:
            self._salted = self.interventions.first // block_size
        taps = self.capture.taps if self.capture else ()
        positions = [tap.positions for tap in taps]
        if self.capture and self.capture.logits:
            positions.append(self.capture.logits.positions)
        self._positions = set(positions)
        self._heavy: dict[Positions, int] = {}  # effort of each of some positions
        for tap in taps:
            if effort := effort_of(tap):
                self._heavy[tap.positions] = self._heavy.get(tap.positions, 0) + effort
        self._tokens = max(MOST_EFFORT // max(sum(self._heavy.values()), 1), 1)

    def salted(self, block: int, parent: bytes) -> bytes:
        """The parent of a block's name.

        At the first block in which something is changed the digest becomes a part of the chain:
        equal interventions share what follows, and nobody else reads it.
        """
        if block != self._salted or self.interventions is None:
            return parent
        return hash_block(parent, self.interventions.digest)

    @property
    def first_missing(self) -> int | None:
        """The first position that must be computed to be captured; None where there is none."""
        return _first(self._positions, self.num_filled)

    def most_tokens(self, start: int) -> int | None:
        """How many from ``start`` on a pass may have; None is any number."""
        first = _first(self._heavy, start)
        return None if first is None else first - start + self._tokens

    def effort(self, start: int, count: int) -> int:
        """Of so many positions: about so many rows of logits."""
        heavy = self._heavy.items()
        return sum(len(within(many, start, start + count)[1]) * one for many, one in heavy)


class Mean:
    """Of rows that come one after the other: in fp64, in order, whatever pieces they come in."""

    __slots__ = ("_sum", "count")

    def __init__(self) -> None:
        self.count = 0
        self._sum: np.ndarray | None = None  # fp64

    def add(self, first: int, rows: np.ndarray) -> np.ndarray:
        """Rows from number ``first`` on, of which some may have come before; fp32, of all so far.

        ``rows`` are fp32 [n, ...].
        """
        for row in rows[max(self.count - first, 0) :]:
            self._sum = row.astype(np.float64) if self._sum is None else self._sum + row
            self.count += 1
        assert self._sum is not None  # as there is no call without rows
        return (self._sum / self.count).astype(np.float32)


def effort_of(tap: Tap) -> int:
    """Of a position: how many rows of logits take about as long as what is made of its values."""
    if isinstance(tap.reduction, Lens):
        return 1 + len(tap.reduction.tokens) // TOKENS_OF_EFFORT
    if isinstance(tap.reduction, Project):
        return -(-len(tap.reduction.directions) // DIRECTIONS_OF_EFFORT)
    return 0


def _first(many: Iterable[Positions], start: int) -> int | None:
    found = (next_position(positions, start) for positions in many)
    return min((position for position in found if position is not None), default=None)
