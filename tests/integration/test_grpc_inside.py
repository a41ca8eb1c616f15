"""Activations and patches over gRPC: the bits of HTTP's, and memory that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from pythia_bento.client import AsyncClient, Client
from pythia_bento.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    PayloadTooLarge,
    PythiaError,
)
from pythia_bento.protocol import tensors
from pythia_bento.protocol.activations import Run, read
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.grpc import server as server_module
from pythia_bento.server.grpc.server import GrpcServer
from tests.integration.inside_server import bundled, by_http, over_http
from tests.unit.server.grpc.conftest import open_stub, serving
from tests.unit.turning import until

CLEAN, CORRUPTED = "Once upon a time", "Once upon the end"
RESID = "blocks.*.hook_resid_post"
DIRECTION = np.linspace(-1, 1, 128, dtype=np.float32)
ASKED: list[dict[str, Any]] = [
    {"prompts": CLEAN, "capture": RESID},
    {
        "prompts": [CLEAN, [5, 6, 7]],
        "capture": [
            {"site": "blocks.0.attn.hook_pattern", "heads": [1, 0]},
            {"site": "blocks.{0..1}.mlp.hook_post", "neurons": [3, 5], "positions": "generated"},
            {"site": RESID, "positions": [-1], "reduce": {"lens": {"top": 3, "tokens": [9]}}},
            {"site": "hook_embed", "positions": {"from": 1}, "reduce": "norm"},
            {"site": "blocks.1.hook_resid_pre", "reduce": {"project": DIRECTION}},
            {"site": "ln_final.hook_normalized", "reduce": {"project": [[1.0] * 128] * 2}},
        ],
        "dtype": "bfloat16",
        "logits": {"tokens": [7, 8], "positions": [0, -1]},
        **{"max_tokens": 4, "temperature": 0.9, "seed": 2**64 - 3, "logprobs": 2},
    },
    {
        "prompts": [CLEAN, CORRUPTED],
        "capture": {"site": RESID, "positions": "last"},
        "interventions": [
            {"site": "blocks.1.hook_resid_pre", "op": "add", "vector": DIRECTION, "scale": 0.5},
            {"site": "blocks.0.attn.hook_z", "op": "zero", "heads": [0], "positions": "prompt"},
            {
                **{"site": "blocks.2.hook_resid_pre", "op": "set", "positions": "last"},
                **{"from": {"prompt": 0}, "prompts": [1]},
            },
            {
                **{"site": RESID, "op": "clamp", "vector": [0.5] * 128, "low": -1.0},
                "positions": {"to": -1},
            },
        ],
        **{"max_tokens": 3, "temperature": 0},
    },
]


@pytest.fixture(scope="module")
def runner() -> Iterator[PythiaRunner]:
    with bundled() as runner:
        yield runner


@pytest.fixture
async def server(runner: PythiaRunner) -> AsyncIterator[GrpcServer]:
    async with serving(runner) as server:
        yield server


@pytest.fixture
async def client(server: GrpcServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(url(server)) as client:
        yield client


@pytest.fixture
async def stub(server: GrpcServer) -> AsyncIterator[PythiaStub]:
    async with open_stub(server.port) as stub:
        yield stub


@pytest.fixture
async def http(runner: PythiaRunner) -> AsyncIterator[httpx.AsyncClient]:
    async with over_http(runner) as client:
        yield client


def url(server: GrpcServer) -> str:
    return f"grpc://127.0.0.1:{server.port}"


def bits(run: Run) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (one.dtype, one.shape, bytes(one.data)) for name, one in run.stored.items()}


@pytest.mark.parametrize("asked", ASKED, ids=["plain", "everything", "changed"])
async def test_the_same_bits_as_over_http(
    client: AsyncClient, server: GrpcServer, http: httpx.AsyncClient, asked: dict[str, Any]
) -> None:
    expected, found = await by_http(http, asked), await client.activations(**asked)
    assert (found.model, found.fingerprint) == (expected.model, expected.fingerprint)
    assert len(found) == len(expected)
    with Client(url(server)) as blocking:
        again = await asyncio.to_thread(lambda: blocking.activations(**asked))
    for other in (found, again):
        for one, run in zip(other, expected, strict=True):
            assert bits(one) == bits(run)
            assert (one.tokens, one.token_ids) == (run.tokens, run.token_ids)
            assert one.completion == run.completion


async def test_patches_are_the_same(client: AsyncClient, http: httpx.AsyncClient) -> None:
    asks = [
        {"over": ["layer", "position"], "metric": {"logit_diff": [" time", 5]}},
        {"over": ["layer", "head"], "metric": {"logprob": 9}},
    ]
    for asked in asks:
        head = asked["over"] == ["layer", "head"]
        fields = {**asked, "site": "blocks.*.attn.hook_z" if head else "blocks.*.hook_resid_pre"}
        fields |= {"clean": [5, 6, 7], "corrupted": [5, 8, 7]}
        answer = await http.post("/patch", json=fields)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        found = await client.patch(**fields)
        assert found.values.tolist() == told["values"]
        assert (found.clean, found.corrupted) == (told["clean"], told["corrupted"])
        assert found.layers == tuple(told["layers"]) and found.tokens == tuple(told["tokens"])
        assert (found.positions, found.heads) == tuple(
            tuple(told.get(name, ())) for name in ("positions", "heads")
        )


async def test_the_parts_of_an_answer(stub: PythiaStub) -> None:
    request = pb.ActivationsRequest(
        prompts=[pb.Prompt(tokens=pb.TokenIds(ids=[5] * 500))] * 3,
        capture=[pb.Capture(site=RESID)],
        sampling=pb.Sampling(seed=7, max_tokens=2, ignore_eos=True),
    )
    parts = [part async for part in stub.Activations(request)]
    kinds = [part.WhichOneof("part") for part in parts]
    assert kinds == ["header", *["data"] * (len(parts) - 2), "summary"] and len(parts) > 4
    header, summary = parts[0].header, parts[-1].summary
    assert max(len(part.data) for part in parts) <= 2**20
    file = bytearray().join(part.data for part in parts)
    assert len(file) == header.nbytes and header.model == "bundled@step3000"
    stored, _ = tensors.read(file, tensors.ANSWER)
    assert [info.name for info in header.tensors] == list(stored)
    for info in header.tensors:
        one = stored[info.name]
        assert (info.dtype, tuple(info.shape)) == (one.dtype, one.shape)
        assert file[info.offset : info.offset + one.data.nbytes] == one.data
    told = (summary.num_prompt_tokens, summary.num_completion_tokens, summary.seed)
    assert told == (1500, 6, 7)
    assert len(read(file)) == 3


async def test_interventions_are_of_generate_too(
    client: AsyncClient, http: httpx.AsyncClient, runner: PythiaRunner
) -> None:
    steer = {"site": "blocks.1.hook_resid_pre", "op": "add", "vector": DIRECTION, "scale": 40.0}
    options: dict[str, Any] = {"max_tokens": 6, "temperature": 0}
    plain = await client.generate(CLEAN, **options)
    steered = await client.generate(CLEAN, interventions=[steer], **options)
    found = await client.activations(CLEAN, capture=[], interventions=[steer], **options)
    assert found[0].completion is not None
    assert steered.outputs[0].text == found[0].completion.text != plain.outputs[0].text
    body = {"prompt": CLEAN, "interventions": [{**steer, "vector": DIRECTION.tolist()}], **options}
    [choice] = (await http.post("/completions", json=body)).json()["choices"]
    assert steered.outputs[0].text == choice["text"]
    assert found.fingerprint == steered.summary.fingerprint
    assert found.fingerprint.startswith(f"{runner.info.fingerprint}+")
    with pytest.raises(InvalidRequest, match="from is not a field"):
        await client.generate(CLEAN, interventions=[{**steer, "from": {"prompt": 0}}])


REFUSED: list[tuple[dict[str, Any], type[PythiaError], str]] = [
    ({"capture": "blocks.16.hook_resid_post"}, InvalidRequest, "the model's layers are 0 to"),
    ({"capture": {"site": RESID, "depth": 3}}, InvalidRequest, "capture[0] cannot be sent"),
    ({"capture": {"site": RESID, "positions": [2**40]}}, InvalidRequest, "positions must be"),
    ({"capture": {"site": RESID, "positions": [5] * 3000}}, InvalidRequest, "1 to 2,048 integers"),
    ({"capture": {"site": RESID, "heads": [0] * 2000}}, InvalidRequest, "heads must have at most"),
    ({"capture": {"site": RESID, "reduce": "median"}}, InvalidRequest, "reduce must be"),
    ({"capture": {"site": RESID, "reduce": {"median": 1}}}, InvalidRequest, "cannot be sent"),
    ({"capture": [RESID] * 65}, InvalidRequest, "capture must have at most 64"),
    ({"prompts": ["a"] * 257}, InvalidRequest, "prompts must be a list of 1 to 256"),
    ({"prompts": []}, InvalidRequest, "prompts must be a list of 1 to 256"),
    ({"dtype": "float64"}, InvalidRequest, "dtype must be"),
    ({"n": 2}, InvalidRequest, "n must be 1"),
    ({"model": "gpt"}, ModelNotFound, "'gpt' is not served"),
    (
        {"interventions": [{"site": RESID, "op": "add", "vector": "v"}]},
        InvalidRequest,
        "interventions[0].vector is 'v', which is no tensor of this request",
    ),
    (
        {"interventions": [{"site": RESID, "op": "scale", "scale": float("nan")}]},
        InvalidRequest,
        "scale must be",
    ),
    (
        {"interventions": [{"site": RESID, "op": "add", "vector": DIRECTION[:5]}]},
        InvalidRequest,
        "interventions[0].vector",
    ),
    (
        {"interventions": [{"site": RESID, "op": "add", "vector": np.ones((6200, 128))}]},
        PayloadTooLarge,
        "tensors has 317",
    ),
]


@pytest.mark.parametrize(("fields", "kind", "words"), REFUSED)
async def test_bad_input(
    client: AsyncClient, fields: dict[str, Any], kind: type[PythiaError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        await client.activations(**{"prompts": CLEAN, "capture": RESID} | fields)
    assert words in caught.value.message


async def test_bad_patches(client: AsyncClient, stub: PythiaStub) -> None:
    for fields, words in (
        ({"site": "hook_embed"}, "which is in no layer"),
        ({"over": ["head", "layer"]}, "over must be"),
        ({"metric": ("logit_diff", " time, a")}, "metric"),
        ({"metric": {"prob": 3}}, "metric cannot be sent"),
        ({"corrupted": "Once"}, "they must have the same number"),
    ):
        asked = {"clean": CLEAN, "corrupted": CORRUPTED, "site": "blocks.*.hook_resid_pre"}
        with pytest.raises(InvalidRequest) as caught:
            await client.patch(**{**asked, "metric": ("logprob", 5), **fields})
        assert words in caught.value.message
    with pytest.raises(grpc.aio.AioRpcError) as empty:
        await stub.Patch(pb.PatchRequest())
    assert empty.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert empty.value.details() == "clean is required"


async def test_a_tensors_field_of_any_size_that_is_allowed(client: AsyncClient) -> None:
    rows = np.tile(DIRECTION, (6000, 1))  # 3,072,000 bytes
    spec = {"site": RESID, "reduce": {"project": rows[:1000]}, "positions": "last"}
    found = await client.activations(CLEAN, capture=spec)
    assert found[0]["blocks.0.hook_resid_post:project"].shape == (1, 1000)
    change = {"site": "blocks.0.hook_resid_pre", "op": "add", "vector": rows}
    with pytest.raises(InvalidRequest, match="6000"):
        await client.activations(CLEAN, capture=[], interventions=[change])


async def test_the_memory_of_a_call_that_was_left_comes_back(
    stub: PythiaStub, client: AsyncClient, runner: PythiaRunner
) -> None:
    request = pb.ActivationsRequest(
        prompts=[pb.Prompt(tokens=pb.TokenIds(ids=[5] * 500))] * 16,
        capture=[pb.Capture(site=RESID), pb.Capture(site="blocks.*.mlp.hook_post")],
    )
    call = stub.Activations(request)
    await call.read()
    assert reserved(runner) > 0
    call.cancel()
    await until(lambda: reserved(runner) == 0)
    with pytest.raises(DeadlineExceeded):
        await client.activations([[5] * 500] * 16, capture=RESID, timeout=0.01)
    await until(lambda: reserved(runner) == 0)


async def test_a_client_that_does_not_read_is_left(
    runner: PythiaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_keepalive", lambda seconds: [])  # pings have its time too
    async with serving(runner, client_timeout=1) as server, open_stub(server.port) as stub:
        request = pb.ActivationsRequest(
            prompts=[pb.Prompt(tokens=pb.TokenIds(ids=[5] * 500))] * 16,
            capture=[pb.Capture(site=RESID), pb.Capture(site="blocks.*.mlp.hook_post")],
        )
        call = stub.Activations(request)
        await call.read()
        await until(lambda: reserved(runner) == 0)
        call.cancel()


def reserved(runner: PythiaRunner) -> int:
    """Bytes of the arena that somebody has."""
    assert runner.arena is not None
    return runner.arena.used
