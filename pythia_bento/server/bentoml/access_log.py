"""One line of log for each HTTP request."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pythia_bento.server.call_log import log_call
from pythia_bento.telemetry.calls import current_call

MAX_PATH = 200  # characters of a path that are logged


class AccessLog:
    """In the place of BentoML's middleware, whose switch and ``skip_paths`` hold for it.

    It is inside of ``tracing.Calls`` and outside of all that may refuse a request.
    """

    def __init__(self, app: ASGIApp, skip_paths: Sequence[str] = (), **options: Any) -> None:
        """``options`` are about the lengths and types that BentoML's lines have."""
        self.app = app
        self._skipped = tuple(skip_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and write its line."""
        call = current_call()
        if call is None or scope["path"].startswith(self._skipped):
            return await self.app(scope, receive, send)
        status = 500  # an exception is answered so, further outside

        def noting(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            log_call(call, _peer(scope), scope["method"], scope["path"][:MAX_PATH], status)


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""
