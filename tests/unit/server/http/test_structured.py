"""Structured output over HTTP: what is asked in which words, and what comes."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.http import native
from pythia_bento.server.http.chat_template import ChatTemplate
from tests.constraints import CASES, CHOICES, SCHEMA
from tests.unit.conftest import app_of

SHORT = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
SHORT["additionalProperties"] = False
FORMAT = {"type": "json_schema", "json_schema": {"name": "short", "schema": SHORT}}
WAYS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"structured_outputs": {"choice": ["the", "end"]}}, ("the", "end")),
    ({"guided_choice": ["the", "end"]}, ("the", "end")),
    ({"guided_regex": "a{2}|b"}, ("aa", "b")),
    ({"guided_json": SHORT}, ('{"a":true}', '{"a":false}')),
    ({"guided_json": json.dumps(SHORT)}, ('{"a":true}', '{"a":false}')),
    ({"guided_grammar": 'start: "x" | "y"'}, ("x", "y")),
    ({"response_format": FORMAT}, ('{"a":true}', '{"a":false}')),
]


@pytest.fixture
async def generate(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    app = native.create_app()
    app.state.runner = runner
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(("asked", "texts"), WAYS, ids=str)
async def test_completions(complete, asked: dict[str, Any], texts: tuple[str, ...]) -> None:
    answer = await complete(**asked, n=3, max_tokens=20, logprobs=1, seed=2)
    for choice in answer["choices"]:
        assert choice["text"] in texts
        assert choice["finish_reason"] == "stop" and choice["stop_reason"] is None
        assert "".join(choice["logprobs"]["tokens"]).startswith(choice["text"])


async def test_a_stream_is_the_plain_answer(client: httpx.AsyncClient, complete) -> None:
    asked = {"guided_choice": CHOICES, "n": 4, "max_tokens": 40, "seed": 1, "temperature": 2}
    plain = await complete(**asked)
    body = {"prompt": "the end", "stream": True, **asked}
    answer = await client.post("/completions", json=body)
    texts, reasons = [""] * 4, [None] * 4
    for line in answer.text.split("\n\n"):
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                texts[choice["index"]] += choice["text"]
                reasons[choice["index"]] = choice["finish_reason"]
    assert texts == [choice["text"] for choice in plain["choices"]]
    assert reasons == ["stop"] * 4 and set(texts) <= set(CHOICES)


async def test_prompts_of_one_request_have_one_form(complete) -> None:
    answer = await complete(prompt=["a", "b", "the"], guided_regex="[0-9]{3}", max_tokens=9)
    assert all(choice["text"].isdigit() for choice in answer["choices"])


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
@pytest.mark.parametrize("name", ["choice", "json"])
async def test_generate(generate: httpx.AsyncClient, path: str, name: str) -> None:
    body = {"prompt": "a", "max_tokens": 55, "structured_outputs": CASES[name].value}
    answer = await generate.post(path, json=body)
    assert answer.status_code == 200, answer.text
    if path == "/generate":
        [output] = answer.json()["outputs"]
        text, reason = output["text"], output["finish_reason"]
    else:
        events = [json.loads(e[6:]) for e in answer.text.split("\n\n") if e.startswith("data: {")]
        deltas = [delta for event in events for delta in event["deltas"]]
        text, reason = "".join(d["text"] for d in deltas), deltas[-1]["finish_reason"]
    assert reason == "stop" and CASES[name].conforms(text)


async def test_chat(runner: PythiaRunner) -> None:
    template = ChatTemplate("{{ messages[0].content }}", 1000)
    transport = httpx.ASGITransport(app_of(runner, chat_template=template))
    messages = [{"role": "user", "content": "the"}]
    async with httpx.AsyncClient(transport=transport, base_url="http://test/v1") as http:
        body = {"messages": messages, "response_format": FORMAT, "max_tokens": 20}
        answer = (await http.post("/chat/completions", json=body)).json()
    [choice] = answer["choices"]
    assert json.loads(choice["message"]["content"])["a"] in (True, False)
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(("asked", "_"), WAYS[:4], ids=str)
async def test_without_the_extra(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], _: set[str]
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    answer = await client.post("/completions", json={"prompt": "a", **asked})
    [field] = asked
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == field and error["type"] == "invalid_request_error"
    assert error["message"] == (
        f"{field} needs the extra `guided`, which this server does not have "
        "(pip install 'pythia-bento[guided]')"
    )
    scored = {"prompt": "a", "max_tokens": 0, "echo": True, "logprobs": 1, **asked}
    assert (await client.post("/completions", json=scored)).status_code == 200


async def test_nothing_is_left_of_what_is_refused(client: httpx.AsyncClient) -> None:
    for asked in ({"guided_regex": "("}, {"guided_json": {"type": 7}}, {"guided_grammar": "?"}):
        answer = await client.post("/completions", json={"prompt": "a", **asked, "stream": True})
        [field] = asked
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["param"] == field
        assert error["message"].startswith(f"{field} cannot be followed: ")


async def test_a_schema_is_as_long_as_it_may_be(client: httpx.AsyncClient) -> None:
    schema = {**SCHEMA, "description": "a" * 2**16}
    answer = await client.post("/completions", json={"prompt": "a", "guided_json": schema})
    assert answer.status_code == 400
    assert "guided_json is longer than the limit of 65536" in answer.json()["error"]["message"]
