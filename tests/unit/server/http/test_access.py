"""API keys over HTTP: which paths need one, and how refusals look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.openapi.operations import OPERATIONS
from pythia_bento.settings import Settings
from tests.unit.conftest import MAX_BODY, app_of
from tests.unit.engine.gate import Gate
from tests.unit.runtime.toy_runner import settled, toy_runner

# The same in all of pytest's processes: they name tests.
ALICE, CAROL = (f"pb-{name:-<43}" for name in ("Alice", "Carol"))
BODY = {"prompt": "a", "max_tokens": 2}
# Written out: whoever opens a path to all has to say so here too.
OPEN = (
    *("/", "/docs", "/docs.json", "/playground", "/playground/{name}", "/static_content/{name}"),
    *("/livez", "/readyz", "/healthz", "/metrics", "/schema.json"),
    *("/health", "/ping", "/version", "/openapi.json", "/favicon.ico", "/steps"),
)
GENERATING = {
    *("/v1/completions", "/v1/chat/completions", "/v1/sweep", "/generate", "/generate_stream"),
    *("/v1/activations", "/v1/patch", "/v1/embeddings"),
}


def http(runner: PythiaRunner, **limits: int) -> httpx.AsyncClient:
    keys = SecretStr(f"alice {ALICE}, carol {CAROL} suspended")
    access = AccessControl.from_settings(Settings(api_keys=keys, **limits))
    transport = httpx.ASGITransport(app_of(runner, access))
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=bearer(ALICE))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def client(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    async with http(runner) as client:
        yield client


async def test_a_known_key_enters(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/completions", json=BODY)).status_code == 200
    assert (await client.get("/v1/models")).status_code == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models", "/none", "/v1//", "/livez/"])
@pytest.mark.parametrize("key", ["", "unknown", ALICE + "x"])
async def test_every_other_is_refused_alike(client: httpx.AsyncClient, path: str, key: str) -> None:
    response = await client.post(path, content=b"{" * MAX_BODY, headers=bearer(key))
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")


async def test_a_suspended_key_is_forbidden(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/models", headers=bearer(CAROL))
    assert (response.status_code, response.json()["error"]["code"]) == (403, "permission_denied")
    assert CAROL not in response.text


def test_nothing_is_open_but_what_is_meant_to_be() -> None:
    assert sorted(each.path for each in OPERATIONS if not each.needs_key) == sorted(OPEN)
    assert {each.path for each in OPERATIONS if each.generates} == GENERATING


@pytest.mark.parametrize("path", OPEN)
async def test_pages_and_probes_are_open(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path.replace("{name}", "a.js"), headers=bearer(""))
    assert response.status_code == 404  # none of them is part of this small application


@pytest.mark.parametrize(
    "path", ["/livez/", "/metrics/x", "/playground/", "/playgrounds", "/static_content", "/x/livez"]
)
async def test_what_looks_like_an_open_path_is_not(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path, headers=bearer(""))
    assert response.status_code == 401


async def test_preflights_are_open(client: httpx.AsyncClient) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Origin": "http://other"}
    for headers, status in ((asks, 405), ({}, 401)):
        response = await client.options("/v1/completions", headers={**headers, **bearer("")})
        assert response.status_code == status


async def test_too_many_a_minute(runner: PythiaRunner) -> None:
    async with http(runner, key_requests_per_minute=2) as client:
        answers = [await client.get("/v1/models") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert answers[2].json()["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_place_is_held_to_the_last_byte(stream: bool) -> None:
    body: dict[str, Any] = {"prompt": "a", "max_tokens": 30, "ignore_eos": True, "stream": stream}
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        async with http(runner, key_concurrent_requests=1) as client:
            first = asyncio.create_task(client.post("/v1/completions", json=body))
            gate.open(3)
            await gate.held()
            second = await client.post("/v1/completions", json=BODY)
            assert (second.status_code, second.headers["retry-after"]) == (429, "1")
            gate.open()
            assert (await first).status_code == 200
            settled(runner)
            assert (await client.post("/v1/completions", json=BODY)).status_code == 200


async def test_what_would_generate_is_refused_unread_while_the_engine_is_full() -> None:
    long = {"prompt": "a", "max_tokens": 30, "ignore_eos": True, "n": 4}
    sizes = {"max_batch_size": 2, "max_queue": 1, "caller_share": 1}
    gate = Gate()
    with toy_runner(gate=gate, **sizes) as runner:
        async with http(runner) as client:
            first = asyncio.create_task(client.post("/v1/completions", json=long))
            gate.open(1)
            await gate.held()
            refused = await client.post("/v1/completions", content=b"{")
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
            assert "3 sequences to work on, and 1 more" in refused.json()["error"]["message"]
            assert int(refused.headers["retry-after"]) >= 1
            assert (await client.post("/tokenize", json={"prompt": "a"})).status_code == 200
            gate.open()
            assert (await first).status_code == 200
            settled(runner)
            assert (await client.post("/v1/completions", content=b"{")).status_code == 400
