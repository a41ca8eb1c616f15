"""Structured output over gRPC, plain and through the client."""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
import pytest

from pythia_bento.client import AsyncClient
from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.server.grpc.server import GrpcServer
from tests.constraints import CASES
from tests.grpc_parts import HOST
from tests.unit.engine.toy import POISON
from tests.unit.server.grpc.conftest import asked


def as_message(value: dict[str, Any]) -> dict[str, Any]:
    """A schema is a text there."""
    schema = value.get("json")
    return {"json": json.dumps(schema)} if isinstance(schema, dict) else value


@pytest.mark.parametrize("name", CASES)
async def test_every_kind(stub: PythiaStub, server: GrpcServer, name: str) -> None:
    case = CASES[name]
    options = {"max_tokens": 55, "seed": 3, "n": 2, "logit_bias": {POISON: -100.0}}
    request = asked("the", structured_outputs=as_message(case.value), **options)
    deltas = [delta async for message in stub.Generate(request) for delta in message.deltas]
    async with AsyncClient(f"grpc://{HOST}:{server.port}") as client:
        found = await client.generate("the", structured_outputs=case.value, **options)
    for index, output in enumerate(found.outputs):
        assert "".join(d.text for d in deltas if d.index == index) == output.text
        assert output.finish_reason == "length" or case.conforms(output.text), output.text
    assert "json" in name or any(output.finish_reason == "stop" for output in found.outputs)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"regex": "("}, "structured_outputs cannot be followed: "),
        ({"json": "[]"}, "structured_outputs.json must be a JSON schema that is an object"),
        ({"json": "{}", "regex": "a"}, "one of choice, regex, json and grammar"),
        ({}, "one of choice, regex, json and grammar"),
        ({"choice": [""]}, "texts that are not empty"),
        ({"grammar": "a" * 65537}, "longer than the limit of 65536 characters"),
    ],
)
async def test_what_is_wrong(stub: PythiaStub, value: dict[str, Any], words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [_ async for _ in stub.Generate(asked("a", structured_outputs=value))]
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in (caught.value.details() or "")


async def test_without_the_extra(stub: PythiaStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [_ async for _ in stub.Generate(asked("a", structured_outputs={"regex": "a"}))]
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "structured_outputs needs the extra `guided`" in (caught.value.details() or "")


@pytest.mark.parametrize("value", ["a", {"regex": 7}, {"nothing": "a"}])
async def test_what_no_message_can_hold(server: GrpcServer, value: Any) -> None:
    async with AsyncClient(f"grpc://{HOST}:{server.port}") as client:
        with pytest.raises(InvalidRequest, match="structured_outputs cannot be sent"):
            await client.generate("a", structured_outputs=value)
