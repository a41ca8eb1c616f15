"""What is compressed and what is not."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from pythia_bento.server.http import packed
from pythia_bento.server.http.packed import MIN_BYTES, Packed

LARGE = b"Once upon a time. " * 9000
TEXT = {"accept-encoding": "br, gzip"}


async def answer(request: Request) -> Response:
    body = LARGE[: int(request.query_params.get("size", len(LARGE)))]
    return Response(body, status_code=int(request.query_params.get("status", 200)))


async def stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield LARGE

    return StreamingResponse(parts(), media_type="text/event-stream")


async def script(request: Request) -> Response:
    return FileResponse(packed.__file__, media_type="text/javascript")


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    routes: list[Any] = [
        Route("/docs.json", answer),
        Route("/metrics", answer),
        Route("/v1/completions", stream),
        Route("/playground/{name}", script),
    ]
    transport = httpx.ASGITransport(Packed(Starlette(routes=routes)))
    async with httpx.AsyncClient(transport=transport, base_url="http://a", headers=TEXT) as client:
        yield client


async def test_what_is_static_is_compressed_once(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = gzip.compress
    monkeypatch.setattr(gzip, "compress", lambda body, **_: sizes.append(len(body)) or real(body))
    packed._packed.cache_clear()
    for _ in range(3):
        found = await http.get("/docs.json")
        assert (found.content, found.headers["content-encoding"]) == (LARGE, "gzip")
        assert found.headers["vary"] == "Accept-Encoding"
        assert int(found.headers["content-length"]) < len(LARGE) / 10
    assert sizes == [len(LARGE)]


async def test_files_in_pieces_are_whole(http: httpx.AsyncClient) -> None:
    found = await http.get("/playground/tokens.js")
    assert found.headers["content-encoding"] == "gzip"
    with open(packed.__file__, "rb") as file:
        assert found.content == file.read()


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/docs.json", {"accept-encoding": "br"}),
        ("HEAD", "/docs.json", {}),
        ("GET", "/docs.json?status=404", {}),
        ("GET", f"/docs.json?size={MIN_BYTES - 1}", {}),
        ("GET", "/playground/a.js", {"range": "bytes=0-1999"}),
        ("GET", "/metrics", {}),
        ("GET", "/v1/completions", {}),
    ],
)
async def test_all_else_is_as_it_was(
    http: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> None:
    found = await http.request(method, path, headers=headers)
    assert "content-encoding" not in found.headers
    size = int(found.headers.get("content-length", 3 * len(LARGE)))
    assert len(found.content) == (0 if method == "HEAD" else size)
