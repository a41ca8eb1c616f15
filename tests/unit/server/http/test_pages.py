"""Pages for people, asked in-process."""

from __future__ import annotations

import asyncio
import json
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


def test_the_curve_of_training_has_every_loss_in_it() -> None:
    losses = [json.loads(line)["loss"] for line in pages.TRAINING.read_text().splitlines()]
    told = pages.training()
    assert told[0] == (1, losses[0]) and told[-1][0] == len(losses)
    sizes = [after - before for before, (after, _) in zip([0, *(s for s, _ in told)], told)]  # noqa: B905
    mean = sum(size * loss for size, (_, loss) in zip(sizes, told, strict=True)) / len(losses)
    assert mean == pytest.approx(sum(losses) / len(losses), abs=1e-3)


async def test_the_curve_of_training_is_among_the_pages_files() -> None:
    transport = httpx.ASGITransport(pages.create_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        answer = await http.get("/playground/training.json")
        assert answer.json() == [list(point) for point in pages.training()]
        assert (await http.get("/playground/manifest.json")).status_code == 404
