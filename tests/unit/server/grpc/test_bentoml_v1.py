"""BentoML's own stubs, as its package has them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from pythia_bento.handlers.generate import generate
from pythia_bento.handlers.score import score
from pythia_bento.protocol import descriptor_pools
from pythia_bento.protocol.bodies import GenerateRequest
from pythia_bento.protocol.generated import bentoml_v1_pb2
from pythia_bento.runtime.runner import PythiaRunner
from tests.bentoml_stub import bentoml_stub


@pytest.fixture
def theirs() -> Iterator[tuple[ModuleType, ModuleType]]:
    with bentoml_stub() as modules:
        yield modules


async def test_their_symbols_and_ours_live_in_one_process(theirs: Any) -> None:
    messages, _ = theirs
    name = "bentoml.grpc.v1.Request"
    assert (
        descriptor_pools.BENTOML_V1.FindMessageTypeByName(name) is bentoml_v1_pb2.Request.DESCRIPTOR
    )
    assert messages.Request.DESCRIPTOR is not bentoml_v1_pb2.Request.DESCRIPTOR
    assert messages.Request.DESCRIPTOR.full_name == name


async def test_generate(channel: grpc.aio.Channel, runner: PythiaRunner, theirs: Any) -> None:
    body = {"prompt": "the end", "max_tokens": 5, "n": 2, "seed": 3, "logprobs": 1}
    answer = await call(channel, theirs, "generate", body)
    assert answer == await generate(runner, GenerateRequest(**body))


async def test_score(channel: grpc.aio.Channel, runner: PythiaRunner, theirs: Any) -> None:
    items = [{"prompt": "the end", "logprobs": 1}, {"prompt": 5}, {"prompt": [5, 6, 7]}]
    assert await call(channel, theirs, "score", {"items": items}) == await score(runner, items)


@pytest.mark.parametrize(
    ("api", "content", "words"),
    [
        ("predict", {"json": {}}, "api_name must be generate or score, not 'predict'"),
        ("generate", {}, "content must be json, not missing"),
        ("generate", {"serialized_bytes": b"{}"}, "content must be json, not serialized_bytes"),
        ("generate", {"text": "hello"}, "content must be json, not text"),
        ("generate", {"json": [1]}, "the body must be a JSON object"),
        ("generate", {"json": None}, "the body must be a JSON object"),
        ("generate", {"json": {}}, "prompt is required"),
        ("generate", {"json": {"prompt": "a", "n": 1.5}}, "n must be a valid integer"),
        ("generate", {"json": {"prompt": "a", "seed": 2.0**53}}, "seed holds 9007199254740992"),
        ("generate", {"json": {"prompt": "a", "stream": True}}, "stream must be false"),
        ("score", {"json": {}}, "items is required"),
        ("score", {"json": {"items": "a"}}, "items must be a valid list, not 'a'"),
        ("score", {"json": {"items": [], "modle": "a"}}, "modle is not a field"),
        ("score", {"json": {"items": [], "model": 7}}, "model must be a valid string, not 7"),
    ],
)
async def test_bad_calls(
    channel: grpc.aio.Channel, theirs: Any, api: str, content: dict[str, Any], words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(channel, theirs, api, **content)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in str(caught.value.details())


async def test_numbers_that_are_none(channel: grpc.aio.Channel, theirs: Any) -> None:
    request = theirs[0].Request(api_name="generate")
    request.json.struct_value.fields["temperature"].number_value = float("nan")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await theirs[1].BentoServiceStub(channel).Call(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_metadata(channel: grpc.aio.Channel, theirs: Any) -> None:
    messages, services = theirs
    stub = services.BentoServiceStub(channel)
    answer = await stub.ServiceMetadata(messages.ServiceMetadataRequest())
    assert answer.name == "pythia"
    assert {api.name: api.input.descriptor_id for api in answer.apis} == {
        "generate": "bentoml.io.JSON",
        "score": "bentoml.io.JSON",
    }


async def call(channel: grpc.aio.Channel, theirs: Any, api: str, body: Any) -> Any:
    """The JSON of an answer."""
    return json_format.MessageToDict((await send(channel, theirs, api, json=body)).json)


async def send(channel: grpc.aio.Channel, theirs: Any, api: str, **content: Any) -> Any:
    messages, services = theirs
    request = messages.Request(api_name=api)
    for name, value in content.items():
        if name == "json":
            json_format.ParseDict(value, request.json)
        elif name == "text":
            request.text.value = value
        else:
            setattr(request, name, value)
    return await services.BentoServiceStub(channel).Call(request)
