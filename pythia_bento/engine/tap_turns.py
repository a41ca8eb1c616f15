"""Whose turn it is: of sequences with taps, or of the others."""

from __future__ import annotations

from pythia_bento.engine.executor import Chunk
from pythia_bento.engine.sequence import Sequence


class TapTurns:
    """A pass with taps is another kind of work: the others keep their captured graphs."""

    def __init__(self) -> None:
        self._running = 0  # sequences with taps
        self._was_tapped = False  # whether those had the last step

    def begin(self, sequence: Sequence) -> None:
        """It runs."""
        self._running += sequence.taps is not None

    def end(self, sequence: Sequence) -> None:
        """It runs no more."""
        self._running -= sequence.taps is not None

    def of_one_kind(self, chunks: list[Chunk]) -> list[Chunk]:
        """Where there are both kinds each has every second step; the rest comes again."""
        if not self._running:
            return chunks
        tapped = [chunk for chunk in chunks if chunk.sequence.taps is not None]
        if not 0 < len(tapped) < len(chunks):
            self._was_tapped = bool(tapped)
            return chunks
        self._was_tapped = not self._was_tapped
        if self._was_tapped:
            return tapped
        return [chunk for chunk in chunks if chunk.sequence.taps is None]
