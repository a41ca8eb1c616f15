"""Decoding several steps ahead of the host, over a device that feeds tokens back to itself."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from pythia_bento.engine.model_runner import ChunkResult
from pythia_bento.engine.scheduler import Chunk
from pythia_bento.engine.sequence import Sequence

MOST_STEPS = 8  # of a visit to the device: what an arriving request may have to wait for, twice
MOST_ROW_STEPS = 1024  # fewer steps where each takes long
LOOKAHEAD = 4 * MOST_STEPS  # tokens a sequence should have room for when its steps begin


@dataclass(frozen=True, slots=True)
class Flight:
    """Steps under way: each row's sequence and the position of its first input.

    ``room`` are the positions that each row's block table on the device covers. Blocks that a
    sequence was given later are not in it: a row that needs one has to be described again.
    """

    rows: list[tuple[Sequence, int]]
    room: list[int]
    steps: int
    tokens: Callable[[], list[list[int]]]
    """Wait for each row's tokens, one a step; -1 where a row failed."""

    def is_for(self, chunks: Seq[Chunk]) -> bool:
        """Whether these are steps of exactly these chunks."""
        return [(chunk.sequence, chunk.start) for chunk in chunks] == self.rows


class Device(Protocol):
    """Runs decode steps one after another; each call returns at once."""

    def start(self, chunks: Seq[Chunk], steps: int) -> Flight:
        """Describe the rows to the device and queue steps."""
        ...

    def extend(self, flight: Flight, steps: int) -> Flight:
        """Queue further steps of the last flight's rows, as they were described."""
        ...


class Lookahead:
    """Reads the tokens of one flight while the next is under way."""

    def __init__(self, device: Device, block_size: int) -> None:
        self._device = device
        self._block_size = block_size
        self._ahead: Flight | None = None

    def decode(self, chunks: Seq[Chunk]) -> list[ChunkResult]:
        """Tokens of the steps under way, after the next ones were queued.

        Steps that turn out not to be wanted (a sequence ended, another came) are forgotten: they
        wrote past the end of what is known, into blocks that their next owner writes before it
        reads them.
        """
        flight = self._ahead
        if flight is None or not flight.is_for(chunks):
            room = [len(chunk.sequence.blocks) * self._block_size for chunk in chunks]
            flight = self._device.start(chunks, max(1, _steps(chunks, room, 0)))
        further = _steps(chunks, flight.room, flight.steps)
        self._ahead = self._device.extend(flight, further) if further > 0 else None
        results = []
        for tokens in flight.tokens():
            finite = tokens[: tokens.index(-1)] if -1 in tokens else tokens
            # A failure after good tokens is found again, as the first, in the next visit.
            results.append(ChunkResult(finite or tokens[:1], [], is_finite=bool(finite)))
            if len(finite) < len(tokens):
                self._ahead = None
        return results

    def forget(self) -> None:
        """Something else used the device's rows: what is under way must not be extended."""
        self._ahead = None


def _steps(chunks: Seq[Chunk], room: Seq[int], done: int) -> int:
    """How many further steps all rows have ``room`` for and still want, after ``done`` of them."""
    most = max(2, min(MOST_STEPS, MOST_ROW_STEPS // len(chunks)))
    covered = min([end - chunk.start for end, chunk in zip(room, chunks, strict=True)])
    wanted = min([chunk.sequence.num_wanted for chunk in chunks])
    return min(most, covered - done, wanted - done)
