"""Notices when the event loop stands still: how long, and what it was doing.

A beat is due every BEAT_SECONDS. What a beat comes late, less the time in which the system let
others run where it tells, is a pause: work in one piece, or a wait for the interpreter or for a
processor. What of it the loop's own thread computed is its work, whatever else the machine does. A
second thread sees a pause while it lasts and writes down where the loop's thread stands.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress

BEAT_SECONDS = 0.025
WARN_SECONDS = 0.1
LATE_SECONDS = BEAT_SECONDS + WARN_SECONDS  # since the last beat
FRAMES = 12  # of the stack, the innermost

logger = logging.getLogger(__name__)


class LoopWatch:
    """Watches the running event loop from ``start`` to ``stop``."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        descheduled: Callable[[], float] | None = None,
        worked: Callable[[], float] = time.thread_time,
    ) -> None:
        """Of the calling thread: the seconds in which it could not run, and in which it did."""
        self.longest = 0.0
        """Seconds of the longest pause since ``start``."""
        self.longest_work = 0.0
        """Seconds of a processor that the loop took for itself at most in a pause."""
        self._clock = clock
        self._descheduled = descheduled or _RunQueue()
        self._worked = worked
        self._thread_id = 0
        self._beat: asyncio.TimerHandle | None = None
        # Free once it is to end. To wait for a lock costs a tenth of waiting for an Event.
        self._watching = threading.Lock()
        self._last = self._last_descheduled = self._last_worked = 0.0

    def start(self) -> None:
        """Begin, in the event loop that is to be watched."""
        self._thread_id = threading.get_ident()
        self._last, self._last_descheduled = self._clock(), self._descheduled()
        self._last_worked = self._worked()
        self._next_beat()
        self._watching.acquire()
        threading.Thread(target=self._look, name="pythia-loop-watch", daemon=True).start()

    def stop(self) -> None:
        """End, in the event loop; harmless when repeated."""
        if self._watching.locked():
            self._watching.release()
        if self._beat is not None:
            self._beat.cancel()

    def _next_beat(self) -> None:
        self._beat = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._on_beat)

    def _on_beat(self) -> None:
        now, descheduled, worked = self._clock(), self._descheduled(), self._worked()
        late = now - self._last - BEAT_SECONDS
        self._note(
            late - (descheduled - self._last_descheduled), min(late, worked - self._last_worked)
        )
        self._last, self._last_descheduled, self._last_worked = now, descheduled, worked
        self._next_beat()

    def _note(self, pause: float, work: float) -> None:
        self.longest, self.longest_work = max(self.longest, pause), max(self.longest_work, work)
        if pause > WARN_SECONDS:
            logger.warning(
                "the event loop turns again after %d ms, of which it worked for %d ms",
                round(pause * 1000),
                round(work * 1000),
            )

    def _look(self) -> None:
        warned_of, wait = 0.0, LATE_SECONDS
        while not self._watching.acquire(timeout=wait):
            last = self._last
            since = self._clock() - last
            if since > LATE_SECONDS and last != warned_of:
                warned_of = last
                self._warn()
            # Not before it can be late: each look takes the interpreter from the loop.
            wait = max(LATE_SECONDS - since, BEAT_SECONDS)

    def _warn(self) -> None:
        frame = sys._current_frames().get(self._thread_id)
        stack = "".join(traceback.format_stack(frame)[-FRAMES:]) if frame else "no stack"
        milliseconds = round(WARN_SECONDS * 1000)
        logger.warning(
            "the event loop has not turned for %d ms; it stands here:\n%s", milliseconds, stack
        )


class _RunQueue:
    """Seconds in which this thread was ready and another one ran; 0 where the system won't say."""

    def __init__(self) -> None:
        self._file = -1
        with suppress(OSError):
            # Kept open: to open it takes ten times as long as to read it.
            path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._file)

    def __call__(self) -> float:
        try:
            return int(os.pread(self._file, 100, 0).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0
