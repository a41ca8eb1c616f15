"""Chat over a template: the answers of completions in another shape."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.http.chat_template import ChatTemplate
from tests.fuzz.structures import as_json, mutated
from tests.later import openai
from tests.unit.conftest import app_of

# The toy's vocabulary is small.
TEMPLATE = ChatTemplate("{% for m in messages %}{{ m.content }} {% endfor %}the end", 10_000)
MESSAGES: Any = [{"role": "user", "content": "the end"}]
PROMPT = "the end the end"


@pytest.fixture
async def http(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app_of(runner, chat_template=TEMPLATE))
    async with httpx.AsyncClient(transport=transport, base_url="http://test/v1") as client:
        yield client


@pytest.fixture
def client(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="-", base_url="http://test/v1", http_client=http)


async def completed(http: httpx.AsyncClient, **body: Any) -> Any:
    answer = await http.post("/completions", json={"prompt": PROMPT, "ignore_eos": True} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_answer_is_the_completions(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    options: Any = {"n": 2, "max_tokens": 8, "seed": 5, "temperature": 0.7}
    answer = await client.chat.completions.create(
        model="toy", messages=MESSAGES, **options, extra_body={"ignore_eos": True}
    )
    same = await completed(http, **options)
    assert [choice.message.content for choice in answer.choices] == [
        choice["text"] for choice in same["choices"]
    ]
    assert {choice.message.role for choice in answer.choices} == {"assistant"}
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.usage and answer.usage.model_dump(exclude_none=True) == same["usage"]
    assert answer.system_fingerprint == same["system_fingerprint"]


async def test_a_stream_says_the_same(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    texts, roles, usage = ["", ""], [], None
    stream = await client.chat.completions.create(
        model="toy",
        messages=MESSAGES,
        n=2,
        max_completion_tokens=8,
        seed=5,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    async for chunk in stream:
        assert chunk.object == "chat.completion.chunk"
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.index] if choice.delta.role else []
        usage = chunk.usage or usage
    same = await completed(http, n=2, max_tokens=8, seed=5)
    assert texts == [choice["text"] for choice in same["choices"]]
    assert sorted(roles) == [0, 1]
    assert usage and usage.model_dump(exclude_none=True) == same["usage"]


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_are_in_chats_shape(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, stream: bool
) -> None:
    found: list[Any] = []
    options: Any = {"model": "toy", "messages": MESSAGES, "max_tokens": 4, "temperature": 0}
    options |= {"logprobs": True, "top_logprobs": 2, "extra_body": {"ignore_eos": True}}
    if stream:
        async for chunk in await client.chat.completions.create(**options, stream=True):
            found += chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else []
    else:
        answer = await client.chat.completions.create(**options)
        found = answer.choices[0].logprobs.content
    [choice] = (await completed(http, max_tokens=4, temperature=0, logprobs=2))["choices"]
    same = choice["logprobs"]
    spelt = b"".join(bytes(token.bytes) for token in found)
    assert spelt.decode(errors="replace") == choice["text"]
    assert [token.token for token in found] == same["tokens"]
    assert [token.logprob for token in found] == same["token_logprobs"]
    for token, top in zip(found, same["top_logprobs"], strict=True):
        assert {one.token: one.logprob for one in token.top_logprobs} == top


async def test_without_a_limit_the_context_is(http: httpx.AsyncClient) -> None:
    answer = await http.post("/chat/completions", json={"messages": MESSAGES, "ignore_eos": True})
    models = (await http.get("/models")).json()["data"]
    assert answer.json()["usage"]["total_tokens"] == models[0]["max_model_len"]


async def test_parts_of_text_are_joined(http: httpx.AsyncClient) -> None:
    parts = [{"type": "text", "text": "the"}, {"type": "text", "text": "end"}]
    bodies: list[Any] = [
        {"messages": [{"role": "user", "content": content, "refusal": None}], "tools": []}
        for content in (parts, "the\nend")
    ]
    answers = [
        await http.post("/chat/completions", json=body | {"max_tokens": 4, "temperature": 0})
        for body in bodies
    ]
    first, second = (answer.json() for answer in answers)
    assert first["choices"] == second["choices"] and first["usage"] == second["usage"]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": MESSAGES * 2049}, "messages", "at most 2048"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages", "'system'"),
        ({"messages": [{"role": "user"}]}, "messages", "messages[0].content is required"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "text"),
        ({"messages": [{"role": "user", "content": "a", "x": 1}]}, "messages", "x is not a field"),
        ({"messages": [{"role": "user", "content": "a" * 10_000}]}, "messages", "10000 characters"),
        ({"prompt": "a"}, "prompt", "not a field"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"chat_template": "{{ 1 }}"}, "chat_template", "not supported"),
        ({"response_format": {"type": "xml"}}, "response_format", 'must be {"type": "text"}'),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "give one of them"),
        ({"logprobs": 2}, "logprobs", "boolean"),
        ({"top_logprobs": 2}, None, "only allowed when logprobs is true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "between 0 and 20"),
        ({"temperature": -1}, "temperature", "temperature"),
        ({"nonsense": 1}, "nonsense", "not a field"),
        ([], None, "JSON object"),
    ],
)
async def test_what_is_wrong_is_named(
    http: httpx.AsyncClient, body: Any, param: str | None, words: str
) -> None:
    whole = {"messages": MESSAGES} | body if isinstance(body, dict) else body
    answer = await http.post("/chat/completions", json=whole)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param and words in error["message"], error


async def test_requests_changed_at_random_are_answered_or_refused(http: httpx.AsyncClient) -> None:
    """Never with a fault of the server's, and with a sentence where they are refused."""
    draw, statuses = random.Random(15), set[int]()
    whole = {
        "messages": [
            {"role": "system", "content": "the", "name": "a"},
            {"role": "user", "content": [{"type": "text", "text": "end"}], "refusal": None},
        ],
        "max_tokens": 2,
        "logprobs": True,
        "top_logprobs": 1,
        "tools": [],
        "stop": ["."],
        "temperature": 0,
        "response_format": {"type": "text"},
        "stream_options": None,
    }
    for _ in range(300):
        body = as_json(draw, mutated(draw, whole, draw.randint(1, 3)))
        answer = await http.post("/chat/completions", content=body)
        assert answer.status_code in (200, 400, 404, 413), (body[:2000], answer.text)
        statuses.add(answer.status_code)
        if answer.status_code != 200:
            assert answer.json()["error"]["message"], body[:2000]
    assert statuses >= {200, 400}


async def test_another_model_is_not_found(http: httpx.AsyncClient) -> None:
    answer = await http.post("/chat/completions", json={"messages": MESSAGES, "model": "gpt-4"})
    assert answer.status_code == 404
