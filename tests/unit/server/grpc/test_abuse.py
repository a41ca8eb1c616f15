"""Worst messages over gRPC: each is one short refusal, and what it took is given back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import AccessControl
from pythia_bento.server.grpc.intake import PIECE
from pythia_bento.server.grpc.server import GrpcServer
from tests import raw_http2
from tests.grpc_parts import grpc_settings
from tests.unit.engine.gate import Gate
from tests.unit.runtime.toy_runner import settled, toy_runner
from tests.unit.server.grpc.conftest import asked, open_stub, serving
from tests.unit.turning import until

ALICE, BOB = "alices-key-0123456789", "bobs-key-9876543210"
INFO = "/pythia.v1.Pythia/Info"
CONTINUATION = 9  # a kind of frame
UNKNOWN = b"\xc0\x3e\x01"  # field 1000, which no message has
ITEM = pb.ScoreItem(prompt=pb.Prompt(tokens=pb.TokenIds(ids=[5] * 60)))
ITEMS = 500
FIELD = 2**20  # bytes that one may have

Bad = tuple[str, Any, str, str]  # the method, its message, the code, words of its details


def with_unknown(message: Any, count: int) -> Any:
    return type(message).FromString(message.SerializeToString() + UNKNOWN * count)


TOO_MANY = "has more than 262144 entries"
NOT_OURS = "has fields that pythia.v1.{} and its parts have not"
BAD: dict[str, Bad] = {
    "one unknown field": (
        *("Generate", with_unknown(asked("a"), 1)),
        *("INVALID_ARGUMENT", NOT_OURS.format("GenerateRequest")),
    ),
    "one of a part": (
        *("Generate", pb.GenerateRequest(prompt=with_unknown(pb.Prompt(text="a"), 1))),
        *("INVALID_ARGUMENT", NOT_OURS.format("GenerateRequest")),
    ),
    "one of a large message": (
        *("Score", with_unknown(pb.ScoreRequest(items=[ITEM] * (PIECE // 60)), 1)),
        *("INVALID_ARGUMENT", NOT_OURS.format("ScoreRequest")),
    ),
    "2,000,000": (
        *("Tokenize", with_unknown(pb.TokenizeRequest(), 2_000_000)),
        *("INVALID_ARGUMENT", NOT_OURS.format("TokenizeRequest")),
    ),
    "a million of three parts": (
        *("Score", pb.ScoreRequest(items=[with_unknown(pb.ScoreItem(), FIELD // 3 - 9)] * 3)),
        *("INVALID_ARGUMENT", NOT_OURS.format("ScoreRequest")),
    ),
    "500,000 items": ("Score", pb.ScoreRequest(items=[pb.ScoreItem()] * 500_000), "", TOO_MANY),
    "4,097 items": ("Score", pb.ScoreRequest(items=[ITEM] * 4097), "", "limit is 4096"),
    "a model's name of a megabyte": (
        *("Generate", pb.GenerateRequest(prompt={"text": "a"}, model="m" * FIELD)),
        *("NOT_FOUND", "is not served"),
    ),
    "and of two": ("Tokenize", pb.TokenizeRequest(model="m" * 2 * FIELD), "", "but the limit is"),
    "a text of eight": ("Tokenize", pb.TokenizeRequest(text="a" * 8_000_000), "", "the limit is"),
    "a checkpoint's name of a megabyte": (
        *("Models", pb.ModelsRequest(pattern="*" * FIELD)),
        *("INVALID_ARGUMENT", "256"),
    ),
}


@pytest.mark.parametrize("what", BAD)
async def test_one_short_refusal_and_all_is_given_back(
    runner: PythiaRunner, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    method, message, code, words = BAD[what]
    access = AccessControl.from_settings(grpc_settings())
    async with serving(runner, access) as server, open_stub(server.port) as stub:
        error = await refused(stub, method, message)
        assert error.code().name == (code or "INVALID_ARGUMENT")
        assert words in str(error.details()) and len(str(error.details())) < 300
        await until(lambda: nothing_is_held(server, access) and caplog.records)
        assert max(len(record.getMessage()) for record in caplog.records) < 1000
    assert runner.stats().prompt_tokens == 0


async def test_all_at_once_are_refused_and_somebody_else_is_answered(runner: PythiaRunner) -> None:
    access = AccessControl.from_settings(grpc_settings())
    async with serving(runner, access) as server, open_stub(server.port) as stub:
        calls = [refused(stub, method, message) for method, message, _, _ in BAD.values()]
        bad = asyncio.gather(*calls)
        async with open_stub(server.port) as other:
            async for _ in other.Generate(asked("the end", max_tokens=3)):
                pass
        errors = await bad
        codes = {error.code().name for error in errors}
        assert codes <= {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
        await until(lambda: nothing_is_held(server, access))


async def refused(stub: PythiaStub, method: str, message: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        call = getattr(stub, method)(message, timeout=60)
        async for _ in call if method == "Generate" else _unary(call):
            pass
    return caught.value


async def _unary(call: Any) -> Any:
    yield await call


def nothing_is_held(server: GrpcServer, access: AccessControl) -> bool:
    """No place of anything."""
    return not (access.bodies.taken or access.in_flight.count or server._arrivals._calls)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("x-request-id", "a" * 7000, "OK"),
        ("x-" + "n" * 7000, "a", "OK"),
        ("authorization", "Bearer " + "k" * 7000, "UNAUTHENTICATED"),
        ("traceparent", "00-" + "f" * 7000, "OK"),
        ("x-request-id", "a" * 100_000, "RESOURCE_EXHAUSTED"),
    ],
)
async def test_long_metadata(
    runner: PythiaRunner, name: str, value: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    key = () if name == "authorization" else (("authorization", f"Bearer {BOB}"),)
    async with serving(runner, api_keys=f"bob {BOB}") as server, open_stub(server.port) as stub:
        call = stub.Info(pb.InfoRequest(), metadata=(*key, (name, value)))
        assert (await call.code()).name == code
        pairs = await call.trailing_metadata() or ()
        assert max((len(found) for _, found in pairs), default=0) < 1000
    assert max((len(record.getMessage()) for record in caplog.records), default=0) < 1000


def reset(stream: int) -> bytes:
    cancel = (8).to_bytes(4, "big")
    return raw_http2.call(stream, INFO) + raw_http2.frame(raw_http2.RST_STREAM, 0, stream, cancel)


FLOODS: dict[str, Callable[[int], bytes]] = {
    "resets": lambda number: reset(2 * number + 1),
    "heads": lambda number: raw_http2.call(2 * number + 1, INFO),
    "pings": lambda number: raw_http2.frame(raw_http2.PING, payload=number.to_bytes(8, "big")),
    "settings": lambda number: raw_http2.frame(raw_http2.SETTINGS),
    "heads without end": lambda number: raw_http2.frame(
        raw_http2.HEADERS if number == 0 else CONTINUATION, 0, 1, b"\0\1a\1b" * 10
    ),
}


@pytest.mark.parametrize("what", FLOODS)
async def test_a_flood_of_frames_is_in_nobody_elses_way(runner: PythiaRunner, what: str) -> None:
    access = AccessControl.from_settings(grpc_settings())
    async with serving(runner, access, client_timeout=3600) as server:
        with contextlib.closing(raw_http2.Connection(server.port)) as connection:
            flood = b"".join(map(FLOODS[what], range(3000)))
            sent = asyncio.create_task(asyncio.to_thread(connection.send, flood))
            async with open_stub(server.port) as stub:
                assert (await stub.Info(pb.InfoRequest())).model
                await sent
                assert (await stub.Info(pb.InfoRequest())).model
        await until(lambda: nothing_is_held(server, access))


async def test_a_message_that_unpacks_to_more_than_the_limit(runner: PythiaRunner) -> None:
    message = pb.TokenizeRequest(text="a" * 50_000_000)
    async with (
        serving(runner) as server,
        open_stub(server.port, compression=grpc.Compression.Gzip) as stub,
    ):
        error = await refused(stub, "Tokenize", message)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_who_leaves_its_items_ends_them_and_delays_nobody() -> None:
    """Hundreds of items of which a few are done: another's single one does not wait for them."""
    gate = Gate()
    chosen = {"api_keys": f"alice {ALICE}, bob {BOB}", "request_timeout": 60}
    access = AccessControl.from_settings(grpc_settings(**chosen))
    with toy_runner(gate=gate, max_batch_size=2, **chosen) as runner:
        async with serving(runner, access, **chosen) as server, open_stub(server.port) as stub:
            many = score(stub, ALICE, ITEMS)
            gate.open(2)
            await gate.held()
            await until(lambda: len(runner._thread._states) > ITEMS // 2)
            before = len(runner._thread._states)
            single = score(stub, BOB, 1)
            await until(lambda: len(runner._thread._states) == before + 1)
            gate.open(100)
            answer = await single
            assert answer.results[0].score.num_tokens == 59 and not many.done()
            many.cancel()
            await until(lambda: not access.in_flight.count)
            gate.open()
            await until(lambda: not runner._thread._states)
            settled(runner)
            assert runner.stats().prefix_queries < 60 * ITEMS // 2  # most were never begun


def score(stub: PythiaStub, key: str, count: int) -> Any:
    metadata = (("authorization", f"Bearer {key}"),)
    return stub.Score(pb.ScoreRequest(items=[ITEM] * count), metadata=metadata)
