"""Framing of HTTP, byte by byte, against a real uvicorn server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pythia_bento.server.bentoml import http_protocol
from pythia_bento.server.bentoml.http_protocol import (
    LEAST_HEAD_PIECE,
    MAX_AHEAD_BYTES,
    MAX_HEAD_BYTES,
    MAX_TRAILER_BYTES,
    BoundedHttp,
)
from pythia_bento.server.bentoml.internals import MissingInternal
from tests.e2e.raw_http import exchange, request, statuses

CHUNKED = "Transfer-Encoding: chunked"


class Echo:
    """Answers with what a request brought, and keeps it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.seen.append({**scope, "body": body})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def url(echo: Echo) -> Iterator[str]:
    config = uvicorn.Config(
        echo, port=0, log_level="critical", http=BoundedHttp, ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


def test_servers_take_it_by_default() -> None:
    before = uvicorn.config.HTTP_PROTOCOLS["auto"]
    try:
        http_protocol.limit_framing()
        config = uvicorn.Config(Echo())
        config.load()
        assert config.http_protocol_class is BoundedHttp
    finally:
        uvicorn.config.HTTP_PROTOCOLS["auto"] = before


@pytest.mark.parametrize("method", http_protocol.METHODS)
def test_a_protocol_that_lacks_what_is_taken_over(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    before = uvicorn.config.HTTP_PROTOCOLS["auto"]
    monkeypatch.delattr(HttpToolsProtocol, method)
    with pytest.raises(MissingInternal, match=rf"HttpToolsProtocol\.{method}"):
        http_protocol.limit_framing()
    assert uvicorn.config.HTTP_PROTOCOLS["auto"] == before


def test_bodies_of_both_kinds_arrive_whole(url: str, echo: Echo) -> None:
    body = bytes(range(256)) * 400
    first = request("POST / HTTP/1.1", f"Content-Length: {len(body)}", body=body, close=False)
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (7000, body[:7000]) for _ in range(5)) + b"0\r\n\r\n"
    second = request("POST / HTTP/1.1", CHUNKED, body=chunks)
    assert statuses(exchange(url, first + second)) == [200, 200]
    assert [seen["body"] for seen in echo.seen] == [body, 5 * body[:7000]]


def test_trailers_are_no_headers(url: str, echo: Echo) -> None:
    body = b"3\r\nabc\r\n0\r\nAuthorization: Bearer key\r\nX-Request-Id: 1\r\n\r\n"
    assert statuses(exchange(url, request("POST / HTTP/1.1", CHUNKED, body=body))) == [200]
    (seen,) = echo.seen
    assert {name for name, _ in seen["headers"]} == {b"host", b"connection", b"transfer-encoding"}


@pytest.mark.parametrize(
    "trailer",
    [
        b"X: " + b"a" * 40 * MAX_TRAILER_BYTES,  # without end: the parser keeps it to itself
        b"a" * 40 * MAX_TRAILER_BYTES,
        b"X: 1\r\n" * MAX_TRAILER_BYTES,
    ],
)
def test_trailers_have_a_limit(url: str, trailer: bytes) -> None:
    data = request("POST / HTTP/1.1", CHUNKED, body=b"3\r\nabc\r\n0\r\n" + trailer)
    assert statuses(exchange(url, data))[-1] == 400


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 2 * MAX_HEAD_BYTES,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * MAX_HEAD_BYTES,
        b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * MAX_HEAD_BYTES,
    ],
)
def test_heads_have_a_limit(url: str, head: bytes) -> None:
    assert statuses(exchange(url, head)) == [400]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Host: a"], 200),
        ([], 400),
        (["Host: a", "Host: b"], 400),
        (["Host: a", "Authorization: Bearer x"], 200),
        (["Host: a", "Authorization: Bearer x", "authorization: Bearer y"], 400),
    ],
)
def test_one_host_and_at_most_one_credential(url: str, headers: list[str], status: int) -> None:
    lines = ["GET / HTTP/1.1", *headers, "Connection: close", "", ""]
    assert statuses(exchange(url, "\r\n".join(lines).encode())) == [status]


def test_http_1_0_needs_no_host(url: str) -> None:
    assert statuses(exchange(url, b"GET / HTTP/1.0\r\n\r\n")) == [200]


def test_requests_ahead_of_answers_are_read_as_answers_leave(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    parse = BoundedHttp._parse

    def watched(self: BoundedHttp) -> None:
        nonlocal most
        parse(self)
        most = max(most, len(self.pipeline))

    monkeypatch.setattr(BoundedHttp, "_parse", watched)
    count = 3000
    data = request("GET / HTTP/1.1", close=False) * (count - 1) + request("GET / HTTP/1.1")
    assert statuses(exchange(url, data)) == [200] * count
    assert most <= LEAST_HEAD_PIECE // 23


def test_what_many_sent_ahead_is_not_read_in_one_turn_of_the_loop(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, begun, ahead = 0, BoundedHttp.on_message_begin, Counter[int]()

    def watched(self: BoundedHttp) -> None:
        nonlocal turn
        if not turn:
            tick(self.loop)
        ahead[turn] += self.cycle is not None
        begun(self)

    def tick(loop: asyncio.AbstractEventLoop) -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(tick, loop)

    monkeypatch.setattr(BoundedHttp, "on_message_begin", watched)
    data = request("GET / HTTP/1.1", close=False) * 20 + request("GET / HTTP/1.1")
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(exchange, [url] * 10, [data] * 10))
    assert [statuses(answer) for answer in answers] == [[200] * 21] * 10
    assert sum(ahead.values()) == 200
    assert max(ahead.values()) <= LEAST_HEAD_PIECE // 23  # one piece of one connection's


@pytest.mark.parametrize("size", [0, 1, 250, 8000])
def test_bodies_sent_ahead_arrive_whole(url: str, echo: Echo, size: int) -> None:
    """Of blank lines, where pieces end."""
    body = (http_protocol.BLANK * 2000)[:size]
    one = request("POST / HTTP/1.1", f"Content-Length: {size}", body=body, close=False)
    assert statuses(exchange(url, one * 20 + request("GET / HTTP/1.1"))) == [200] * 21
    assert [seen["body"] for seen in echo.seen] == [body] * 20 + [b""]


def test_a_client_that_leaves_amid_many_requests_leaves_nothing(url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    for _ in range(20):
        connection = socket.create_connection((host, int(port)))
        with connection, contextlib.suppress(ConnectionError):
            connection.sendall(request("GET / HTTP/1.1", close=False) * 500)
    assert statuses(exchange(url, request("GET / HTTP/1.1"))) == [200]


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", "x"])
@pytest.mark.parametrize("size", [0, 10])
def test_nothing_is_read_behind_an_upgrade(url: str, echo: Echo, upgrade: str, size: int) -> None:
    """The parser would go on at the next piece: here, within a body."""
    wanted = (f"Upgrade: {upgrade}", "Connection: Upgrade", f"Content-Length: {size}")
    first = request("POST /first HTTP/1.1", *wanted, body=bytes(size), close=False)
    inner = request("GET /inner HTTP/1.1")
    head = request("POST /second HTTP/1.1", "Content-Length: 9999", close=False)
    padding = bytes(http_protocol.PIECE - len(first) - len(head))
    answer = exchange(url, first + head + padding + inner)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer.lower()
    assert [seen["path"] for seen in echo.seen] == ["/first"]


def test_nothing_is_read_behind_connect(url: str, echo: Echo) -> None:
    data = b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n" + request("GET /inner HTTP/1.1")
    exchange(url, data + bytes(5000) + request("GET /inner HTTP/1.1"))
    assert "/inner" not in [seen["path"] for seen in echo.seen]


class Slow(Echo):
    """Answers ``/slow`` piece by piece until nobody waits for it, and other paths at once."""

    def __init__(self) -> None:
        super().__init__()
        self.left = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/slow":
            return await super().__call__(scope, receive, send)
        await receive()
        leaving = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
            await asyncio.sleep(0.001)
        await send({"type": "http.response.body", "body": b"too late", "more_body": True})
        assert leaving.result() == {"type": "http.disconnect"}
        self.left.set()


class TestBeingAnswered:
    @pytest.fixture
    def echo(self) -> Slow:
        return Slow()

    @pytest.mark.parametrize("behind", [0, 1, 20])
    def test_a_client_that_leaves_is_noticed_whatever_waits_behind(
        self, url: str, echo: Slow, behind: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(request("GET /slow HTTP/1.1", close=False))
            assert connection.recv(1000)
            connection.sendall(
                request("POST / HTTP/1.1", "Content-Length: 0", close=False) * behind
            )
        assert echo.left.wait(60)
        assert statuses(exchange(url, request("GET / HTTP/1.1"))) == [200]
        assert len(echo.seen) == 1
        assert not [record for record in caplog.records if record.exc_info]

    def test_a_wrong_request_is_no_part_of_an_answer_that_has_begun(
        self, url: str, echo: Slow, caplog: pytest.LogCaptureFixture
    ) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(request("GET /slow HTTP/1.1", close=False))
            answer = bytearray(connection.recv(1000))
            connection.sendall(b"nonsense\r\n\r\n")
            while len(answer) < 5000:
                answer += connection.recv(1000)
        assert echo.left.wait(60)
        assert b"400" not in answer and answer.count(b"HTTP/1.1") == 1
        assert not [record for record in caplog.records if record.exc_info]

    def test_a_wrong_request_is_refused_behind_the_answer_before_it(self, url: str) -> None:
        data = request("GET / HTTP/1.1", close=False) + b"nonsense\r\n\r\n"
        assert statuses(exchange(url, data)) == [200, 400]

    def test_what_waits_is_bounded(
        self, url: str, echo: Slow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        most = parsed = 0
        parse = BoundedHttp._parse

        def watched(self: BoundedHttp) -> None:
            nonlocal most, parsed
            parse(self)
            most = max(most, len(self._unparsed))
            parsed = max(parsed, sum(len(cycle.body) for cycle, _ in self.pipeline))

        monkeypatch.setattr(BoundedHttp, "_parse", watched)
        host, _, port = url.removeprefix("http://").partition(":")
        size = 20_000
        head = ("POST / HTTP/1.1", f"Content-Length: {size}")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(request("GET /slow HTTP/1.1", close=False))
            assert connection.recv(1000)
            connection.settimeout(1)
            data = memoryview(request(*head, body=bytes(size), close=False) * 1000)
            while data and most <= MAX_AHEAD_BYTES:  # it reads no more, or is busy
                with contextlib.suppress(TimeoutError):
                    while data:
                        data = data[connection.send(data) :]
        assert MAX_AHEAD_BYTES < most < MAX_AHEAD_BYTES + 2**20
        assert parsed <= http_protocol.PIECE
