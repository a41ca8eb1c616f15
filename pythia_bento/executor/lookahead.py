"""Decoding several steps ahead of the host, over a device that feeds tokens back to itself."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.engine.sequence import Sequence

MOST_STEPS = 8  # of a visit to the device: what an arriving request may have to wait for, twice
MOST_ROW_STEPS = 1024  # fewer steps where each takes long
STEPS_AFTER_PASS = 4  # enough to hide the host's work on a pass with prompts
LOOKAHEAD = 4 * MOST_STEPS  # tokens a sequence should have room for when its steps begin

Row = tuple[Sequence, int]
"""A sequence and the position of its next input."""


class Inputs(NamedTuple):
    """Where rows find their inputs on the device: some of the entries of ``tokens``."""

    tokens: Any
    entries: list[int]


@dataclass(frozen=True, slots=True)
class StepsInFlight:
    """Steps under way.

    ``covered`` are the positions that each row's block table on the device covers. Blocks that a
    sequence was given later are not in it: a row that needs one has to be described again.
    """

    rows: list[Row]
    covered: list[int]
    steps: int
    results: Callable[[], list[ChunkResult]]
    """Wait for each row's tokens, one a step, up to the step in which it failed."""
    outputs: Any
    """Each row's next input on the device, as ``Inputs`` takes it."""


class Device(Protocol):
    """Runs decode steps one after another; each call returns at once."""

    def start(self, rows: list[Row], steps: int, inputs: Inputs | None = None) -> StepsInFlight:
        """Describe the rows to the device and queue steps; without ``inputs`` the host has them."""
        ...

    def extend(self, flight: StepsInFlight, steps: int) -> StepsInFlight:
        """Queue further steps of the last flight's rows, as they were described."""
        ...


class Lookahead:
    """Reads the tokens of one flight while the next is under way."""

    def __init__(self, device: Device, block_size: int) -> None:
        self.device = device
        self._block_size = block_size
        self._ahead: StepsInFlight | None = None

    def is_under_way(self, chunks: Seq[Chunk]) -> bool:
        """Whether the steps of some of the chunks are."""
        flight = self._ahead
        return flight is not None and any(row is not None for row in _places(flight, chunks))

    def decode(self, chunks: Seq[Chunk]) -> list[ChunkResult | None]:
        """Tokens of the steps under way, after the next ones were queued.

        None for a chunk that is not among them: it waits until they are done, for the device is
        busy with them anyhow. Steps of a sequence that has ended meanwhile are forgotten: they
        wrote past the end of what is known, into blocks that their next owner writes before it
        reads them.
        """
        flight = self._ahead if self.is_under_way(chunks) else None
        if flight is None:
            rows = [(chunk.sequence, chunk.start) for chunk in chunks]
            limits = [min(limit) for limit in self._limits(rows, 0)]
            flight = self.device.start(rows, max(1, _most(limits, MOST_STEPS)))
        places = _places(flight, chunks)
        self._ahead = None if None in places else self._next(flight, places)
        found = flight.results()
        results = [None if place is None else found[place] for place in places]
        if any(result and len(result.token_ids) < flight.steps for result in results):
            self._ahead = None  # a failure after good tokens comes first in the next visit
        return results

    def begin(self, chunks: Seq[Chunk], tokens: Any) -> None:
        """A pass over ``chunks`` is under way, with ``tokens`` on the device: go on from there.

        Not where a chunk is a piece of a prompt, whose next piece comes with the next pass.
        """
        self._ahead = None
        if all(chunk.samples for chunk in chunks):
            rows = [(chunk.sequence, chunk.start + chunk.count - 1) for chunk in chunks]
            places = sorted(range(len(rows)), key=lambda row: rows[row][0].order)
            self._ahead = self._follow(rows, places, 1, tokens, STEPS_AFTER_PASS)

    def forget(self) -> None:
        """Something else used the device's rows: what is under way must not be extended."""
        self._ahead = None

    def _next(self, flight: StepsInFlight, places: list[int | None]) -> StepsInFlight | None:
        """Further steps of those rows that want some."""
        rows = [row for row in places if row is not None]
        if rows == list(range(len(flight.rows))):
            wanted = [limit for _, limit in self._limits(flight.rows, flight.steps)]
            limits = [
                min(covered - start - flight.steps, limit)
                for (_, start), covered, limit in zip(
                    flight.rows, flight.covered, wanted, strict=True
                )
            ]
            if (steps := _most(limits, MOST_STEPS)) > 0:
                return self.device.extend(flight, steps)
        return self._follow(flight.rows, rows, flight.steps, flight.outputs, MOST_STEPS)

    def _follow(
        self, rows: list[Row], places: Seq[int], done: int, tokens: Any, most: int
    ) -> StepsInFlight | None:
        """Steps after ``done`` others, of the rows at ``places`` that go on.

        None where one needs a block first.
        """
        limits = self._limits(rows, done)
        going = [place for place in places if limits[place][1] > 0]
        steps = _most([min(limits[place]) for place in going], most)
        if steps <= 0:
            return None
        further = [(rows[place][0], rows[place][1] + done) for place in going]
        return self.device.start(further, steps, Inputs(tokens, going))

    def _limits(self, rows: list[Row], done: int) -> list[tuple[int, int]]:
        """Steps that each row has blocks for, and steps that it wants, after ``done`` of them."""
        return [
            (
                len(sequence.blocks) * self._block_size - start - done,
                sequence.num_wanted - done,
            )
            for sequence, start in rows
        ]


def _most(limits: Seq[int], most: int) -> int:
    """Steps of a flight whose rows have these limits; none without rows."""
    if not limits:
        return 0
    return min(max(2, min(most, MOST_ROW_STEPS // len(limits))), *limits)


def _places(flight: StepsInFlight, chunks: Seq[Chunk]) -> list[int | None]:
    """The row of the flight that computes each chunk."""
    at = {id(sequence): row for row, (sequence, _) in enumerate(flight.rows)}
    places: list[int | None] = []
    for chunk in chunks:
        row = at.get(id(chunk.sequence))
        is_same = row is not None and chunk.count == 1 and flight.rows[row][1] == chunk.start
        places.append(row if is_same else None)
    return places


def tokens_found(tokens: list[int]) -> ChunkResult:
    """A row's tokens up to the first step in which it failed, which has -1; a failure if none."""
    finite = tokens[: tokens.index(-1)] if -1 in tokens else tokens
    return ChunkResult(finite or tokens[:1], [], is_finite=bool(finite))
