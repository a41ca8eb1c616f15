"""The room that the bodies of all requests share."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pythia_bento.errors import Overloaded
from pythia_bento.server.access.control import FREE_BYTES, BodyRoom
from pythia_bento.server.http.body import RequestMiddleware


def test_what_a_body_takes_is_given_back() -> None:
    room = BodyRoom(100)
    with room.place() as grow, room.place() as other:
        grow(FREE_BYTES + 60)
        other(FREE_BYTES)
        with pytest.raises(Overloaded, match=r"60 bytes, and 41 more .* of 100 .*MAX_OPEN"):
            other(FREE_BYTES + 41)
        other(FREE_BYTES + 40)
        assert room.taken == 100
    assert room.taken == 0


def test_a_body_that_was_refused_holds_nothing() -> None:
    room = BodyRoom(10)
    with pytest.raises(Overloaded), room.place() as grow:
        grow(FREE_BYTES + 11)
    assert room.taken == 0


async def test_many_large_bodies_are_refused_and_small_ones_never() -> None:
    go_on = asyncio.Event()

    async def wait(request: Request) -> PlainTextResponse:
        await request.body()
        await go_on.wait()
        return PlainTextResponse("done")

    large = 4 * FREE_BYTES
    app = RequestMiddleware(
        Starlette(routes=[Route("/", wait, methods=["POST"])]),
        max_body_bytes=large,
        room=BodyRoom(3 * (large - FREE_BYTES)),
        client_timeout=60,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

        async def send(size: int) -> int:
            return (await client.post("/", content=b"x" * size)).status_code

        waiting = [asyncio.ensure_future(send(large)) for _ in range(3)]
        for _ in range(1000):
            await asyncio.sleep(0)
        assert app.room.taken == app.room.most
        waiting += [asyncio.ensure_future(send(FREE_BYTES)) for _ in range(5)]
        assert {await send(large) for _ in range(4)} == {429}
        go_on.set()
        assert Counter(await asyncio.gather(*waiting)) == {200: 8}
        assert await send(large) == 200
    assert app.room.taken == 0
