"""uvicorn's protocol with a limit for a request's line and headers, on a wire of the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn.config
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from pythia_bento.server.bentoml import header_limits
from pythia_bento.server.bentoml.header_limits import MAX_BYTES, ONE_READ, LimitedHeaders
from pythia_bento.server.bentoml.internals import MissingInternal

LINE = b"GET / HTTP/1.1\r\n"


class Wire(asyncio.Transport):
    """What the server writes."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def answer(*reads: bytes) -> bytes:
    """To what arrives in these pieces."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    config = Config(app, lifespan="off", log_config=None)
    config.load()
    protocol, wire = LimitedHeaders(config, ServerState(), {}), Wire()
    protocol.connection_made(wire)
    for data in reads:
        if not wire.closed:
            protocol.data_received(data)
    await asyncio.sleep(0)
    while not wire.sent and not wire.closed:
        await asyncio.sleep(0)
    return wire.sent


def of_size(size: int) -> bytes:
    """A header that brings the line and the headers to ``size`` bytes, as they are counted."""
    return b"x: " + b"a" * (size - len(b"/") - len(b"x")) + b"\r\n"


async def test_up_to_the_limit_is_answered() -> None:
    assert (await answer(LINE + of_size(MAX_BYTES) + b"\r\n")).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize(
    "reads",
    [
        [LINE + of_size(MAX_BYTES + 1) + b"\r\n"],
        [LINE, *[b"y: %b\r\n" % (b"b" * 1000)] * 70],
        [b"GET /" + b"a" * (MAX_BYTES + 1) + b" HTTP/1.1\r\n\r\n"],
        [LINE + b"x: ", *[b"a" * ONE_READ] * 2],  # one header that does not end
    ],
)
async def test_more_is_refused(reads: list[bytes]) -> None:
    assert (await answer(*reads)).startswith(b"HTTP/1.1 400")


def test_servers_are_made_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "before")
    header_limits.install()
    config = Config(lambda: None, log_config=None)
    config.load()
    assert config.http_protocol_class is LimitedHeaders


@pytest.mark.parametrize("method", header_limits.METHODS)
def test_a_protocol_that_lacks_what_is_overridden(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "before")
    monkeypatch.delattr(HttpToolsProtocol, method)
    check: Callable[[], None] = header_limits.install
    with pytest.raises(MissingInternal, match=rf"HttpToolsProtocol\.{method}"):
        check()
    assert uvicorn.config.HTTP_PROTOCOLS["auto"] == "before"
