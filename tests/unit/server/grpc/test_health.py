from __future__ import annotations

import os
import signal
import threading
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pythia_bento.runtime import process
from tests.forkserver import CONTEXT
from tests.grpc_parts import HOST
from tests.unit.runtime.pool.toy_pool import engine, load_toy, pid, toy_pool
from tests.unit.server.grpc.conftest import serving


async def next_status(watch: Any) -> str:
    answer = await watch.read()
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def test_health_follows_engines_that_end_and_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process.multiprocessing, "get_context", lambda _: CONTEXT)
    may_start = threading.Event()
    may_start.set()
    with toy_pool(load_toy, starts=lambda: may_start.wait(60)) as runner:
        async with (
            serving(runner) as server,
            grpc.aio.insecure_channel(f"{HOST}:{server.port}") as channel,
        ):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert await next_status(watch) == "SERVING"
            may_start.clear()
            os.kill(pid(engine(runner, 0)), signal.SIGKILL)
            assert await next_status(watch) == "NOT_SERVING"
            may_start.set()
            assert await next_status(watch) == "SERVING"
            watch.cancel()
