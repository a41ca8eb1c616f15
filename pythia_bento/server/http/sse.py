"""Server-sent events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping

import orjson

from pythia_bento.runtime.streams import AsyncStream
from pythia_bento.server.http.streamed_answer import StreamedAnswer


class EventStream(StreamedAnswer):
    """Events that end their requests when the client is gone."""

    def __init__(self, events: AsyncIterator[bytes], stream: AsyncStream) -> None:
        super().__init__(events, "text/event-stream", stream.close)


_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
DONE = b"data: [DONE]\n\n"  # after the last event of a stream that ended well


def event(data: Mapping[str, object]) -> bytes:
    """One event of JSON."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def in_ascii(event: bytes) -> bytes:
    """The same JSON with escapes for what is not ASCII.

    BentoML's clients decode whatever bytes arrive together, wherever a character is cut.
    """
    if event.isascii():
        return event
    return _NOT_ASCII.sub(_escape, event.decode()).encode()


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))
