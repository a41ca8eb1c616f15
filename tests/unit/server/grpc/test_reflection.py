"""What ``grpcurl list`` and ``describe`` ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from pythia_bento.server.grpc.server import GrpcServer
from tests.grpc_parts import HOST


async def test_services_are_listed(server: GrpcServer) -> None:
    assert set(await _ask(server, lambda known: known.get_services())) == {
        "pythia.v1.Pythia",
        "bentoml.grpc.v1.BentoService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_services_are_described(server: GrpcServer) -> None:
    def methods(known: ProtoReflectionDescriptorDatabase) -> dict[str, list[str]]:
        pool = DescriptorPool(known)
        return {
            name: [method.name for method in pool.FindServiceByName(name).methods]
            for name in known.get_services()
        }

    described = await _ask(server, methods)
    assert described["pythia.v1.Pythia"] == [
        *("Info", "Models", "Generate", "Score", "Sweep", "Activations", "Patch"),
        *("Tokenize", "Detokenize"),
    ]
    assert described["bentoml.grpc.v1.BentoService"] == ["Call", "ServiceMetadata"]
    assert {"Check", "Watch"} <= set(described["grpc.health.v1.Health"])


async def test_a_call_from_nothing_but_the_descriptions(server: GrpcServer) -> None:
    """As grpcurl does it."""

    def tokenize(known: ProtoReflectionDescriptorDatabase) -> list[int]:
        service = DescriptorPool(known).FindServiceByName("pythia.v1.Pythia")
        method = service.methods_by_name["Tokenize"]
        request = GetMessageClass(method.input_type)(text="the end")
        with grpc.insecure_channel(f"{HOST}:{server.port}") as channel:
            data = channel.unary_unary("/pythia.v1.Pythia/Tokenize")(request.SerializeToString())
        return list(GetMessageClass(method.output_type).FromString(data).ids)

    assert len(await _ask(server, tokenize)) > 1


async def _ask(server: GrpcServer, question: Callable[[Any], Any]) -> Any:
    def ask() -> Any:
        with grpc.insecure_channel(f"{HOST}:{server.port}") as channel:
            return question(ProtoReflectionDescriptorDatabase(channel))

    return await asyncio.to_thread(ask)
