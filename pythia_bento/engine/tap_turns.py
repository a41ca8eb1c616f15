"""Whose turn it is: of sequences with taps, or of the others."""

from __future__ import annotations

from pythia_bento.engine.executor import Chunk
from pythia_bento.engine.tapped import MOST_EFFORT

MOST_OTHERS = 4  # steps of the others between two with taps


class TapTurns:
    """A pass with taps is another kind of work: the others keep their captured graphs.

    Where there are both kinds a step with taps comes after as many of the others as they are
    sequences, and at most ``MOST_OTHERS``: neither waits long, and many do not wait for one.
    """

    def __init__(self) -> None:
        self.running = 0  # sequences with taps
        self._others = MOST_OTHERS  # steps since the last one with taps
        self.is_last = False
        """Whether the next step is likely one of the other kind."""

    def begin(self) -> None:
        """One more with taps runs."""
        self.running += 1

    def end(self) -> None:
        """One with taps runs no more."""
        self.running -= 1
        if not self.running:
            self.is_last = False

    def of_one_kind(self, chunks: list[Chunk]) -> list[Chunk]:
        """Those whose turn it is; the rest comes again. While some with taps run."""
        tapped = [chunk for chunk in chunks if chunk.sequence.taps is not None]
        others = [chunk for chunk in chunks if chunk.sequence.taps is None]
        most = min(len(others), MOST_OTHERS)
        if tapped and self._others >= most:
            self._others, self.is_last = 0, bool(others)
            return _moderate(tapped)
        self._others += 1
        self.is_last = bool(tapped) and self._others >= most
        return others


def _moderate(chunks: list[Chunk]) -> list[Chunk]:
    """Of chunks with taps, the first ones that take no more than a pass may: at least one."""
    effort = 0
    for place, chunk in enumerate(chunks):
        assert chunk.sequence.taps is not None
        effort += chunk.sequence.taps.effort(chunk.start, chunk.count)
        if effort > MOST_EFFORT and place:
            return chunks[:place]
    return chunks
