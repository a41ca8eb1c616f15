"""Without a seed each request gets its own, and answers name it; with it they come again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from starlette.applications import Starlette

from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import (
    PythiaStub,
    add_PythiaServicer_to_server,
)
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.grpc.service import PythiaService
from pythia_bento.server.http import native, openai
from pythia_bento.settings import Settings

PROMPT = "Once upon a time"
TIMES = 4


@pytest.fixture(scope="module")
def runner() -> Iterator[PythiaRunner]:
    with PythiaRunner.load(Settings(model="bundled", device="cpu", kv_cache_gb=0.01)) as runner:
        yield runner


class Http:
    """Both routes that generate."""

    def __init__(self, runner: PythiaRunner) -> None:
        v1, root = openai.create_app(), native.create_app()
        v1.state.runner = root.state.runner = runner
        self._apps: dict[str, Starlette] = {"/completions": v1, "/generate": root}

    async def post(self, path: str, **fields: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._apps[path])
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, json={"prompt": PROMPT, "max_tokens": 24} | fields)

    async def answer(self, path: str, **fields: Any) -> tuple[int | None, Any]:
        """The seed and what was made, plain."""
        body = (await self.post(path, **fields)).json()
        made = body.get("choices") or body["outputs"]
        return body["seed"], made


@pytest.fixture
def http(runner: PythiaRunner) -> Http:
    return Http(runner)


@pytest.mark.parametrize("path", ["/completions", "/generate"])
async def test_each_request_has_a_seed_and_with_it_comes_again(http: Http, path: str) -> None:
    fields = {"temperature": 1, "n": 2, "logprobs": 1}
    answers = [await http.answer(path, **fields) for _ in range(TIMES)]
    assert len({made[0]["text"] for _, made in answers}) == TIMES
    for seed, made in answers:
        assert type(seed) is int and 0 <= seed < 2**53
        assert await http.answer(path, **fields, seed=seed) == (seed, made)


async def test_one_seed_is_for_all_prompts_of_a_request(http: Http) -> None:
    fields = {"prompt": [PROMPT, PROMPT, "Question:"], "temperature": 1}
    seed, choices = await http.answer("/completions", **fields)
    assert choices[0]["text"] == choices[1]["text"]
    assert await http.answer("/completions", **fields, seed=seed) == (seed, choices)


@pytest.mark.parametrize("path", ["/completions", "/generate"])
async def test_a_stream_ends_with_its_seed(http: Http, path: str) -> None:
    text = (await http.post(path, stream=True)).text
    *_, last, done = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert done == "[DONE]"
    event = httpx.Response(200, text=last).json()
    seed = event.get("summary", event)["seed"]
    again = (await http.post(path, stream=True, seed=seed)).text
    assert _texts(again) == _texts(text)
    assert _texts((await http.post(path, stream=True)).text) != _texts(text)


def _texts(stream: str) -> list[str]:
    events = [line.removeprefix("data: ") for line in stream.split("\n\n") if line][:-1]
    found = []
    for event in (httpx.Response(200, text=event).json() for event in events):
        found += [part["text"] for part in event.get("choices") or event["deltas"]]
    return found


@pytest.mark.parametrize("path", ["/completions", "/generate"])
@pytest.mark.parametrize("fields", [{"temperature": 0}, {"max_tokens": 0, "prompt_logprobs": 1}])
async def test_what_is_not_left_to_chance_needs_no_seed(
    http: Http, path: str, fields: dict[str, Any]
) -> None:
    first, again = [await http.answer(path, **fields) for _ in range(2)]
    assert first == again
    assert first[0] is None
    assert (await http.answer(path, **fields, seed=5)) == (5, first[1])


async def test_over_grpc(runner: PythiaRunner, http: Http) -> None:
    async with _stub(runner) as stub:
        seed, text = await _generated(stub)
        assert seed is not None and await _generated(stub, seed=seed) == (seed, text)
        assert (await _generated(stub))[1] != text
        assert (await _generated(stub, temperature=0))[0] is None
        assert (await _generated(stub, seed=-1))[0] == -1
    _, choices = await http.answer("/completions", seed=seed)
    assert choices[0]["text"] == text


async def _generated(stub: PythiaStub, **sampling: Any) -> tuple[int | None, str]:
    request = pb.GenerateRequest(
        prompt=pb.Prompt(text=PROMPT), sampling=pb.Sampling(max_tokens=24, **sampling)
    )
    parts = [part async for part in stub.Generate(request)]
    summary = parts[-1].summary
    text = "".join(delta.text for part in parts for delta in part.deltas)
    return (summary.seed if summary.HasField("seed") else None), text


class _stub:
    """A server of its own."""

    def __init__(self, runner: PythiaRunner) -> None:
        self._server = grpc.aio.server()
        add_PythiaServicer_to_server(PythiaService(runner), self._server)
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    async def __aenter__(self) -> PythiaStub:
        await self._server.start()
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}")
        return PythiaStub(self._channel)

    async def __aexit__(self, *exception: object) -> None:
        await self._channel.close()
        await self._server.stop(None)


async def test_a_default_seed_is_what_is_sampled_with() -> None:
    settings = Settings(model="bundled", device="cpu", kv_cache_gb=0.01, default_seed=2**64 - 1)
    with PythiaRunner.load(settings) as runner:
        http = Http(runner)
        first, again = [await http.answer("/completions") for _ in range(2)]
        assert first == again == await http.answer("/completions", seed=2**64 - 1)
        assert first[0] == 2**64 - 1
        async with _stub(runner) as stub:
            assert await _generated(stub) == (-1, first[1][0]["text"])
