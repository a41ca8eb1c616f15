"""``/generate`` and ``/score`` as an application: straight to the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette

from pythia_bento.engine import validate
from pythia_bento.engine.params import score_request
from pythia_bento.handlers import score
from pythia_bento.protocol.bodies import GenerateStreamRequest
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.runtime.streams import AsyncStream
from pythia_bento.runtime.turns import LONG_TEXT
from pythia_bento.server.bentoml.direct_routes import routes_of
from pythia_bento.server.http import native
from pythia_bento.telemetry.calls import CallContext, working_for
from tests.unit.engine.gate import Gate
from tests.unit.runtime.toy_runner import settled, toy_runner
from tests.unit.turning import turning, until

ITEM = {"prompt": "the end", "continuation": " of"}


@pytest.fixture
async def http(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    app: Starlette = native.create_app()
    app.state.runner = runner
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        yield client


async def test_items_are_scored_in_their_order(
    http: httpx.AsyncClient, runner: PythiaRunner
) -> None:
    items = [ITEM, {"prompt": 5}, {"prompt": [5, 6, 7], "logprobs": 2}, {"prompt": "a"}] * 3
    answer = (await http.post("/score", json={"items": items})).json()
    assert answer == json.loads(json.dumps(await score.score(runner, items)))
    assert [("error" in result) for result in answer] == [False, True, False, False] * 3


async def test_no_items_are_no_results(http: httpx.AsyncClient) -> None:
    answer = await http.post("/score", json={"items": []})
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "items is required"),
        ({"items": "a"}, "items must be a valid list"),
        ({"items": [ITEM], "item": 1}, "item is not a field"),
        ({"items": [ITEM] * 5000}, "items has 5000 entries, but the limit is 4096"),
    ],
)
async def test_bodies_that_are_refused(
    http: httpx.AsyncClient, body: dict[str, object], words: str
) -> None:
    answer = await http.post("/score", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


async def test_a_text_is_refused_before_it_is_tokenised(
    http: httpx.AsyncClient, runner: PythiaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = runner.limits.max_text_chars
    monkeypatch.setattr(type(runner.tokenizer), "encode", None)
    answer = await http.post("/generate", json={"prompt": "a" * (most + 1)})
    assert answer.status_code == 400
    assert f"prompt has {most + 1} characters" in answer.json()["error"]["message"]
    [result] = (await http.post("/score", json={"items": [{"prompt": "a" * (most + 1)}]})).json()
    assert "characters, but the limit is" in result["error"]["message"]


async def test_others_have_their_turn_between_many_texts(runner: PythiaRunner) -> None:
    items = [{"prompt": "a " * (LONG_TEXT // 4)}] * 40
    async with turning() as count:
        await score.score(runner, items)
    assert count() > 40


async def test_alternatives_are_counted_over_all_items(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = validate.MAX_ALTERNATIVES // 10  # for a tenth of the work
    monkeypatch.setattr(validate, "MAX_ALTERNATIVES", most)
    items = [{"prompt": [5] * 64, "logprobs": 20}] * 100
    answer = await http.post("/score", json={"items": items}, timeout=60)
    good = most // (64 * 20)
    wanted = [False] * good + [True] * (100 - good)
    assert ["error" in result for result in answer.json()] == wanted
    assert "alternatives" in answer.json()[-1]["error"]["message"]


async def test_a_million_unknown_fields_are_one_refusal(http: httpx.AsyncClient) -> None:
    body = {"prompt": "a", **{str(number): 1 for number in range(100_000)}}
    answer = await http.post("/generate", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "0 is not a field of this request"


async def test_a_stream_ends_with_done(http: httpx.AsyncClient) -> None:
    answer = await http.post("/generate", json={"prompt": "a", "stream": True, "max_tokens": 3})
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_stream_of_its_own_has_the_events_of_the_other_in_ascii(
    http: httpx.AsyncClient, runner: PythiaRunner
) -> None:
    asked = {"prompt": "the end", "max_tokens": 5, "logprobs": 1, "prompt_logprobs": 1}
    streamed = await http.post("/generate_stream", json=asked)
    other = await http.post("/generate", json=asked | {"stream": True})
    assert streamed.headers["content-type"] == other.headers["content-type"]
    assert streamed.content.isascii() and streamed.text.endswith("data: [DONE]\n\n")
    body = GenerateStreamRequest.model_validate(asked)
    text = "".join([event async for event in native.texts(runner, body)])
    assert joined(streamed.text) == joined(other.text) == joined(text)


def joined(text: str) -> tuple[str, int]:
    """All of the text, and how many of the prompt's tokens are in it."""
    events = [event.removeprefix("data: ") for event in text.split("\n\n")[:-2]]
    parts = [json.loads(event) for event in events]
    pieces = [delta["text"] for part in parts for delta in part["deltas"]]
    return "".join(pieces), sum(len(part.get("prompt_tokens", ())) for part in parts)


async def test_a_stream_that_is_left_ends_its_request(
    runner: PythiaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[AsyncStream] = []
    monkeypatch.setattr(AsyncStream, "close", lambda stream: closed.append(stream))
    texts = native.texts(runner, GenerateStreamRequest(prompt="the end", max_tokens=3))
    assert (await anext(texts)).startswith("data: ") and not closed
    await texts.aclose()
    assert len(closed) == 1


async def test_a_client_that_leaves_its_scores_ends_them_and_delays_nobody() -> None:
    """Two thousand items of which a few are done: another's single one does not wait for them."""
    keys = "alice alices-key-0123456789, bob bobs-key-9876543210"
    gate = Gate()
    with toy_runner(gate=gate, max_batch_size=2, api_keys=keys) as runner:
        many = [score_request((5,) * 60) for _ in range(2000)]
        with working_for(CallContext("1", caller="alice")):
            left = asyncio.create_task(runner.score(many))
            gate.open(2)
            await gate.held()
        before = len(runner._thread._states)
        with working_for(CallContext("2", caller="bob")):
            asked = asyncio.create_task(runner.score([score_request((5, 6))]))
        await until(lambda: len(runner._thread._states) == before + 1)
        gate.open(100)
        [answer] = await asked
        assert answer.error is None and not left.done()
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        gate.open()
        settled(runner)
        assert runner.stats().prefix_queries < 60 * 1000  # most were never begun


async def test_scores_do_not_pass_bentomls_batcher() -> None:
    """It held single items back, and waited by the wall clock; clients that left were served."""
    assert ("POST", "/score") in routes_of([(native.create_app(), "/")])
