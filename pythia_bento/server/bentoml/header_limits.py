"""A limit for the line and the headers of an HTTP request.

uvicorn has none where httptools parses: headers of 50 MB kept its event loop busy for 10 seconds.
BentoML leaves the choice of a protocol to uvicorn, so the entry is made in uvicorn's own table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pythia_bento.server.bentoml.internals import internal, replace

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
else:
    HttpToolsProtocol = internal("uvicorn.protocols.http.httptools_impl:HttpToolsProtocol")

AUTO = "uvicorn.config:HTTP_PROTOCOLS.auto"
# What is called or taken over of uvicorn's protocol.
METHODS = (
    *("on_message_begin", "on_url", "on_header", "on_headers_complete"),
    "send_400_response",
)
MAX_BYTES = 64 * 2**10
ONE_READ = 2**18  # what the event loop reads at most at once


def check() -> None:
    """Raise MissingInternal where uvicorn is not as it has to be."""
    internal(AUTO)
    for method in METHODS:
        internal(f"uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.{method}")


def install() -> None:
    """Let servers that are configured from now on in this process refuse more with status 400."""
    check()
    replace(AUTO, f"{__name__}:LimitedHeaders")


class LimitedHeaders(HttpToolsProtocol):
    """uvicorn's protocol; what a callback of the parser raises is a wrong request to it."""

    _size = 0  # of the request's line and headers
    _pending = 0  # bytes read while they were not complete
    _is_pending = False

    def data_received(self, data: bytes) -> None:
        """Called by the event loop, with at most what it reads at once."""
        super().data_received(data)
        if self._is_pending:
            self._pending += len(data)
            if self._pending > MAX_BYTES + ONE_READ:
                self._refuse()

    def on_message_begin(self) -> None:
        """Called by the parser, as are the following."""
        self._is_pending, self._pending, self._size = True, 0, 0
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
        self._is_pending = False
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MAX_BYTES:
            raise ValueError(f"a request's line and headers above {MAX_BYTES} bytes")

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response(f"the request's line and headers are above {MAX_BYTES} bytes")
