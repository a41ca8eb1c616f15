"""A real server on loopback over the toy engine, and a channel to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.grpc.server import GrpcServer
from tests.grpc_parts import HOST, grpc_settings
from tests.unit.runtime.toy_runner import toy_runner


@contextlib.asynccontextmanager
async def serving(
    runner: PythiaRunner, access: AccessControl | None = None, **settings: Any
) -> AsyncIterator[GrpcServer]:
    """A server on a port of the system's choice, stopped at the end."""
    chosen = grpc_settings(**settings)
    if access is None:
        access = AccessControl.from_settings(chosen)
        access.check_room = runner.check_room
    server = GrpcServer(runner, chosen, access)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def open_stub(port: int, **options: Any) -> AsyncIterator[PythiaStub]:
    """A connection of one's own."""
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", **options) as channel:
        yield PythiaStub(channel)


def asked(prompt: str | list[int], **sampling: Any) -> pb.GenerateRequest:
    """A request to generate."""
    content = {"text": prompt} if isinstance(prompt, str) else {"tokens": {"ids": prompt}}
    return pb.GenerateRequest(prompt=content, sampling=sampling)


@pytest.fixture
async def runner() -> AsyncIterator[PythiaRunner]:
    with toy_runner() as runner:
        yield runner


@pytest.fixture
async def server(runner: PythiaRunner) -> AsyncIterator[GrpcServer]:
    async with serving(runner) as server:
        yield server


@pytest.fixture
async def channel(server: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"{HOST}:{server.port}") as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> PythiaStub:
    return PythiaStub(channel)
