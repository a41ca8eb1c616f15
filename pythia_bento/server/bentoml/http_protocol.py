"""HTTP framing with bounds: of a request's head, its trailers, and requests sent ahead of answers.

uvicorn has none of them where httptools parses: a head of 50 MB kept its event loop busy for 10
seconds, a trailer without end for as long as it was sent, and each request that waits for the one
before it costs 7 KB. It also knows of the last request of a connection alone: one that was being
answered before it went on when the client left. BentoML leaves the choice of a protocol to uvicorn,
so the entry is made in uvicorn's own table.

What is sent ahead of an answer stays bytes until that has left. All connections then take turns, as
long work does: what a hundred of them sent is no work for one turn of the event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from pythia_bento.runtime.turns import next_turn
from pythia_bento.server.bentoml.internals import internal, replace
from pythia_bento.server.http.lent import offer

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
else:
    HttpToolsProtocol = internal("uvicorn.protocols.http.httptools_impl:HttpToolsProtocol")

AUTO = "uvicorn.config:HTTP_PROTOCOLS.auto"
# What the parser calls, and we take over, or call ourselves.
METHODS = (
    *("on_message_begin", "on_url", "on_header", "on_headers_complete", "on_body"),
    *("on_message_complete", "on_response_complete", "send_400_response"),
)

MAX_HEAD_BYTES = 64 * 2**10  # of a request's line and headers
MAX_TRAILER_BYTES = 8 * 2**10  # behind a body in chunks; nothing here reads them
MAX_AHEAD_BYTES = 64 * 2**10  # sent ahead of the answer that is due, before reading stops
PIECE = 2048  # bytes of a body that are parsed at a time
HEAD_PIECE = 512  # the same of heads
# A piece ends behind a blank line, where a request may end: few others are parsed with it. Not
# before so many bytes, or a body of nothing else would be parsed line by line.
LEAST_PIECE, LEAST_HEAD_PIECE = 256, 32
BLANK = b"\r\n\r\n"


def check() -> None:
    """Raise MissingInternal where uvicorn is not as it has to be."""
    internal(AUTO)
    for method in METHODS:
        internal(f"uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.{method}")


def limit_framing() -> None:
    """Let servers that are configured from now on refuse what is larger with status 400.

    Holds for the whole process. Raises MissingInternal, and then changes nothing.
    """
    check()
    replace(AUTO, f"{__name__}:BoundedHttp")


class _Transport:
    """A transport that takes nothing once it closes; uvloop's would raise, and be a traceback."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._write, self.is_closing = inner.write, inner.is_closing  # asked for all the time

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: bytes) -> None:
        if not self.is_closing():
            self._write(data)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol; what a callback of the parser raises is a wrong request to it."""

    _head_bytes = 0  # parsed, of the head or the trailers
    _silent_bytes = 0  # read since the parser last told of anything
    _in_head = _in_body = False

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._unparsed = bytearray()  # at most MAX_AHEAD_BYTES and what is read at once
        self._turn: asyncio.Future[None] | None = None  # to go on with it
        self._answered: Any = None  # uvicorn's record of the request that is being answered
        self._is_last = False  # whether nothing is read behind the request that is being read
        self._is_over = False  # whether that has arrived

    @override
    def data_received(self, data: bytes) -> None:
        if not self._is_over:
            self._unparsed += data
            self._parse()

    @override
    def on_response_complete(self) -> None:
        self._answered = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self._unparsed and not self.transport.is_closing():
            self._unset_keepalive_if_required()  # it is not the client that waits
            self._pause_when_full()
            if self._turn is None:
                self._turn = next_turn(BoundedHttp)  # all connections are one caller
                self._turn.add_done_callback(self._go_on)

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Transport(transport))  # type: ignore[arg-type]

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_answering():
            self._answered.disconnected = True
            self._answered.message_event.set()
        if self._turn is not None:
            self._turn.cancel()
        super().connection_lost(exc)

    @override
    def send_400_response(self, msg: str) -> None:
        """Refuse what was read last. While another answer is due, the connection only closes."""
        answered = self._answered
        if self._is_answering() and (
            self.pipeline or answered.response_started or not answered.more_body
        ):
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _is_answering(self) -> bool:
        return self._answered is not None and not self._answered.response_complete

    def _go_on(self, turn: asyncio.Future[None]) -> None:
        self._turn = None
        if not turn.cancelled():
            self._parse()

    def _parse(self) -> None:
        """Feed the parser with the request that is to be answered, not with those behind it."""
        while self._unparsed and not self._is_over and not self.transport.is_closing():
            if self._has_to_wait():
                return self._pause_when_full()
            size = self._piece()
            piece = bytes(self._unparsed[:size])
            del self._unparsed[:size]
            self._silent_bytes += len(piece)
            super().data_received(piece)
            self._check_silence()

    def _has_to_wait(self) -> bool:
        """What was sent ahead. A few bytes of it may have been parsed, even several requests."""
        is_between = not (self._in_head or self._in_body)
        return bool(self._turn or self.pipeline) or (is_between and self._is_answering())

    def _pause_when_full(self) -> None:
        if len(self._unparsed) > MAX_AHEAD_BYTES:
            self.flow.pause_reading()

    def _piece(self) -> int:
        """Bytes of what is parsed next."""
        least, most = (LEAST_PIECE, PIECE) if self._in_body else (LEAST_HEAD_PIECE, HEAD_PIECE)
        end = self._unparsed.find(BLANK, least - len(BLANK), most)
        return most if end < 0 else end + len(BLANK)

    def _check_silence(self) -> None:
        """The parser keeps an unfinished name or value to itself, and copies it with each piece."""
        most = MAX_HEAD_BYTES if self._in_head else MAX_TRAILER_BYTES
        if self._silent_bytes > most + PIECE and not self.transport.is_closing():
            self.send_400_response(f"a part of the request's head is above {most} bytes")

    @override
    def on_message_begin(self) -> None:
        self._heard()
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()
        offer(self.scope, self.transport)

    @override
    def on_url(self, url: bytes) -> None:
        self._count(len(url), MAX_HEAD_BYTES)
        super().on_url(url)

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; one trailer, once the body has begun, which is never taken for a header."""
        if self._in_head:
            self._count(len(name) + len(value), MAX_HEAD_BYTES)
            super().on_header(name, value)
        else:
            self._count(len(name) + len(value), MAX_TRAILER_BYTES)

    @override
    def on_headers_complete(self) -> None:
        self._heard()
        self._in_head, self._in_body, self._head_bytes = False, True, 0
        self._check_lone_headers()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is before:
            return  # a WebSocket, which uvicorn hands over
        # What is behind such a request may be of the protocol that was asked for, and the parser
        # loses its place in it: it would go on within a body.
        if self.parser.should_upgrade():
            self._is_last, self.cycle.keep_alive = True, False
        if not self._is_answering():
            self._answered = self.cycle
        else:
            self.flow.resume_reading()  # uvicorn paused it; a client that leaves would go unseen

    @override
    def on_body(self, body: bytes) -> None:
        self._silent_bytes = 0
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._heard()
        self._in_body = False
        super().on_message_complete()
        if self._is_last:
            self._is_over = True
            self._unparsed.clear()

    def on_chunk_header(self) -> None:
        """A chunk's size was read; the parser calls this where it is defined."""
        self._heard()

    def _heard(self) -> None:
        self._silent_bytes = 0

    def _count(self, size: int, most: int) -> None:
        self._silent_bytes = 0
        self._head_bytes += size
        if self._head_bytes > most:
            raise ValueError(f"above {most} bytes")

    def _check_lone_headers(self) -> None:
        """RFC 9112, 3.2: one Host. Two credentials: readers would differ in which one counts."""
        names = [name for name, _ in self.headers]
        if names.count(b"host") != 1 and self.parser.get_http_version() == "1.1":
            raise ValueError("not one Host header")
        if names.count(b"authorization") > 1:
            raise ValueError("several Authorization headers")
