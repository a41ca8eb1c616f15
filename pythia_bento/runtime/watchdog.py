"""Notices an engine that has work to do and does not get on with it.

Time is counted in looks at it rather than read from a clock: a process that was stopped for hours
(SIGSTOP, a frozen container, a paused machine) has looked once meanwhile, and raises no alarm.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Protocol

from pythia_bento.engine.stats import EngineStats
from pythia_bento.errors import EngineUnavailable

LOOKS = 20  # in a row that see no change

logger = logging.getLogger(__name__)


Pulse = tuple[int, int]  # steps made; outputs that came, and requests taken in or out


def pulse_of(stats: EngineStats, outputs: int, orders: int) -> Pulse:
    """Of an engine that has work; what it loads counts as steps."""
    return stats.steps + stats.group.load_progress, outputs + orders


class Watched(Protocol):
    """What drives an engine, as far as a watchdog looks at it."""

    @property
    def stopped(self) -> Future[None]:
        """Done when it has ended, for whatever reason."""
        ...

    def pulse(self) -> Pulse | None:
        """Changes whenever the engine gets on; None while it has nothing to do."""
        ...

    def abandon(self, error: EngineUnavailable) -> None:
        """End everything that waits for the engine; ``error`` says why."""
        ...


class Watchdog:
    """Abandons an engine that hangs; ends with it."""

    def __init__(self, engine: Watched, seconds: float) -> None:
        """``seconds`` is how long a step may take."""
        self._engine = engine
        self._seconds = seconds
        self._last: Pulse | None = None
        self._looks = 0
        self._over = threading.Event()
        engine.stopped.add_done_callback(lambda _: self._over.set())

    def start(self) -> None:
        """Watch on a thread of its own: a hanging kernel may keep all others busy."""
        threading.Thread(target=self._run, name="pythia-watchdog", daemon=True).start()

    def sees_hang(self) -> bool:
        """Look once; true when LOOKS of them in a row saw the same work and no change."""
        pulse = self._engine.pulse()
        is_same = pulse is not None and pulse == self._last
        self._last = pulse
        self._looks = self._looks + 1 if is_same else 0
        return self._looks >= LOOKS

    def _run(self) -> None:
        while not self._over.wait(self._seconds / LOOKS):
            if self.sees_hang():
                return self._give_up()

    def _give_up(self) -> None:
        error = EngineUnavailable(f"the engine hangs: it made no step in {self._seconds:g} seconds")
        self._engine.abandon(error)
        logger.critical("%s; where its threads are is on stderr", error.message)
        with suppress(OSError, ValueError):  # no room for it, or nothing there
            faulthandler.dump_traceback(sys.stderr)
