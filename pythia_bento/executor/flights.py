"""Work on its way through a device that feeds tokens back to itself."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.engine.sequence import Sequence

Row = tuple[Sequence, int]
"""A sequence and the position of its next input."""


class Inputs(NamedTuple):
    """Where rows find their inputs on the device: some of the entries of ``tokens``."""

    tokens: Any
    entries: list[int]


@dataclass(frozen=True, slots=True)
class Flight:
    """Work under way, which moves each row on by as many positions as it has steps."""

    rows: list[Row]
    steps: int
    results: Callable[[], list[ChunkResult]]
    """Wait for each row's tokens, one a step, up to the step in which it failed."""
    outputs: Any
    """Each row's next input on the device, as ``Inputs`` takes it."""
    admissions: list[int] = field(init=False)
    """Of each row's sequence. One that was preempted and admitted again meanwhile has its tokens in
    other blocks."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "admissions", [row.num_admissions for row, _ in self.rows])

    def computes(self, chunk: Chunk, row: int) -> bool:
        """Whether ``row``, which has the chunk's sequence, is that chunk."""
        is_next = chunk.count == 1 and self.rows[row][1] == chunk.start
        return is_next and self.admissions[row] == chunk.sequence.num_admissions

    def yields_token(self, row: int) -> bool:
        """Whether the row has a token to go on with."""
        return True


@dataclass(frozen=True, slots=True)
class StepsInFlight(Flight):
    """Decode steps under way.

    ``covered`` are the positions that each row's block table on the device covers. Blocks that a
    sequence was given later are not in it: a row that needs one has to be described again.
    """

    covered: list[int]


@dataclass(frozen=True, slots=True)
class PassInFlight(Flight):
    """A pass with prompts under way: one step, whose rows have their last positions."""

    chunks: list[Chunk]
    yields: list[bool]  # whether a row has a token: not where it is a piece of a prompt

    def computes(self, chunk: Chunk, row: int) -> bool:
        """See ``Flight``."""
        own = self.chunks[row]
        is_same = (own.start, own.count) == (chunk.start, chunk.count)
        return is_same and self.admissions[row] == chunk.sequence.num_admissions

    def yields_token(self, row: int) -> bool:
        """See ``Flight``."""
        return self.yields[row]


def pass_in_flight(
    chunks: list[Chunk], followers: int, wait: Callable[[], list[int]], tokens: Any
) -> PassInFlight:
    """A pass over ``chunks``, of which the first ``followers`` go on with what is on the device."""
    yields = [row < followers or chunk.samples for row, chunk in enumerate(chunks)]

    def results() -> list[ChunkResult]:
        found = zip(wait(), yields, strict=True)
        return [tokens_found([token]) if has else ChunkResult([], []) for token, has in found]

    return PassInFlight(
        rows=[(chunk.sequence, chunk.start + chunk.count - 1) for chunk in chunks],
        steps=1,
        results=results,
        outputs=tokens,
        chunks=chunks,
        yields=yields,
    )


def places_of(flight: Flight, chunks: Seq[Chunk]) -> list[int | None]:
    """The row of the flight that computes each chunk."""
    at = {id(sequence): row for row, (sequence, _) in enumerate(flight.rows)}
    places: list[int | None] = []
    for chunk in chunks:
        row = at.get(id(chunk.sequence))
        places.append(row if row is not None and flight.computes(chunk, row) else None)
    return places


def tokens_found(tokens: list[int]) -> ChunkResult:
    """A row's tokens up to the first step in which it failed, which has -1; a failure if none."""
    finite = tokens[: tokens.index(-1)] if -1 in tokens else tokens
    return ChunkResult(finite or tokens[:1], [], is_finite=bool(finite))
