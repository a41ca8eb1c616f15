"""Outputs on their way from the engine's thread to the streams of an event loop.

A step may bring outputs for a hundred streams, and each wakes a task that writes to its client. All
in one turn of the loop they would be as one long piece of work in the way of everybody else's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Iterable

from pythia_bento.engine.outputs import Outputs
from pythia_bento.runtime.streams import AsyncStream
from pythia_bento.runtime.turns import RoundRobin, after_others

# Streams that have their outputs before others of the loop have their turns: each costs it 0.01 to
# 0.1 milliseconds. Each turn may cost a wait for the engine's thread to let the interpreter go, so
# fewer at once are less for all. Where all have much to do, there are fewer and larger parts.
AT_ONCE = 32


class Deliveries:
    """To one event loop, callers by turns. What comes for a stream meanwhile goes with the rest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._due: dict[AsyncStream, Outputs] = {}
        self._turns: RoundRobin[AsyncStream] = RoundRobin()  # of those in _due
        self._is_under_way = False

    def bring(
        self,
        loop: asyncio.AbstractEventLoop,
        due: Iterable[tuple[Hashable, AsyncStream, Outputs]],
    ) -> None:
        """A step's outputs, with whose they are; in any thread, at any time the same ``loop``.

        Raises RuntimeError where that was closed.
        """
        with self._lock:
            for account, stream, outputs in due:
                if stream in self._due:
                    self._due[stream] += outputs
                else:
                    self._due[stream] = outputs
                    self._turns.add(account, stream)
            if self._is_under_way:
                return
            self._is_under_way = True
        loop.call_soon_threadsafe(self._hand_out, loop)

    def _hand_out(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            streams = [self._turns.take() for _ in range(min(AT_ONCE, len(self._turns)))]
            posts = [(stream, self._due.pop(stream)) for stream in streams]
            self._is_under_way = bool(self._turns)
            if self._is_under_way:
                after_others(loop, self._hand_out)
        for stream, outputs in posts:
            stream.post(outputs)
