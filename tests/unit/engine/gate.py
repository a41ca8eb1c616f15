"""Holds a toy engine before a step, so that work is under way for as long as a test wants."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pythia_bento.engine.executor import Chunk
from tests.unit.turning import until


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
        await until(lambda: self._is_held, seconds)


class Slow(Gate):
    """Never shut: steps that take a moment, so that what ends them comes at any time."""

    def __call__(self, chunks: Sequence[Chunk]) -> None:
        """Take a moment."""
        time.sleep(0.001)


class FarGate:
    """A gate for an engine in another process; ``folder`` is where the two sides meet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._passed = 0  # here, in the engine's process
        self._most = 0  # there, where a test opens it

    def __call__(self, chunks: object) -> None:
        """Wait here, in the engine's process."""
        while self._passed >= self._read("most"):
            self._write("held", self._passed)
            time.sleep(0.002)
        self._passed += 1

    def open(self, steps: int = 10**9) -> None:
        """Let so many more steps pass."""
        self._most += steps
        self._write("most", self._most)

    async def held(self) -> None:
        """See ``Gate``."""
        await until(lambda: (self._folder / "held").exists() and self._read("held") == self._most)

    def _read(self, name: str) -> int:
        try:
            return int((self._folder / name).read_text())
        except FileNotFoundError:
            return 0

    def _write(self, name: str, number: int) -> None:
        """Nobody sees half of it."""
        other = self._folder / f"new-{name}"
        other.write_text(str(number))
        other.replace(self._folder / name)
