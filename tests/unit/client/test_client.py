"""The client over gRPC against a real server; over HTTP and against each other: tests/e2e."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from pythia_bento.client import AsyncClient, Client, Part, Score, ScoreItem
from pythia_bento.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    ModelNotFound,
    NonFiniteLogits,
    Overloaded,
    PayloadTooLarge,
    PythiaError,
    Unauthenticated,
)
from pythia_bento.runtime.runner import PythiaRunner
from tests.e2e.serving import free_port
from tests.grpc_parts import HOST, background_server
from tests.unit.engine.gate import Gate
from tests.unit.engine.toy import POISON
from tests.unit.runtime.toy_runner import INFO, ordered, settled, toy_runner

KEY = "a-long-enough-key-for-alice-0123456789"


@pytest.fixture(scope="module")
def gate() -> Gate:
    gate = Gate()
    gate.open()
    return gate


@pytest.fixture(scope="module")
def runner(gate: Gate) -> Iterator[PythiaRunner]:
    with toy_runner(gate=gate) as runner:
        yield runner


@pytest.fixture(scope="module")
def url(runner: PythiaRunner) -> Iterator[str]:
    with background_server(runner, max_body_bytes=100_000) as port:
        yield f"grpc://{HOST}:{port}"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=60) as client:
        yield client


@pytest.fixture
async def aclient(url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(url, timeout=60) as client:
        yield client


async def test_both_clients_say_the_same(client: Client, aclient: AsyncClient) -> None:
    options: dict[str, Any] = {"max_tokens": 9, "n": 2, "seed": 2**64 - 1, "logprobs": 2}
    generation = client.generate("the end", **options)
    assert generation.outputs == (await aclient.generate("the end", **options)).outputs
    assert generation.outputs == client.generate("the end", **options | {"seed": -1}).outputs
    assert generation.text == generation.outputs[0].text
    assert all(len(output.tokens) == len(output.token_ids) == 9 for output in generation.outputs)
    items = [ScoreItem("the end", logprobs=1), ScoreItem([5, 6], " all"), ScoreItem("")]
    scores = client.score(items)
    again = await aclient.score(items)
    assert scores[:2] == again[:2]
    assert isinstance(scores[0], Score) and scores[0].num_tokens == len(scores[0].tokens)
    assert isinstance(scores[2], InvalidRequest) and isinstance(again[2], InvalidRequest)
    ids = client.tokenize("the end")
    assert ids == await aclient.tokenize("the end")
    assert client.detokenize(ids) == await aclient.detokenize(ids) == "the end"
    assert client.info() == await aclient.info()
    assert client.info().model == INFO.id
    [state] = client.models()
    assert [state] == await aclient.models()
    assert (state.model, state.state, state.pinned) == (INFO.id, "device", True)
    assert client.info() == client.info(INFO.id) == await aclient.info("toy")


async def test_the_model_of_each_call(client: Client, aclient: AsyncClient) -> None:
    """The toy's other names are refused by every call: each has told the server."""
    items = [ScoreItem("the end", model="toy"), ScoreItem("the end", model="tooy")]
    scored, refused = client.score(items, model="toy@main")
    assert isinstance(scored, Score) and isinstance(refused, ModelNotFound)
    assert client.generate("a", model="toy", max_tokens=1).summary.model == INFO.id
    assert client.detokenize(client.tokenize("the end", model="toy"), model="toy") == "the end"
    for ask in (
        lambda: client.info("tooy"),
        lambda: client.generate("a", model="tooy"),
        lambda: client.score([], model="tooy"),
        lambda: client.tokenize("a", model="tooy"),
        lambda: client.detokenize([5], model="tooy"),
    ):
        with pytest.raises(ModelNotFound, match="'tooy' is not served here"):
            ask()
    for refusal in (
        aclient.info("tooy"),
        aclient.generate("a", model="tooy"),
        aclient.score([], model="tooy"),
        aclient.tokenize("a", model="tooy"),
        aclient.detokenize([5], model="tooy"),
    ):
        with pytest.raises(ModelNotFound):
            await refusal
    with pytest.raises(InvalidRequest, match="model cannot be sent"):
        client.generate("a", model="\ud800")


async def test_streams(client: Client, aclient: AsyncClient) -> None:
    options: dict[str, Any] = {"max_tokens": 20, "ignore_eos": True}
    parts = list(client.stream([5, 6, 7], **options))
    assert [part.summary is None for part in parts] == [True] * (len(parts) - 1) + [False]
    again: list[Part] = [part async for part in aclient.stream([5, 6, 7], **options)]
    assert [d.token_ids for part in parts for d in part.deltas] != []
    assert sum((d.token_ids for part in parts for d in part.deltas), ()) == sum(
        (d.token_ids for part in again for d in part.deltas), ()
    )


async def test_closing_a_stream_ends_the_request(
    client: Client, aclient: AsyncClient, runner: PythiaRunner, gate: Gate
) -> None:
    settled(runner)
    before = runner.stats().generation_tokens
    gate.shut()
    gate.open(2)
    stream = client.stream("a", max_tokens=55, ignore_eos=True)
    next(stream)
    await gate.held()
    stream.close()
    await ordered(runner)
    gate.open(2)
    async with aclosing(aclient.stream("a", max_tokens=55, ignore_eos=True)) as parts:
        await anext(parts)
        await gate.held()
    await ordered(runner)
    gate.open()
    settled(runner)
    assert runner.stats().generation_tokens - before < 55


BAD: list[tuple[dict[str, Any], type[PythiaError], str | None, str]] = [
    ({"prompt": ""}, InvalidRequest, "prompt", "prompt is empty"),
    ({"prompt": [-1]}, InvalidRequest, "prompt", "prompt cannot be sent"),
    ({"prompt": "\ud800"}, InvalidRequest, "prompt", "prompt cannot be sent"),
    ({"max_tokens": 2**40}, InvalidRequest, "max_tokens", "max_tokens cannot be sent"),
    ({"max_tokens": "5"}, InvalidRequest, "max_tokens", "max_tokens cannot be sent"),
    ({"max_tokens": 99}, ContextLengthExceeded, "max_tokens", "context is 64"),
    ({"temperature": -1}, InvalidRequest, "temperature", "temperature must be"),
    ({"prompt": [POISON]}, NonFiniteLogits, None, "not finite"),
    ({"prompt": "a" * 100_001}, PayloadTooLarge, None, "100000"),
]


@pytest.mark.parametrize(("options", "kind", "param", "words"), BAD)
async def test_leaves_of_the_tree_come_back(
    client: Client,
    aclient: AsyncClient,
    options: dict[str, Any],
    kind: type[PythiaError],
    param: str | None,
    words: str,
) -> None:
    options = {"prompt": "a", "max_tokens": 5} | options
    with pytest.raises(kind) as caught:
        client.generate(**options)
    assert (type(caught.value), caught.value.param) == (kind, param)
    assert words in caught.value.message
    with pytest.raises(kind) as again:
        await aclient.generate(**options)
    assert (type(again.value), again.value.param) == (kind, param)


async def test_what_is_late(client: Client, aclient: AsyncClient, gate: Gate) -> None:
    gate.shut()
    with pytest.raises(DeadlineExceeded):
        client.generate("a", timeout=0.02)
    with pytest.raises(DeadlineExceeded):
        await aclient.generate("a", timeout=0.02)
    gate.open()


def test_unknown_options_are_mistakes(client: Client) -> None:
    with pytest.raises(TypeError, match="temprature is not an option"):
        client.generate("a", temprature=1)  # type: ignore[call-arg]


def test_nobody_there() -> None:
    for scheme in ("grpc", "http"):
        with (
            Client(f"{scheme}://{HOST}:{free_port()}", timeout=60) as client,
            pytest.raises(EngineUnavailable),
        ):
            client.tokenize("a")


@pytest.mark.parametrize("url", ["localhost:3001", "ftp://a", "grpc://", ""])
def test_urls_of_another_kind(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with http, https, grpc or grpcs"):
        Client(url)


def test_keys_and_when_to_come_again(runner: PythiaRunner) -> None:
    limits = {"api_keys": f"alice {KEY}", "key_requests_per_minute": 1}
    with background_server(runner, **limits) as port:
        url = f"grpc://{HOST}:{port}"
        with Client(url) as client, pytest.raises(Unauthenticated):
            client.tokenize("a")
        with Client(url, api_key=KEY) as client:
            assert client.tokenize("a")
            with pytest.raises(Overloaded) as caught:
                client.tokenize("a")
            assert caught.value.retry_after > 1


def test_neither_torch_nor_bentoml_is_needed() -> None:
    code = (
        "import sys; from pythia_bento.client import Client; "
        "assert not {'grpc', 'httpx2'} & sys.modules.keys(); "
        "Client('grpc://localhost:1').close(); Client('http://localhost:1').close(); "
        "assert {'grpc', 'httpx2'} <= sys.modules.keys(); "
        "assert not {'torch', 'bentoml', 'pydantic', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
