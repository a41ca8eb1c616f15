"""What is left behind: nothing, however a call or the server ends."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.grpc.interceptors import SERVICES
from pythia_bento.server.grpc.server import GrpcServer
from pythia_bento.settings import SettingsError
from tests.amounts import amounts
from tests.grpc_parts import HOST, grpc_settings
from tests.unit.engine.gate import Gate, Slow
from tests.unit.runtime.toy_runner import POISON, ordered, settled, toy_runner
from tests.unit.server.grpc.conftest import asked, open_stub, serving
from tests.unit.turning import until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LONG = asked("a", max_tokens=60, ignore_eos=True)


async def test_cancelling_frees_the_sequences() -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        async with serving(runner) as server, open_stub(server.port) as stub:
            call = stub.Generate(asked("a", max_tokens=60, n=4, ignore_eos=True))
            gate.open(2)
            await call.read()
            await gate.held()
            assert runner.stats().blocks_used > 0
            call.cancel()
            await ordered(runner)
            gate.open()
            settled(await _later(runner))
            assert runner.stats().generation_tokens < 4 * 60
            await _counted(server, "CANCELLED")


async def test_the_deadline_frees_the_sequences() -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        async with serving(runner) as server, open_stub(server.port) as stub:
            gate.open(1)
            for seconds in (0.2, 2, 20):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    async for _ in stub.Generate(LONG, timeout=seconds):
                        pass
                assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
                if runner.stats().generation_tokens:  # it had begun
                    break
            await until(lambda: _count(server, "DEADLINE_EXCEEDED"))
            gate.open()
            settled(await _later(runner))
            assert 0 < runner.stats().generation_tokens < 60


async def test_the_servers_own_limit_holds_too() -> None:
    with toy_runner(gate=Gate(), request_timeout=0.2) as runner:
        async with serving(runner) as server, open_stub(server.port) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.Generate(LONG, timeout=60):
                    pass
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            # The second is said of one that the engine has not begun by then.
            assert re.search(
                "within 0.2 seconds|the request's deadline passed", str(caught.value.details())
            )


async def test_a_connection_that_breaks_frees_the_sequences() -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        async with serving(runner) as server:
            async with open_stub(server.port) as stub:
                calls = [stub.Generate(LONG) for _ in range(4)]
                await until(lambda: len(runner._thread._states) == 4)
                gate.open(3)
                await asyncio.gather(*(call.read() for call in calls))
                await gate.held()
            await until(lambda: len(runner._thread._orders) == 4)
            gate.open()
            settled(await _later(runner))
            assert runner.stats().generation_tokens < 4 * 60


@amounts(300, 1000)
async def test_many_streams_opened_and_dropped_leave_nothing(amount: int) -> None:
    process = psutil.Process()
    with toy_runner(gate=Slow()) as runner:
        async with serving(runner) as server, open_stub(server.port) as stub:
            await _open_and_drop(stub, 0)
            settled(await _later(runner))
            for _ in range(20):  # the loop has nothing to do for it
                await asyncio.sleep(0.01)
            tasks, handles = len(asyncio.all_tasks()), process.num_fds()
            for start in range(0, amount, 50):
                await asyncio.gather(*(_open_and_drop(stub, i) for i in range(start, start + 50)))
            settled(await _later(runner))
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            await until(lambda: process.num_fds() <= handles)
            open_calls = 'pythia_grpc_open_calls{method="/pythia.v1.Pythia/Generate"}'
            await until(lambda: f"{open_calls} 0.0" in server.metrics())
            # Those of which nothing was read may have been dropped before the server knew.
            assert _count(server, "CANCELLED") + _count(server, "OK") >= amount * 2 // 3


async def test_health_follows_the_server(runner: PythiaRunner) -> None:
    server = GrpcServer(runner, grpc_settings(), AccessControl(None))
    channel = grpc.aio.insecure_channel(f"{HOST}:{server.port}")
    stub = health_pb2_grpc.HealthStub(channel)
    await server.start()
    for service in ("", *SERVICES):
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await stub.Check(request)).status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    await channel.close()
    await server.stop()


async def test_unhealthy_before_the_last_answer_is_given() -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        server = GrpcServer(runner, grpc_settings(), AccessControl(None))
        await server.start()
        async with (
            grpc.aio.insecure_channel(f"{HOST}:{server.port}") as channel,
            open_stub(server.port) as stub,
        ):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            call = stub.Generate(asked("a", max_tokens=20, ignore_eos=True))
            gate.open(2)
            await call.read()
            stopping = asyncio.create_task(server.stop())
            assert (await watch.read()).status == NOT_SERVING
            watch.cancel()
            gate.open()
            messages = []
            while (message := await call.read()) is not grpc.aio.EOF:
                messages.append(message)
            assert messages[-1].HasField("summary")  # open calls are finished
            await stopping


async def test_a_dead_engine_is_not_healthy() -> None:
    with toy_runner() as runner:
        async with serving(runner) as server:
            async with grpc.aio.insecure_channel(f"{HOST}:{server.port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                watch = stub.Watch(health_pb2.HealthCheckRequest())
                assert (await watch.read()).status == SERVING
                await asyncio.to_thread(runner.close)
                assert (await watch.read()).status == NOT_SERVING
                watch.cancel()
            async with open_stub(server.port) as opened:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await opened.Generate(LONG).read()
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_is_gone_when_it_is_answered_leaves_no_traceback(
    server: GrpcServer, caplog: Any
) -> None:
    """grpc writes one where its own answer comes too late; others of its lines stay."""
    library = logging.getLogger("grpc._cython.cygrpc")
    for error in (grpc.aio.InternalError("gone"), ValueError("another")):
        try:
            raise error
        except Exception:
            library.exception("raised")
    assert [record.exc_info[0] for record in caplog.records] == [ValueError]


async def test_a_port_in_use_is_a_clear_error(runner: PythiaRunner, server: GrpcServer) -> None:
    with pytest.raises(SettingsError, match=rf"{HOST}:{server.port} \(PYTHIA_GRPC_HOST, PYTHIA"):
        GrpcServer(runner, grpc_settings(grpc_port=server.port), AccessControl(None))


async def _open_and_drop(stub: Any, number: int) -> None:
    """Before the first message, after it, or after some."""
    safe = {"logit_bias": {POISON: -100}}  # which a stream comes upon when the machine is busy
    call = stub.Generate(asked([5, 6 + number % 90], max_tokens=50, ignore_eos=True, **safe))
    if number % 3:
        for _ in range(number % 3):
            await call.read()
    else:
        await asyncio.sleep(number % 7 / 1000)
    call.cancel()


async def _later(runner: PythiaRunner) -> PythiaRunner:
    """The server has to run to see that a call has ended: wait here, not in ``settled``."""
    await until(lambda: runner.stats().running == runner.stats().waiting == 0)
    return runner


async def _counted(server: GrpcServer, code: str) -> None:
    """One call with this end; the client may know of it before the server has counted it."""
    await until(lambda: _count(server, code) == 1)


def _count(server: GrpcServer, code: str) -> int:
    labels = f'code="{code}",method="/pythia.v1.Pythia/Generate"'
    name = f"pythia_grpc_calls_total{{{labels}}} "
    found = [line for line in server.metrics().splitlines() if line.startswith(name)]
    return int(float(found[0].rpartition(" ")[2])) if found else 0
