"""``/v1/models`` and ``model`` in requests over HTTP, of many checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
from _bentoml_impl.server.mount import PassiveMount
from starlette.applications import Starlette

from pythia_bento.catalog import TOKENS_PER_STEP
from pythia_bento.errors import CheckpointError
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl, BodyRoom
from pythia_bento.server.access.keys import read_keys
from pythia_bento.server.http import native, openai, tokenizer
from pythia_bento.server.http.access import AccessMiddleware
from pythia_bento.server.http.body import RequestMiddleware
from pythia_bento.server.http.chat_template import ChatTemplate
from pythia_bento.server.openapi.document import describe
from tests.unit.runtime.toy_runner import toy_runner
from tests.unit.runtime.toy_shelf import BROKEN, COLD, DEFAULT, STEPS, toy_shelf, toy_step

ASKED: dict[str, Any] = {"prompt": [5, 6, 7], "max_tokens": 8, "logprobs": 2, "seed": 1}
UNKNOWN, OTHER = "toy@step4", "other@step1"
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "the end"}],
    "max_tokens": 5,
    "seed": 1,
}


@pytest.fixture
def shelf() -> Iterator[PythiaRunner]:
    fault = CheckpointError("a.bin was changed")
    with toy_shelf(capacity=3, fault=fault, manage_models=True) as runner:
        yield runner


@pytest.fixture
async def http(shelf: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(shelf) as http:
        yield http


@contextlib.asynccontextmanager
async def asking(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    """All of the service's own routes for questions, under its rules of access."""
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", 10_000)
    apps = [("/v1", openai.create_app(template)), ("/", tokenizer.create_app())]
    apps.append(("/", native.create_app()))
    for _, app in apps:
        app.state.runner = runner
    whole = Starlette(routes=[PassiveMount(path, app) for path, app in apps])
    read = RequestMiddleware(whole, 10**6, BodyRoom(10**6), 60)
    transport = httpx.ASGITransport(
        AccessMiddleware(read, AccessControl(read_keys(runner.settings)))
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def post(http: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def comparable(answer: Any) -> Any:
    """Without what is of one answer alone."""
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", ASKED | {"echo": True, "n": 2}),
        ("/v1/chat/completions", CHAT),
        ("/generate", ASKED | {"prompt_logprobs": 1}),
    ],
)
async def test_each_step_answers_as_if_it_were_alone(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    steps = [step for step in (*STEPS, *STEPS) if f"toy@step{step}" != BROKEN]
    asked = (post(http, path, **body, model=f"toy@step{step}") for step in steps)
    answers = await asyncio.gather(*asked)
    for step, answer in zip(steps, answers, strict=True):
        assert answer["model"] == f"toy@step{step}"
        with toy_step(step) as runner:
            async with asking(runner) as alone:
                assert comparable(answer) == comparable(await post(alone, path, **body))


async def test_streams_name_who_answers(http: httpx.AsyncClient) -> None:
    for path, body in (("/v1/completions", ASKED | {"stream": True}), ("/generate_stream", ASKED)):
        response = await http.post(path, json=body | {"model": COLD})
        assert response.status_code == 200
        assert f'"model":"{COLD}"' in response.text.replace(": ", ":")


async def test_scores_of_many_in_one_request(http: httpx.AsyncClient) -> None:
    text = {"prompt": [5, 6, 7]}
    items = [text, text | {"model": COLD}, text | {"model": UNKNOWN}, text | {"model": DEFAULT}]
    second, first, unknown, third = await post(http, "/score", items=items, model="toy@step2")
    assert unknown["error"]["code"] == "model_not_found"
    wanted = [await post(http, "/score", items=[text], model=f"toy@step{n}") for n in (2, 1, 3)]
    assert [[second], [first], [third]] == wanted
    assert first != second != third


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", ASKED),
        ("/v1/chat/completions", CHAT),
        ("/generate", ASKED),
        ("/generate_stream", ASKED),
        ("/score", {"items": []}),
        ("/tokenize", {"prompt": "the end"}),
        ("/detokenize", {"tokens": [5]}),
        ("/v1/models/load", {}),
        ("/v1/models/unload", {}),
    ],
)
async def test_models_that_are_not_served(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    for name, status, code in (
        (UNKNOWN, 404, "model_not_found"),
        (OTHER, 400, "invalid_value"),
        ("", 404, "model_not_found"),
        (7, 400, "invalid_value"),
    ):
        response = await http.post(path, json=body | {"model": name})
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["code"]) == (status, "model", code)


async def test_a_checkpoint_that_cannot_be_loaded_fails_its_own_requests(
    http: httpx.AsyncClient,
) -> None:
    broken = http.post("/v1/completions", json=ASKED | {"model": BROKEN})
    response, answer = await asyncio.gather(broken, post(http, "/v1/completions", **ASKED))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "checkpoint_error")
    assert answer["model"] == DEFAULT
    card = (await http.get(f"/v1/models/{BROKEN}")).json()
    assert (card["state"], card["error"]) == ("failed", "a.bin was changed")


async def test_too_many_that_are_to_be_loaded() -> None:
    gate = threading.Event()
    with toy_shelf(gate=gate, max_cold=1) as runner:
        async with asking(runner) as http:
            waiting = []
            for number, model in enumerate((COLD, "toy@step2"), start=1):
                asked = http.post("/generate", json=ASKED | {"model": model})
                waiting.append(asyncio.create_task(asked))
                while (runner.stats().waiting, runner.stats().group.loading) != (number, 1):
                    await asyncio.sleep(0.001)
            refused = await http.post("/generate", json=ASKED | {"model": "toy@step5"})
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["param"] == "model"
            assert (await post(http, "/generate", **ASKED))["model"] == DEFAULT  # goes on
            gate.set()
            assert [(await one).status_code for one in waiting] == [200, 200]


async def test_cards_of_the_whole_shelf(http: httpx.AsyncClient, shelf: PythiaRunner) -> None:
    await post(http, "/v1/models/load", model="toy@step8", pin=True)
    listed = (await http.get("/v1/models")).json()
    ids = [card["id"] for card in listed["data"]]
    assert ids == [DEFAULT, "toy@step8", COLD, "toy@step2", "toy@step5", BROKEN]
    first, second, third = listed["data"][:3]
    assert [card["pinned"] for card in (first, second, third)] == [True, True, False]
    assert [card["state"] for card in (first, second, third)] == ["device", "device", "disk"]
    assert (second["step"], second["tokens_seen"]) == (8, 8 * TOKENS_PER_STEP)
    assert (second["nbytes"], second["weights"]) == (1008, "w8")
    assert second["last_used"] > third["last_used"] == 0
    assert second["system_fingerprint"] != third["system_fingerprint"]
    assert "error" not in second
    for card in listed["data"]:
        for name in (card["id"], *card["aliases"]):
            assert (await http.get(f"/v1/models/{name}")).json() == card
    document = describe(shelf)
    schema = {"$ref": "#/components/schemas/Models", "components": document["components"]}
    assert jsonschema_rs.Draft202012Validator(schema).is_valid(listed)


async def test_orders_to_load_and_unload(http: httpx.AsyncClient) -> None:
    loaded = await post(http, "/v1/models/load", model=COLD)
    assert (loaded["id"], loaded["state"], loaded["pinned"]) == (COLD, "device", False)
    assert (await post(http, "/v1/models/load", model=COLD, pin=True))["pinned"]
    assert (await post(http, "/v1/models/load", model=COLD))["pinned"]  # as it was
    last = await http.post("/v1/models/load", json={"model": "toy@step8", "pin": True})
    assert (last.status_code, last.json()["error"]["param"]) == (400, "pin")
    left = await post(http, "/v1/models/unload", model=f"owner/{COLD}")
    assert (left["id"], left["state"], left["pinned"]) == (COLD, "disk", False)
    assert (await post(http, "/v1/models/unload", model=COLD))["state"] == "disk"
    assert (await post(http, "/v1/completions", **ASKED, model=COLD))["model"] == COLD
    failed = await http.post("/v1/models/load", json={"model": BROKEN})
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "checkpoint_error")


@pytest.mark.parametrize("order", ["load", "unload"])
async def test_orders_that_nobody_may_give(order: str) -> None:
    path, body = f"/v1/models/{order}", {"model": COLD}
    with toy_shelf() as runner:
        async with asking(runner) as http:
            refused = await http.post(path, json=body | {"model": UNKNOWN})
            assert refused.status_code == 403
            assert refused.json()["error"]["code"] == "permission_denied"
            assert "PYTHIA_MANAGE_MODELS" in refused.json()["error"]["message"]
    key = "a-key-of-16-or-more"
    with toy_shelf(manage_models=True, api_keys=key) as runner:
        async with asking(runner) as http:
            assert (await http.post(path, json=body)).status_code == 401
            keyed = await http.post(path, json=body, headers={"authorization": f"Bearer {key}"})
            assert keyed.status_code == 200


@pytest.mark.parametrize("body", [{}, {"model": COLD, "pin": 1}, {"model": COLD, "pim": True}])
async def test_orders_that_make_no_sense(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await http.post("/v1/models/load", json=body)).status_code == 400


async def test_one_model_has_a_shelf_of_its_own() -> None:
    with toy_runner(manage_models=True) as runner:
        async with asking(runner) as http:
            [card] = (await http.get("/v1/models")).json()["data"]
            assert (card["state"], card["pinned"], card["step"]) == ("device", True, None)
            assert await post(http, "/v1/models/load", model="toy", pin=False) == card
            assert await post(http, "/v1/models/unload", model="toy") == card
