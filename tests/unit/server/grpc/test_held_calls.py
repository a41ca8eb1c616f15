"""Calls that are open and send nothing, and floods of calls: bounded, told why, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.grpc import server as server_module
from pythia_bento.server.grpc.server import GrpcServer
from tests import raw_http2
from tests.grpc_parts import HOST, grpc_settings
from tests.unit import turning
from tests.unit.engine.gate import Gate
from tests.unit.runtime.toy_runner import toy_runner
from tests.unit.server.grpc.conftest import asked, open_stub, serving
from tests.unit.server.grpc.test_errors import details_of

INFO, GENERATE = "/pythia.v1.Pythia/Info", "/pythia.v1.Pythia/Generate"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
OTHERS = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", REFLECTION)
METHODS = (INFO, GENERATE, "/bentoml.grpc.v1.BentoService/Call", *OTHERS)
KEY = "a-long-enough-key-for-alice-0123456789"
BEARER = ("authorization", f"Bearer {KEY}")
SECONDS = 60  # more than anything here takes


async def silence() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


@contextlib.asynccontextmanager
async def channel_to(server: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    """A connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"{HOST}:{server.port}", options) as channel:
        yield channel


def silent(channel: grpc.aio.Channel, method: str) -> Any:
    """A call whose message never comes."""
    return channel.stream_stream(method)(silence(), timeout=SECONDS)


async def failed(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await call.read() is not grpc.aio.EOF:
            pass
    return caught.value


def counted(server: GrpcServer) -> dict[tuple[str, str], int]:
    return dict(server._metrics._ended)


async def until(server: GrpcServer, waiting: int) -> None:
    await turning.until(lambda: len(server._arrivals._calls) == waiting)


@pytest.mark.parametrize("method", METHODS)
async def test_a_message_that_does_not_come(
    runner: PythiaRunner, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_keepalive", lambda seconds: [])  # pings have its time too
    async with serving(runner, client_timeout=1) as server, channel_to(server) as channel:
        errors = await asyncio.gather(*(failed(silent(channel, method)) for _ in range(3)))
        assert {(error.code().name, error.details()) for error in errors} == {
            ("DEADLINE_EXCEEDED", "the message did not arrive within 1 seconds")
        }
        await until(server, 0)
        expected = {} if method in OTHERS else {(method, "DEADLINE_EXCEEDED"): 3}
        await turning.until(lambda: counted(server) == expected)


async def test_a_key_is_asked_for_before_the_message_comes(runner: PythiaRunner) -> None:
    async with serving(runner, api_keys=f"alice {KEY}") as server, channel_to(server) as channel:
        error = await failed(silent(channel, INFO))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_no_message_at_all(runner: PythiaRunner, server: GrpcServer) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    async with channel_to(server) as channel:
        error = await failed(channel.stream_stream(INFO)(nothing(), timeout=SECONDS))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "the call has no message",
    )


async def test_the_oldest_ends_where_too_many_wait(
    runner: PythiaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MOST_ARRIVING", 3)
    async with serving(runner) as server, channel_to(server) as channel:
        calls = []
        for number in range(5):
            calls.append(asyncio.create_task(failed(silent(channel, INFO))))
            await until(server, min(number + 1, 3))
        error, _ = await asyncio.gather(*calls[:2])
        assert not any(call.done() for call in calls[2:])
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(error)[RetryInfo].retry_delay.seconds == 1
        async with open_stub(server.port) as stub:
            assert (await stub.Info(pb.InfoRequest())).model  # who comes finds an open door
        await turning.until(lambda: counted(server)[INFO, "RESOURCE_EXHAUSTED"] >= 2)


async def test_the_oldest_watcher_ends_where_there_are_too_many(
    runner: PythiaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MOST_WATCHING", 3)
    async with serving(runner) as server, channel_to(server) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = []
        for _ in range(4):
            watches.append(stub.Watch(health_pb2.HealthCheckRequest()))
            assert (await watches[-1].read()).status == health_pb2.HealthCheckResponse.SERVING
        assert (await failed(watches[0])).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not any(watch.done() for watch in watches[1:])


async def test_stopping_waits_for_none_of_them(runner: PythiaRunner) -> None:
    chosen = grpc_settings(client_timeout=3600)
    server = GrpcServer(runner, chosen, AccessControl.from_settings(chosen))
    await server.start()
    async with channel_to(server) as channel:
        calls = [silent(channel, method) for method in METHODS]
        await until(server, len(METHODS))
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        await asyncio.wait_for(server.stop(), SECONDS)
        errors = [await failed(call) for call in (*calls, watch)]
    assert {(error.code().name, error.details()) for error in errors} == {
        ("UNAVAILABLE", "the server is shutting down")
    }


@pytest.mark.parametrize("most", [1024, 100])
async def test_a_connection_s_streams_are_bounded(runner: PythiaRunner, most: int) -> None:
    def ask(server: GrpcServer) -> tuple[dict[int, int], list[raw_http2.Frame]]:
        with contextlib.closing(raw_http2.Connection(server.port)) as connection:
            frames = connection.frames()
            settings = raw_http2.settings_of(next(frames))
            for number in range(most + 50):
                connection.send(raw_http2.call(2 * number + 1, INFO))
            ended = (found for found in frames if found.kind == raw_http2.RST_STREAM)
            return settings, [next(ended) for _ in range(50)]

    chosen = {} if most == 1024 else {"grpc_streams": most}
    async with serving(runner, **chosen) as server:
        settings, refused = await asyncio.to_thread(ask, server)
    assert settings[raw_http2.MAX_CONCURRENT_STREAMS] == most
    assert {found.stream for found in refused} == {2 * (most + n) + 1 for n in range(50)}
    assert {found.payload[-1] for found in refused} == {raw_http2.REFUSED_STREAM}


async def test_who_asks_more_at_once_than_a_connection_may_waits(runner: PythiaRunner) -> None:
    """In its own library. A call that was answered and is not forgotten yet holds no place."""
    async with serving(runner, grpc_streams=8) as server, open_stub(server.port) as stub:
        answers = await asyncio.gather(*(stub.Info(pb.InfoRequest()) for _ in range(500)))
    assert len(answers) == 500


async def test_a_client_that_answers_no_ping_is_closed(runner: PythiaRunner) -> None:
    """Its system lives, and acknowledges what arrives."""

    def listen(port: int) -> list[raw_http2.Frame]:
        with contextlib.closing(raw_http2.Connection(port)) as connection:
            return list(connection.frames())

    async with serving(runner, client_timeout=1) as server:
        frames = await asyncio.to_thread(listen, server.port)
    assert raw_http2.PING in {found.kind for found in frames}
    assert frames[-1].kind == raw_http2.GOAWAY and b"ping_timeout" in frames[-1].payload


@pytest.mark.long
async def test_thousands_at_once_are_told_to_come_again() -> None:
    """None of them by the library, which says CANCELLED, of no use, and tells nobody."""
    sizes = {"max_batch_size": 1, "max_queue": 0}
    gate = Gate()
    with toy_runner(gate=gate, **sizes) as runner:
        async with serving(runner) as server, contextlib.AsyncExitStack() as stack:
            stub = await stack.enter_async_context(open_stub(server.port))
            first = stub.Generate(asked("the end", max_tokens=50, ignore_eos=True))
            gate.open(2)
            await first.read()
            channels = [await stack.enter_async_context(channel_to(server)) for _ in range(4)]
            message = asked("a").SerializeToString()
            calls = [c.unary_stream(GENERATE)(message) for c in channels for _ in range(1000)]
            errors = await asyncio.gather(*map(failed, calls))
            first.cancel()
            await failed(first) if not first.cancelled() else None
            assert Counter(error.code().name for error in errors) == {"RESOURCE_EXHAUSTED": 4000}
            assert all(RetryInfo in details_of(error) for error in errors)
            assert counted(server)[GENERATE, "RESOURCE_EXHAUSTED"] == 4000


@pytest.mark.parametrize("method", OTHERS)
async def test_bytes_that_are_no_message(
    server: GrpcServer, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with channel_to(server) as channel:
        error = await failed(channel.unary_stream(method)(b"\xff\xff", timeout=SECONDS))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == f"the message is not a request of {method[1:]}"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("pair", [BEARER, ("authorization", "Bearer another")])
@pytest.mark.parametrize("is_first", [True, False])
async def test_two_keys_are_none(runner: PythiaRunner, pair: Any, is_first: bool) -> None:
    """As two headers are over HTTP."""
    metadata = (BEARER, pair) if is_first else (pair, BEARER)
    async with serving(runner, api_keys=f"alice {KEY}") as server, open_stub(server.port) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Info(pb.InfoRequest(), metadata=metadata)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "authorization several times" in str(caught.value.details())
        others = (BEARER, ("x-other", "a"), ("x-other", "b"))
        assert (await stub.Info(pb.InfoRequest(), metadata=others)).model
