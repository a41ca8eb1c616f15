from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest
from _bentoml_impl.server.mount import PassiveMount
from starlette.applications import Starlette

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl, BodyRoom
from pythia_bento.server.http import openai, tokenizer
from pythia_bento.server.http.access import AccessMiddleware
from pythia_bento.server.http.body import RequestMiddleware
from pythia_bento.server.http.chat_template import ChatTemplate
from tests.unit.runtime.toy_runner import toy_runner

MAX_BODY = 100_000
MAX_OPEN = 4 * MAX_BODY


@pytest.fixture
def runner() -> Iterator[PythiaRunner]:
    with toy_runner() as runner:
        yield runner


@pytest.fixture
def app(runner: PythiaRunner) -> AccessMiddleware:
    """The OpenAI routes and the tokenizer's, as the service mounts them."""
    return app_of(runner)


@pytest.fixture
async def client(app: AccessMiddleware) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test/v1") as client:
        yield client


@pytest.fixture
def complete(client: httpx.AsyncClient) -> Callable:
    """Post a completion; the parsed answer."""

    async def post(**body: object) -> dict:
        response = await client.post("/completions", json={"prompt": "the end", **body})
        assert response.status_code == 200, response.text
        return response.json()

    return post


def app_of(
    runner: PythiaRunner | None,
    access: AccessControl | None = None,
    chat_template: ChatTemplate | None = None,
) -> AccessMiddleware:
    v1, root = openai.create_app(chat_template), tokenizer.create_app()
    v1.state.runner = root.state.runner = runner
    whole = Starlette(routes=[PassiveMount("/v1", v1), PassiveMount("/", root)])
    access = access or AccessControl(None)
    if runner is not None:
        access.check_room = runner.check_room
    return AccessMiddleware(RequestMiddleware(whole, MAX_BODY, BodyRoom(MAX_OPEN), 60), access)
