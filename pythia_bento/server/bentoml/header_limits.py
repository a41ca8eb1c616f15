"""A limit for the head of an HTTP request: its line and its headers.

uvicorn has none where httptools parses: a head of 50 MB kept its event loop busy for 10 seconds.
BentoML leaves the choice of a protocol to uvicorn, so the entry is made in uvicorn's own table.
"""

from __future__ import annotations

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 2**10
ONE_READ = 2**18  # what the event loop reads at most at once


def limit_heads() -> None:
    """Let servers that are configured from now on refuse larger ones with status 400."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:LimitedHeads"


class LimitedHeads(HttpToolsProtocol):
    """uvicorn's protocol; what a callback of the parser raises is a wrong request to it."""

    _head_bytes = 0
    _pending = 0  # bytes read while the head was not complete
    _in_head = False

    def data_received(self, data: bytes) -> None:
        """Called by the event loop, with at most what it reads at once."""
        super().data_received(data)
        if self._in_head:
            self._pending += len(data)
            if self._pending > MAX_HEAD_BYTES + ONE_READ:
                self._refuse()

    def on_message_begin(self) -> None:
        """Called by the parser, as are the following."""
        self._in_head, self._pending, self._head_bytes = True, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or after a chunked body one trailer."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._in_head = False
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError(f"a head above {MAX_HEAD_BYTES} bytes")

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response(f"the request's head is above {MAX_HEAD_BYTES} bytes")
