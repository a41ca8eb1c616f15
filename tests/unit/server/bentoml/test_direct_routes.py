"""What BentoML's routing would answer, without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from _bentoml_impl.server import app as bentoml_app
from _bentoml_impl.server.mount import PassiveMount
from bentoml._internal.context import ServiceContext
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.bentoml import direct_routes
from pythia_bento.server.http import openai, tokenizer
from pythia_bento.server.http.app import make_app

CONTEXT = bentoml_app.ContextMiddleware


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(direct_routes, "_direct", {})
    monkeypatch.setattr(bentoml_app, "ContextMiddleware", CONTEXT)
    yield


async def other(request: Request) -> Response:
    return PlainTextResponse("bentoml")


async def failing(request: Request) -> Response:
    raise ValueError("a secret")


def both(mounts: dict[str, Starlette]) -> tuple[Any, Any]:
    """The applications behind BentoML's middleware, and behind the one that is put in its place."""
    routes = [PassiveMount(prefix, app) for prefix, app in mounts.items()]
    whole = Starlette(routes=[*routes, Route("/other", other)])
    direct_routes.install(mounts)
    return tuple(
        middleware(whole, context=ServiceContext())
        for middleware in (CONTEXT, bentoml_app.ContextMiddleware)
    )


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
        ("GET", "/other", None),
        ("GET", "/nowhere", None),
    ],
)
async def test_answers_are_those_of_the_router(
    runner: PythiaRunner, method: str, path: str, body: Any
) -> None:
    mounts = {"/v1": openai.create_app(), "": tokenizer.create_app()}
    for app in mounts.values():
        app.state.runner = runner
    routed, direct = both(mounts)
    found = await answers(direct, method, path, body)
    if b"data: " in found[2]:  # events have ids in them
        assert found[0] == 200 and found[2].endswith(b"data: [DONE]\n\n")
    else:
        assert steady(found) == steady(await answers(routed, method, path, body))


async def test_what_nobody_expected_is_answered_the_same() -> None:
    routed, direct = both({"/v1": make_app([Route("/fail", failing)])})
    found = await answers(direct, "GET", "/v1/fail", None)
    assert found == await answers(routed, "GET", "/v1/fail", None)
    assert found[0] == 500 and b"secret" not in found[2]


async def test_only_whole_paths_are_known_before() -> None:
    both({"/v1": openai.create_app()})
    assert set(direct_routes._direct) == {
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("HEAD", "/v1/models"),
    }
    passed: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    middleware: Any = bentoml_app.ContextMiddleware(inner, context=ServiceContext())
    await middleware({"type": "lifespan"}, None, None)
    assert passed == ["lifespan"]
