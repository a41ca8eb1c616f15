"""What BentoML's routing would answer, without it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from _bentoml_impl.server.mount import PassiveMount
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.bentoml.direct_routes import DirectRoutes, routes_of
from pythia_bento.server.http import openai, pages, tokenizer
from pythia_bento.server.http.app import make_app

Mounts = list[tuple[Starlette, str]]


async def other(request: Request) -> Response:
    return PlainTextResponse("bentoml")


async def failing(request: Request) -> Response:
    raise ValueError("a secret")


def both(mounts: Mounts) -> tuple[Any, Any]:
    """The applications as BentoML routes to them, and behind the layer that does it directly."""
    routes = [PassiveMount(path.rstrip("/"), app) for app, path in mounts]
    whole = Starlette(routes=[*routes, Route("/other", other)])
    return whole, DirectRoutes(whole, routes_of(mounts))


async def answers(app: Any, method: str, path: str, body: Any) -> tuple[int, Any, Any]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.request(method, path, json=body)
    return response.status_code, response.headers.multi_items(), response.content


def steady(answer: tuple[int, Any, Any]) -> Any:
    """Without what differs from call to call."""
    status, headers, body = answer
    return status, headers, body.split(b'"choices"')[-1] if status == 200 else body


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/completions", {"prompt": "the end", "max_tokens": 3}),
        ("POST", "/v1/completions", {"prompt": "the end", "max_tokens": 3, "stream": True}),
        ("POST", "/v1/completions", {"prompt": 3}),
        ("GET", "/v1/completions", None),
        ("GET", "/v1/models", None),
        ("HEAD", "/v1/models", None),
        ("GET", "/v1/models/toy", None),
        ("POST", "/tokenize", {"prompt": "the end"}),
        ("POST", "/tokenize/", {"prompt": "the end"}),
        ("GET", "/playground", None),
        ("GET", "/playground/tokens.js", None),
        ("GET", "/other", None),
        ("GET", "/nowhere", None),
    ],
)
async def test_answers_are_those_of_the_router(
    runner: PythiaRunner, method: str, path: str, body: Any
) -> None:
    mounts = [
        (openai.create_app(), "/v1"),
        (tokenizer.create_app(), "/"),
        (pages.create_app(), "/"),
    ]
    for app, _ in mounts:
        app.state.runner = runner
    routed, direct = both(mounts)
    found = await answers(direct, method, path, body)
    if b"data: " in found[2] and path == "/v1/completions":  # events have ids in them
        assert found[0] == 200 and found[2].endswith(b"data: [DONE]\n\n")
    else:
        assert steady(found) == steady(await answers(routed, method, path, body))


async def test_what_nobody_expected_is_answered_the_same() -> None:
    routed, direct = both([(make_app([Route("/models", failing)]), "/v1")])
    found = await answers(direct, "GET", "/v1/models", None)
    assert found == await answers(routed, "GET", "/v1/models", None)
    assert found[0] == 500 and b"secret" not in found[2]


def test_whole_paths_of_operations_are_known_before() -> None:
    extra = make_app([Route("/not-an-operation", other)])
    assert set(routes_of([(openai.create_app(), "/v1"), (extra, "/")])) == {
        ("POST", "/v1/completions"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/sweep"),
        ("POST", "/v1/activations"),
        ("POST", "/v1/patch"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/models"),
        ("HEAD", "/v1/models"),
        ("POST", "/v1/models/load"),
        ("POST", "/v1/models/unload"),
    }


async def test_what_is_no_request_passes() -> None:
    passed: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    middleware: Any = DirectRoutes(inner, {})
    await middleware({"type": "lifespan"}, None, None)
    assert passed == ["lifespan"]
