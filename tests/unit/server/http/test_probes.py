"""What tools ask first."""

from __future__ import annotations

import httpx

from pythia_bento import __version__
from pythia_bento.errors import EngineUnavailable
from pythia_bento.server.http.probes import create_app


async def test_health_follows_whether_requests_are_taken() -> None:
    app = create_app()
    refusal: list[EngineUnavailable] = []

    def check() -> None:
        for error in refusal:
            raise error

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/health", "/ping"):
            early = await client.get(path)
            assert (early.status_code, early.json()["error"]["code"]) == (503, "engine_unavailable")
        app.state.check_ready = check
        for path in ("/health", "/ping"):
            assert ((await client.get(path)).status_code, (await client.get(path)).text) == (
                200,
                "",
            )
        refusal.append(EngineUnavailable("the server is shutting down"))
        for path in ("/health", "/ping"):
            late = await client.get(path)
            assert (late.status_code, late.json()["error"]["message"]) == (
                503,
                "the server is shutting down",
            )


async def test_version() -> None:
    transport = httpx.ASGITransport(create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/version")).json() == {"version": __version__}
