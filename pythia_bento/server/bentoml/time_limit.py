"""How long a request may take until its answer begins: a last resort behind the engine's deadline.

BentoML's layer forgets its timers. Each keeps what the request was, 7 KB at least, until it runs
out after eleven minutes: whoever asks for ``/livez`` again and again fills the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pythia_bento.errors import DeadlineExceeded
from pythia_bento.server.http.errors import error_response


class TimeLimit:
    """In the place of BentoML's TimeoutMiddleware, with the same limit."""

    def __init__(self, app: ASGIApp, timeout: float) -> None:
        self.app = app
        self.timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what has not begun to answer in time is cancelled, and 504."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        limit = _Limit(self.timeout)

        def beginning(message: Message) -> Awaitable[None]:
            if message["type"] != "http.response.body":
                limit.end()
            return send(message)

        try:
            await self.app(scope, receive, beginning)
        except asyncio.CancelledError:
            if not limit.has_passed:
                raise
            limit.forgive()
            error = DeadlineExceeded(f"the request was not answered in {self.timeout:g} seconds")
            await error_response(error)(scope, receive, send)
        finally:
            limit.end()


class _Limit:
    """Cancels the task that made it, unless it ends before."""

    def __init__(self, seconds: float) -> None:
        self.has_passed = False
        self._task: Any = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._pass)

    def end(self) -> None:
        """Harmless when repeated."""
        self._timer.cancel()

    def forgive(self) -> None:
        """The task goes on."""
        with suppress(AttributeError):  # before Python 3.11 there is nothing to take back
            self._task.uncancel()

    def _pass(self) -> None:
        self.has_passed = True
        self._task.cancel()
