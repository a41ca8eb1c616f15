"""Pages for people, asked in-process."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.http import pages


async def test_the_document_is_made_once_and_beside_the_event_loop(
    runner: PythiaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def describe(runner: PythiaRunner) -> dict[str, Any]:
        made.append(threading.get_ident())
        return _real(runner)

    _real = pages.describe
    _real.cache_clear()
    monkeypatch.setattr(pages, "describe", describe)
    app = pages.create_app()
    app.state.runner = runner
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        answers = await asyncio.gather(*(http.get("/docs.json") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(made) == 8 and threading.get_ident() not in made
    assert _real.cache_info().misses == 1
