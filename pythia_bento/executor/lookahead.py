"""Decoding several steps ahead of the host, over a device that feeds tokens back to itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from typing import Any, Protocol

from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.executor.flights import (
    Flight,
    Inputs,
    PassInFlight,
    Row,
    StepsInFlight,
    pass_in_flight,
    places_of,
)

MOST_STEPS = 8  # of a visit to the device: what an arriving request may have to wait for, twice
MOST_ROW_STEPS = 1024  # fewer steps where each takes long
STEPS_AFTER_PASS = 4  # enough to hide the host's work on a pass with prompts
LOOKAHEAD = 4 * MOST_STEPS  # tokens a sequence should have room for when its steps begin


class Device(Protocol):
    """Runs decode steps one after another; each call returns at once."""

    def start(self, rows: list[Row], steps: int, inputs: Inputs | None = None) -> StepsInFlight:
        """Describe the rows to the device and queue steps; without ``inputs`` the host has them."""
        ...

    def extend(self, flight: StepsInFlight, steps: int) -> StepsInFlight:
        """Queue further steps of the last flight's rows, as they were described."""
        ...


PassBehind = Callable[[list[Chunk], Inputs], tuple[Callable[[], list[int]], Any] | None]
"""Queues a pass over chunks, the first of which are single tokens with inputs on the device.

It returns how to wait for a token a chunk, and where the device has them; None where it cannot.
"""


class Lookahead:
    """Reads the tokens of one flight while the next is under way."""

    def __init__(
        self, device: Device, block_size: int, pass_behind: PassBehind | None = None
    ) -> None:
        self.device = device
        self._block_size = block_size
        self._pass_behind = pass_behind
        self._ahead: Flight | None = None
        self.is_last = False
        """Whether others use the device after the next call: nothing is queued behind it then."""
        self.others_next = False
        """Whether a pass with taps comes next: none is then queued ahead, see ``pass_by``."""

    def under_way(self, chunks: Seq[Chunk]) -> list[ChunkResult | None] | None:
        """``decode`` of chunks some of which are under way; else None."""
        if (flight := self._ahead) is None:
            return None
        places = places_of(flight, chunks)
        if all(place is None for place in places):
            return None
        return self._read(flight, places, chunks)

    def decode(self, chunks: Seq[Chunk]) -> list[ChunkResult | None]:
        """Tokens of steps that begin now, where all are decode steps and none is under way."""
        rows = [(chunk.sequence, chunk.start) for chunk in chunks]
        limits = [min(limit) for limit in self._limits(rows, 0)]
        flight = self.device.start(rows, max(1, _most(limits, MOST_STEPS)))
        return self._read(flight, list(range(len(rows))), chunks)

    def _read(
        self, flight: Flight, places: Seq[int | None], chunks: Seq[Chunk]
    ) -> list[ChunkResult | None]:
        """Tokens of the steps under way, after the next ones were queued.

        None for a chunk that is not among them: it is computed behind them, with the next step of
        the others where that can be, and comes again. Steps of a sequence that has ended meanwhile
        are forgotten: they wrote past the end of what is known, into blocks that their next owner
        writes before it reads them.
        """
        self._ahead = None if self.is_last else self._behind(flight, places, chunks)
        found = flight.results()
        results = [None if place is None else found[place] for place in places]
        if [result for result in results if result is not None and _failed(result, flight.steps)]:
            self._ahead = None  # a failure after good tokens comes first in the next visit
        return results

    def begin(self, chunks: Seq[Chunk], tokens: Any) -> None:
        """A pass over ``chunks`` is under way, with ``tokens`` on the device: go on from there.

        Not where a chunk is a piece of a prompt, whose next piece comes with the next pass.
        """
        self._ahead = None
        if not self.is_last and all(chunk.samples for chunk in chunks):
            rows = [(chunk.sequence, chunk.start + chunk.count - 1) for chunk in chunks]
            self._ahead = self._after_pass(rows, range(len(rows)), tokens)

    def forget(self) -> None:
        """Something else used the device's rows: what is under way must not be extended."""
        self._ahead = None

    def pass_by(self) -> None:
        """A pass with taps is queued behind what is under way, and leaves the device's rows alone.

        Its tokens take the place of those of a pass under way, which nothing can follow then.
        """
        if isinstance(self._ahead, PassInFlight):
            self._ahead = None

    def _behind(self, flight: Flight, places: Seq[int | None], chunks: Seq[Chunk]) -> Flight | None:
        """What comes next of the chunks in the flight, and those of the others."""
        rows = [place for place in places if place is not None]
        if len(rows) < len(places):
            if self.others_next:
                return None
            pairs = zip(chunks, places, strict=True)
            return self._pass(flight, rows, [chunk for chunk, place in pairs if place is None])
        if isinstance(flight, StepsInFlight):
            return self._next(flight, rows)
        if all(map(flight.yields_token, rows)):  # else a prompt goes on with the next pass
            return self._after_pass(flight.rows, rows, flight.outputs)
        return None

    def _after_pass(self, rows: list[Row], places: Iterable[int], tokens: Any) -> Flight | None:
        """Steps of the rows at ``places``, oldest first, as later steps have them."""
        by_age = sorted(places, key=lambda place: rows[place][0].order)
        return self._follow(rows, by_age, 1, tokens, STEPS_AFTER_PASS)

    def _pass(self, flight: Flight, rows: Seq[int], others: list[Chunk]) -> Flight | None:
        """A pass over ``others`` and the next step of rows that go on."""
        if self._pass_behind is None:
            return None
        limits = self._limits(flight.rows, flight.steps)
        going = [row for row in rows if min(limits[row]) > 0 and flight.yields_token(row)]
        chunks = [
            Chunk(flight.rows[row][0], flight.rows[row][1] + flight.steps, 1) for row in going
        ]
        chunks += others
        queued = self._pass_behind(chunks, Inputs(flight.outputs, going))
        return queued and pass_in_flight(chunks, len(going), *queued)

    def _next(self, flight: StepsInFlight, rows: list[int]) -> StepsInFlight | None:
        """Further steps of those rows that want some."""
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


def _failed(result: ChunkResult, steps: int) -> bool:
    """Whether a row that was to have a token a step has fewer, or none that counts."""
    return not result.is_finite or 0 < len(result.token_ids) < steps
