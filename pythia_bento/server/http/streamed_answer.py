"""Answers that are made while they are sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class StreamedAnswer(StreamingResponse):
    """Ends what its pieces come from when all are sent or the client is gone, even at once."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes | memoryview],
        kind: str,
        close: Callable[[], Awaitable[None] | None],
    ) -> None:
        """``kind`` is the media type."""
        super().__init__(pieces, media_type=kind)
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"  # nginx would hold pieces back
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all. ``RequestMiddleware`` watches whether the client is there."""
        try:
            await self.stream_response(send)
        finally:
            if (closing := self._close()) is not None:
                await closing
