"""Server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import orjson
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from pythia_bento.runtime.streams import AsyncStream


class EventStream(StreamingResponse):
    """Events that end their requests when the client is gone, even at once."""

    def __init__(self, events: AsyncIterator[bytes], stream: AsyncStream) -> None:
        super().__init__(events, media_type="text/event-stream")
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events. ``RequestMiddleware`` watches whether the client is there."""
        try:
            await self.stream_response(send)
        finally:
            self._stream.close()


DONE = b"data: [DONE]\n\n"  # after the last event of a stream that ended well


def event(data: Mapping[str, object]) -> bytes:
    """One event of JSON."""
    return b"data: " + orjson.dumps(data) + b"\n\n"
