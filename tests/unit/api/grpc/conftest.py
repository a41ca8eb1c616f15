"""A real server on loopback over the toy engine, and a channel to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from pythia_bento.api.access import AccessControl
from pythia_bento.api.grpc.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.api.grpc.server import GrpcServer
from pythia_bento.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.unit.toy_runner import toy_runner

HOST = "127.0.0.1"


@contextlib.asynccontextmanager
async def serving(runner: PythiaRunner, **settings: Any) -> AsyncIterator[GrpcServer]:
    """A server on a port of the system's choice, stopped at the end."""
    chosen = Settings(**{"grpc_host": HOST, "grpc_port": 0, "request_timeout": 10} | settings)
    server = GrpcServer(runner, chosen, AccessControl.from_settings(chosen))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


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
