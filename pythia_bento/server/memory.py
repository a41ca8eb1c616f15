"""Memory that was freed goes back to the system.

glibc keeps what large requests have left in each thread's arena, a hundred MiB after some texts of
a whole body: the pages of a process would be those of its worst minute, for good. So would what
lies in cycles of a few thousand objects, too few for Python to look for them: once nobody asks any
more, nobody makes further ones.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable

from pythia_bento.server.access.control import InFlight

LOOK_SECONDS = 5.0
# Where requests are always open. What is given back has to be asked for again, and giving it takes
# some 10 ms of a thread, in which others wait that need memory.
BUSY_SECONDS = 60.0
# What clients' connections hold is freed when they close, after the last request: looks at an idle
# server that give memory back, before it is left alone.
IDLE_LOOKS = 6


M_ARENA_MAX = -8  # of mallopt
ARENAS = 2  # glibc's own limit is eight for each processor


def limit_arenas() -> None:
    """Of glibc, for threads that begin later: pages that one arena keeps are no use to another."""
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(M_ARENA_MAX, ARENAS)


def trim(is_idle: bool) -> None:
    """Of glibc; other libraries decide for themselves. Cycles only where nobody waits meanwhile."""
    if is_idle:  # all threads stand still for some 3 to 15 ms
        gc.collect()
    if give_back := getattr(ctypes.CDLL(None), "malloc_trim", None):
        give_back(0)


class Trimming:
    """In the event loop, from ``start`` to ``stop``: after work, and now and then during it."""

    def __init__(self, in_flight: InFlight, trim: Callable[[bool], None] = trim) -> None:
        self._in_flight = in_flight
        self._trim = trim
        self._trimmed = 0  # what had been entered then
        self._looks = 0  # since then
        self._left = 0  # of IDLE_LOOKS, since something was last done
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look every LOOK_SECONDS."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """No more; harmless when repeated."""
        if self._task is not None:
            self._task.cancel()

    async def look(self) -> None:
        """Give back what there is where something was done since it was last."""
        self._looks += 1
        entered = self._in_flight.entered
        is_idle = not self._in_flight.count
        if entered != self._trimmed:
            self._left = IDLE_LOOKS
        is_due = is_idle or self._looks * LOOK_SECONDS >= BUSY_SECONDS
        if self._left and is_due:
            self._trimmed, self._looks = entered, 0
            self._left -= 1
            await asyncio.to_thread(self._trim, is_idle)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()
