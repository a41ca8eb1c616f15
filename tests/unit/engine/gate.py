"""Holds a toy engine before a step, so that work is under way for as long as a test wants."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence

from pythia_bento.engine.executor import Chunk


class Gate:
    """Shut at first. What an engine calls ``before`` its steps; for one engine."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._left = 0.0  # steps that may pass
        self._is_held = False
        self.chunks: Sequence[Chunk] = ()
        """Of the step that is held, or of the last one that passed."""

    def __call__(self, chunks: Sequence[Chunk]) -> None:
        """Wait here, in the engine's thread."""
        with self._changed:
            self.chunks = chunks
            self._is_held = not self._left
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._left)
            self._left -= 1

    def open(self, steps: float = math.inf) -> None:
        """Let so many more steps pass."""
        with self._changed:
            self._left += steps
            self._is_held = False
            self._changed.notify_all()

    def shut(self) -> None:
        """From the next step on."""
        with self._changed:
            self._left = 0.0

    def wait(self, seconds: float = 60.0) -> None:
        """Until the engine stands here, and not before it has made the steps that may pass."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._is_held, seconds)

    async def held(self, seconds: float = 60.0) -> None:
        """``wait``, while the event loop turns."""
        end = time.monotonic() + seconds
        while not self._is_held:
            assert time.monotonic() < end
            await asyncio.sleep(0.001)


class Slow(Gate):
    """Never shut: steps that take a moment, so that what ends them comes at any time."""

    def __call__(self, chunks: Sequence[Chunk]) -> None:
        """Take a moment."""
        time.sleep(0.001)
