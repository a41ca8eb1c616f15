"""What comes over HTTP from others than the service: proxies and servers of another kind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pythia_bento.client import AsyncClient, Client, ScoreItem
from pythia_bento.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    PythiaError,
)

ANSWERS: dict[str, tuple[int, dict[str, str], str]] = {
    "proxy": (503, {}, "<html>"),
    "date": (429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, "slow down"),
    "seconds": (429, {"retry-after": "7"}, "[]"),
    "large": (413, {}, ""),
    "gateway": (504, {}, ""),
    "missing": (404, {}, '{"error": "no such page"}'),
}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        status, headers, body = ANSWERS[self.path.split("/")[1]]
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("proxy", EngineUnavailable),
        ("date", Overloaded),
        ("seconds", Overloaded),
        ("large", PayloadTooLarge),
        ("gateway", DeadlineExceeded),
        ("missing", PythiaError),
    ],
)
async def test_statuses_without_a_body_of_ours(
    url: str, name: str, kind: type[PythiaError]
) -> None:
    with Client(f"{url}/{name}") as client:
        for call in (lambda: client.tokenize("a"), lambda: client.generate("a")):
            with pytest.raises(kind) as caught:
                call()
            assert type(caught.value) is kind
            assert str(ANSWERS[name][0]) in caught.value.message
            if isinstance(caught.value, Overloaded):
                assert caught.value.retry_after == (7 if name == "seconds" else 1)
    async with AsyncClient(f"{url}/{name}") as client:
        with pytest.raises(kind):
            await client.generate("a")


def test_what_json_cannot_hold(url: str) -> None:
    with Client(url) as client:
        for options in ({"temperature": float("nan")}, {"n": {1}}):
            with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
                client.generate("a", **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
            client.score([ScoreItem("a", logprobs={1})])  # type: ignore[arg-type]
