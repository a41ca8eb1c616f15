"""Large answers in pieces: others have their turn, and nothing else changes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from pythia_bento.engine.validate import MAX_ALTERNATIVES
from pythia_bento.runtime import turns
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.http import json_answer
from pythia_bento.server.http.json_answer import json_in_pieces
from tests.unit.conftest import app_of


@pytest.fixture
async def http(runner: PythiaRunner):
    transport = httpx.ASGITransport(app_of(runner))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize("size", [1, 2**16])
async def test_lists_are_written_entry_by_entry(
    at_once: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_answer, "PIECE_BYTES", size)
    lists: dict[str, Any] = {"a": [{"b": 1}, "c", 2.5], "none": None, "empty": [], "it": range(7)}
    answer = await json_in_pieces({"first": "x"}, at_once, **lists)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await answer({}, None, send)  # type: ignore[arg-type]
    start, *pieces = sent
    body = b"".join(piece["body"] for piece in pieces)
    assert json.loads(body) == {
        **{"first": "x", "a": [{"b": 1}, "c", 2.5], "none": None},
        **{"empty": [], "it": [*range(7)]},
    }
    assert dict(start["headers"])[b"content-length"] == str(len(body)).encode()
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert (len(pieces) > 3) == (size == 1)


LARGE = {"prompt": [5, 6, 7] * 5, "n": 20, "max_tokens": 30, "logprobs": 5, "ignore_eos": True}


@pytest.mark.parametrize(
    ("path", "body", "least"),
    [
        ("/v1/completions", LARGE | {"echo": True, "prompt_logprobs": 5}, 60),
        ("/v1/completions", LARGE | {"echo": True, "stream": True}, 60),
        ("/v1/completions", LARGE | {"n": 2, "best_of": 20}, 20),
        ("/v1/completions", {"prompt": [[5]] * 100, "max_tokens": 1}, 200),
        ("/tokenize", {"prompt": "a " * 20_000, "return_token_strs": True}, 35),
    ],
)
async def test_others_have_their_turn_while_an_answer_is_made(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, body: Any, least: int
) -> None:
    monkeypatch.setattr(turns, "PIECE_SECONDS", -1.0)  # no piece is short enough
    taken, take = 0, turns.Turns.take

    async def counted(self: turns.Turns) -> None:
        nonlocal taken
        taken += 1
        others: list[str] = []
        asyncio.get_running_loop().call_soon(others.append, "was there")
        await take(self)
        assert others

    monkeypatch.setattr(turns.Turns, "take", counted)
    answer = await http.post(path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert taken >= least


async def test_alternatives_are_counted_over_a_whole_request(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, body in (
        (
            "/v1/completions",
            {"prompt": [[5] * 20] * 10, "n": 128, "max_tokens": 42, "logprobs": 20},
        ),
        (
            "/v1/completions",
            {"prompt": [[5] * 60] * 250, "n": 4, "echo": True, "logprobs": 20, "max_tokens": 0},
        ),
    ):
        answer = await http.post(path, json=body, timeout=60)
        assert answer.status_code == 400
        assert f"but the limit is {MAX_ALTERNATIVES}" in answer.json()["error"]["message"]
        assert answer.json()["error"]["param"] == "logprobs"
