from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.grpc.server import GrpcServer
from pythia_bento.server.spans import Sampler
from pythia_bento.settings import Settings
from tests.grpc_parts import HOST
from tests.unit.engine.gate import Gate
from tests.unit.runtime.toy_runner import toy_runner
from tests.unit.server.grpc.conftest import asked, open_stub, serving
from tests.unit.turning import until

INFO, GENERATE = "/pythia.v1.Pythia/Info", "/pythia.v1.Pythia/Generate"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KEY = "a-long-enough-key-for-alice-0123456789"
BEARER = (("authorization", f"Bearer {KEY}"),)


async def test_a_line_of_log_for_each_call(stub: PythiaStub, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "bentoml.access")
    await stub.Info(pb.InfoRequest(), metadata=(("x-request-id", "me"),))
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Generate(asked("")).read()
    await _to_the_end(stub.Generate(asked("the end", max_tokens=3, ignore_eos=True)))
    await until(lambda: len(caplog.records) == 3)
    first, second, third = [record.fields for record in caplog.records]
    assert first.pop("client").startswith(f"{HOST}:") and first.pop("duration_ms") > 0
    assert first == {
        "message": "call",
        "transport": "grpc",
        "path": INFO,
        "status": "OK",
        "caller": "anyone",
        "request_id": "me",
    }
    assert (second["path"], second["status"]) == (GENERATE, "INVALID_ARGUMENT")
    assert (third["status"], third["generated_tokens"]) == ("OK", 3)


async def test_a_call_is_told_its_id(stub: PythiaStub) -> None:
    metadata = (("x-request-id", "me"),)
    call = stub.Info(pb.InfoRequest(), metadata=metadata)
    await call
    assert (await call.trailing_metadata())["x-request-id"] == "me"
    refused = stub.Generate(asked(""), metadata=metadata)
    assert await _code(refused.read()) == "INVALID_ARGUMENT"
    trailing = await refused.trailing_metadata()
    assert trailing["x-request-id"] == "me" and "grpc-status-details-bin" in trailing
    other = stub.Info(pb.InfoRequest(), metadata=(("x-request-id", "not an id"),))
    await other
    assert len((await other.trailing_metadata())["x-request-id"]) == 32


async def test_methods_that_do_not_exist_have_no_metrics(runner: PythiaRunner) -> None:
    async with (
        serving(runner) as server,
        grpc.aio.insecure_channel(f"{HOST}:{server.port}") as channel,
    ):
        for name in ("/pythia.v1.Pythia/Nothing", "/nothing.Here/A", "/nothing.Here/B"):
            assert await _code(channel.unary_unary(name)(b"")) == "UNIMPLEMENTED"
        assert "othing" not in server.metrics()


REFUSED = f'pythia_grpc_calls_total{{code="INVALID_ARGUMENT",method="{GENERATE}"}}'


async def test_metrics_by_method_and_code() -> None:
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        async with serving(runner) as server, open_stub(server.port) as stub:
            await stub.Info(pb.InfoRequest())
            await stub.Info(pb.InfoRequest())
            call = stub.Generate(asked("a", max_tokens=50, ignore_eos=True))
            gate.open(2)
            await call.read()
            assert f'pythia_grpc_open_calls{{method="{GENERATE}"}} 1.0' in server.metrics()
            gate.open()
            await _to_the_end(call)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Generate(asked("")).read()
            await until(lambda: f"{REFUSED} 1.0" in server.metrics())
            page = server.metrics()
    for code, method, count in (
        ("OK", INFO, 2),
        ("OK", GENERATE, 1),
        ("INVALID_ARGUMENT", GENERATE, 1),
    ):
        assert f'pythia_grpc_calls_total{{code="{code}",method="{method}"}} {count}.0' in page
    assert f'pythia_grpc_open_calls{{method="{GENERATE}"}} 0.0' in page
    assert f'pythia_grpc_call_seconds_count{{method="{INFO}"}} 2.0' in page
    buckets = [line for line in page.splitlines() if "_bucket" in line and INFO in line]
    counts = [float(line.rpartition(" ")[2]) for line in buckets]
    assert counts == sorted(counts) and counts[-1] == 2


async def test_spans_are_children_of_the_callers(runner: PythiaRunner) -> None:
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    settings = Settings(grpc_host=HOST, grpc_port=0, request_timeout=10)
    server = GrpcServer(runner, settings, AccessControl(None), provider)
    await server.start()
    async with open_stub(server.port) as stub:
        metadata = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
        await stub.Info(pb.InfoRequest(), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Generate(asked("")).read()
        call = stub.Generate(asked("the end", max_tokens=3, ignore_eos=True), metadata=metadata)
        await _to_the_end(call)
    await server.stop()
    provider.shutdown()
    first, second, *phases, third = spans.get_finished_spans()
    assert [span.name for span in phases] == ["pythia.queue", "pythia.prefill", "pythia.decode"]
    assert {span.parent.span_id for span in phases if span.parent} == {third.context.span_id}
    assert format(third.context.trace_id, "032x") == TRACE
    assert (first.name, first.kind.name) == ("pythia.v1.Pythia/Info", "SERVER")
    assert first.parent and format(first.parent.span_id, "016x") == PARENT
    assert first.context and format(first.context.trace_id, "032x") == TRACE
    assert first.attributes and first.attributes["rpc.grpc.status_code"] == 0
    assert second.parent is None
    assert second.attributes and second.attributes["rpc.grpc.status_code"] == 3


async def test_traces_that_are_never_collected_have_numbers_only(
    runner: PythiaRunner, caplog: Any
) -> None:
    """Those that a caller began are collected all the same, where the caller says so."""
    caplog.set_level(logging.INFO, "bentoml.access")
    numbers: list[trace.SpanContext] = []

    def noted(record: logging.LogRecord) -> bool:
        numbers.append(trace.get_current_span().get_span_context())
        return True

    spans, provider = InMemorySpanExporter(), TracerProvider(sampler=Sampler(0.0))
    provider.add_span_processor(SimpleSpanProcessor(spans))
    settings = Settings(grpc_host=HOST, grpc_port=0, request_timeout=10)
    server = GrpcServer(runner, settings, AccessControl(None), provider)
    await server.start()
    logger = logging.getLogger("bentoml.access")
    logger.addFilter(noted)
    try:
        async with open_stub(server.port) as stub:
            for metadata in ((), (), (("traceparent", f"00-{TRACE}-{PARENT}-01"),)):
                await stub.Info(pb.InfoRequest(), metadata=metadata)
            await until(lambda: len(numbers) == 3)
    finally:
        logger.removeFilter(noted)
        await server.stop()
        provider.shutdown()
    assert all(number.is_valid for number in numbers)
    assert len({number.trace_id for number in numbers}) == 3
    assert [number.trace_flags.sampled for number in numbers] == [False, False, True]
    [collected] = spans.get_finished_spans()
    assert collected.context and format(collected.context.trace_id, "032x") == TRACE


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ((), "UNAUTHENTICATED"),
        ((("authorization", "Bearer wrong"),), "UNAUTHENTICATED"),
        ((("authorization", KEY),), "UNAUTHENTICATED"),
        ((("authorization-bin", KEY.encode()),), "UNAUTHENTICATED"),
        (BEARER, "OK"),
    ],
)
async def test_keys(runner: PythiaRunner, metadata: Any, code: str) -> None:
    async with serving(runner, api_keys=f"alice {KEY}") as server, open_stub(server.port) as stub:
        assert await _code(stub.Info(pb.InfoRequest(), metadata=metadata)) == code
        call = stub.Generate(asked("a"), metadata=metadata)
        assert await _code(call.read()) == code
        call.cancel()


async def test_a_key_that_may_not(runner: PythiaRunner) -> None:
    keys = f"alice {KEY} suspended"
    async with serving(runner, api_keys=keys) as server, open_stub(server.port) as stub:
        call = stub.Info(pb.InfoRequest(), metadata=BEARER)
        assert await _code(call) == "PERMISSION_DENIED"


async def test_a_key_is_asked_for_before_the_message_is_read(runner: PythiaRunner) -> None:
    async with (
        serving(runner, api_keys=f"alice {KEY}") as server,
        grpc.aio.insecure_channel(f"{HOST}:{server.port}") as channel,
    ):
        call = channel.unary_unary("/pythia.v1.Pythia/Info")(b"\xff\xff")
        assert await _code(call) == "UNAUTHENTICATED"


async def test_a_place_is_held_until_the_stream_ends() -> None:
    limits = {"api_keys": f"alice {KEY}", "key_concurrent_requests": 1}
    gate = Gate()
    with toy_runner(gate=gate) as runner:
        async with serving(runner, **limits) as server, open_stub(server.port) as stub:
            open = stub.Generate(asked("a", max_tokens=50, ignore_eos=True), metadata=BEARER)
            gate.open(2)
            await open.read()
            call = stub.Info(pb.InfoRequest(), metadata=BEARER)
            assert await _code(call) == "RESOURCE_EXHAUSTED"
            gate.open()
            await _to_the_end(open)
            assert await _code(stub.Info(pb.InfoRequest(), metadata=BEARER)) == "OK"


async def test_health_and_reflection_need_no_key(runner: PythiaRunner) -> None:
    async with serving(runner, api_keys=f"alice {KEY}") as server:
        async with grpc.aio.insecure_channel(f"{HOST}:{server.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        names = await _reflected(server.port)
        assert "pythia.v1.Pythia" in names


async def test_what_would_generate_is_refused_unread_while_the_engine_is_full() -> None:
    gate = Gate()
    with toy_runner(gate=gate, max_batch_size=1, max_queue=0) as runner:
        async with (
            serving(runner) as server,
            open_stub(server.port) as stub,
            grpc.aio.insecure_channel(f"{HOST}:{server.port}") as channel,
        ):
            first = stub.Generate(asked("the end", max_tokens=30, ignore_eos=True))
            gate.open(2)
            await first.read()
            refused = channel.unary_stream(GENERATE)(b"no message")
            assert await _code(refused.read()) == "RESOURCE_EXHAUSTED"
            assert (await stub.Tokenize(pb.TokenizeRequest(text="the end"))).ids
            gate.open()
            await _to_the_end(first)
            again = channel.unary_stream(GENERATE)(b"no message")
            assert await _code(again.read()) == "INVALID_ARGUMENT"


async def _to_the_end(call: Any) -> None:
    while await call.read() != grpc.aio.EOF:
        pass


async def _code(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def _reflected(port: int) -> list[str]:
    def ask() -> list[str]:
        with grpc.insecure_channel(f"{HOST}:{port}") as channel:
            return list(ProtoReflectionDescriptorDatabase(channel).get_services())

    return await asyncio.to_thread(ask)
