"""SIGTERM without a failed request: unready first, then closed to new ones, then ended."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from pythia_bento.server.access.control import InFlight
from pythia_bento.server.bentoml.internals import attribute, optional

logger = logging.getLogger(__name__)

LAST_SECONDS = 5


class Drain:
    """Stands between SIGTERM and the web server's own handler of it.

    That one stops to accept connections at once, while the supervisor's socket goes on queueing
    them: they would hang. So it is called only when nothing is open any more.
    """

    def __init__(self, in_flight: InFlight, seconds: float) -> None:
        """``seconds`` is how long new requests are still served, for balancers to notice."""
        self._in_flight = in_flight
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Callable[[], object] = lambda: None
        self._on_begin: Callable[[], None] = lambda: None
        self._on_close: Callable[[], None] = lambda: None
        self.has_begun = False
        """From then on the server says that it is not ready."""

    def install(
        self, on_begin: Callable[[], None], on_close: Callable[[], None] = lambda: None
    ) -> None:
        """Take SIGTERM over from whoever has it; in the main thread, where signals arrive.

        ``on_close`` is called when no new request is let in any more.
        """
        handler: Any = signal.getsignal(signal.SIGTERM)
        if not callable(handler) or threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        self._on_begin, self._on_close = on_begin, on_close
        self._end = lambda: handler(signal.SIGTERM, None)
        # By then nothing is open, yet uvicorn would wait for a lost connection without a limit.
        with optional("a lost connection may keep the process at its end"):
            config = attribute(attribute(handler, "__self__"), "config")
            config.timeout_graceful_shutdown = LAST_SECONDS
        signal.signal(signal.SIGTERM, self._on_signal)

    def begin(self) -> None:
        """Say no longer ready, and end when all is answered; harmless when repeated."""
        if self._loop is None or self.has_begun:
            return
        self.has_begun = True
        logger.info("shutting down: no longer ready")
        self._on_begin()
        self._loop.call_later(self._seconds, self._close)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._asked)

    def _asked(self) -> None:
        if self.has_begun:
            self._end()  # whoever asks twice is in a hurry
        self.begin()

    def _close(self) -> None:
        loop = self._loop
        assert loop is not None
        self._in_flight.close(lambda: loop.call_soon_threadsafe(self._end))
        self._on_close()
