"""How messages are read: in pieces, within limits, and within the room that HTTP's bodies share."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.access.control import FREE_BYTES, AccessControl, BodyRoom
from pythia_bento.server.grpc.call import Call
from pythia_bento.server.grpc.held_calls import HeldCalls
from pythia_bento.server.grpc.intake import MAX_BYTES, PIECE, Intake
from pythia_bento.server.grpc.server import GrpcServer
from tests.grpc_parts import grpc_settings
from tests.unit.engine.gate import Gate
from tests.unit.runtime.toy_runner import POISON, toy_runner
from tests.unit.server.grpc.conftest import asked, open_stub, serving
from tests.unit.turning import turning, until

LARGE = 2 * 2**20
EMPTY = pb.ScoreRequest(items=[pb.ScoreItem()]).SerializeToString()


async def read(runner: PythiaRunner, kind: Any, data: bytes) -> Any:
    """What becomes of a message of so many bytes."""

    async def arrived() -> bytes:
        return data

    intake = Intake(HeldCalls("the message", 10), BodyRoom(2**30), runner.limits)
    call = Call("/pythia.v1.Pythia/Any", SimpleNamespace(read=arrived), {})  # type: ignore[arg-type]
    with intake.place() as grow:
        return await intake.reader(kind.FromString)(call, grow)


MESSAGES = (
    pb.ScoreRequest(
        items=[
            pb.ScoreItem(prompt=pb.Prompt(tokens=pb.TokenIds(ids=range(i % 700))), logprobs=i % 3)
            for i in range(900)
        ]
    ),
    pb.ScoreRequest(items=[pb.ScoreItem(prompt=pb.Prompt(text="é" * 70_000))] * 3, model="toy"),
    pb.GenerateRequest(
        model="m" * PIECE,
        prompt=pb.Prompt(text="x" * PIECE),
        sampling=pb.Sampling(logit_bias={i: i / 7 for i in range(4000)}, temperature=0.5),
    ),
    pb.DetokenizeRequest(ids=range(100_000)),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
async def test_a_large_message_is_what_protobuf_makes_of_it(
    runner: PythiaRunner, message: Any
) -> None:
    data = message.SerializeToString()
    assert len(data) > PIECE
    assert await read(runner, type(message), data) == message
    # The same fields one after another, a lone one again, are one message.
    again = data + message.SerializeToString()
    assert await read(runner, type(message), again) == type(message).FromString(again)


async def test_bytes_are_copied_and_may_be_more(runner: PythiaRunner) -> None:
    whole = pb.ActivationsRequest(model="toy", tensors=b"x" * MAX_BYTES, dtype="float16")
    data = whole.SerializeToString()
    assert await read(runner, pb.ActivationsRequest, data) == whole
    more = pb.ActivationsRequest(tensors=b"x" * (MAX_BYTES + PIECE)).SerializeToString()
    with pytest.raises(InvalidRequest, match=f"but the limit is {MAX_BYTES + PIECE}"):
        await read(runner, pb.ActivationsRequest, more)
    logits = pb.LogitsOf(tokens=[2**31] * 2**18)  # is read, and no field of bytes
    with pytest.raises(InvalidRequest, match="but the limit is 1081344"):
        await read(
            runner, pb.ActivationsRequest, pb.ActivationsRequest(logits=logits).SerializeToString()
        )


async def test_others_have_their_turn_meanwhile(runner: PythiaRunner) -> None:
    async with turning() as turns:
        message = await read(runner, pb.ScoreRequest, EMPTY * 200_000)
        assert turns() >= 10
    assert len(message.items) == 200_000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (EMPTY * LARGE, "the message has more than 262144 entries"),
        (
            pb.DetokenizeRequest(ids=[1] * LARGE).SerializeToString(),
            "a field of the message has 2097157 bytes, but the limit is 1081344",
        ),
        (EMPTY * PIECE + b"\x0b", "the message is not a request of"),  # a group
        (EMPTY * PIECE + b"\x0a\x05", "not a request"),  # cut off
        (EMPTY * PIECE + b"\x0a\xff", "not a request"),
        (EMPTY * PIECE + b"\xff" * 11, "not a request"),
        (EMPTY * PIECE + b"\x0a\x01\x12", "not a request"),  # wrong within a field
    ],
)
async def test_what_is_no_message_or_too_much_of_one(
    runner: PythiaRunner, data: bytes, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await read(runner, pb.ScoreRequest, data)


async def test_a_refusal_comes_before_most_of_a_message_is_read(runner: PythiaRunner) -> None:
    async with serving(runner) as server, open_stub(server.port) as stub:
        for call, words in (
            (stub.Score(pb.ScoreRequest.FromString(EMPTY * LARGE)), "more than 262144 entries"),
            (stub.Score(pb.ScoreRequest.FromString(EMPTY * 5000)), "items has 5000 entries"),
            (stub.Detokenize(pb.DetokenizeRequest(ids=[1] * 300_000)), "ids has 300000 ids"),
            (stub.Detokenize(pb.DetokenizeRequest(ids=[1] * LARGE)), "a field of the message"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_large_messages_have_a_limit_together_and_small_ones_always_room() -> None:
    """That of HTTP's bodies: what one transport holds the other has not."""
    chosen = grpc_settings(max_body_bytes=2**20, max_open_bytes=2**20)
    with toy_runner(max_batch_size=2) as runner:
        access = AccessControl.from_settings(chosen)
        server = GrpcServer(runner, chosen, access)
        await server.start()
        async with open_stub(server.port) as stub:
            with access.bodies.place() as grow:  # as an HTTP request would
                grow(FREE_BYTES + 2**20 - 100)
                text = "é" * (FREE_BYTES // 2)
                with pytest.raises(grpc.aio.AioRpcError, match="MAX_OPEN_BYTES") as caught:
                    await stub.Tokenize(pb.TokenizeRequest(text=text + "ab" * 100))
                assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert (await stub.Tokenize(pb.TokenizeRequest(text="small"))).ids
            await until(lambda: access.bodies.taken == 0)
            await stub.Tokenize(pb.TokenizeRequest(text=text + "ab" * 100))
            await until(lambda: access.bodies.taken == 0)
        await server.stop()


async def test_a_message_is_held_until_it_is_answered() -> None:
    chosen = grpc_settings(max_body_bytes=2**20, max_open_bytes=2**20)
    with toy_runner(max_batch_size=2, gate=Gate()) as runner:
        access = AccessControl.from_settings(chosen)
        server = GrpcServer(runner, chosen, access)
        await server.start()
        async with open_stub(server.port) as stub:
            items = [pb.ScoreItem(prompt=pb.Prompt(tokens=pb.TokenIds(ids=[5] * 60)))] * 2500
            request = pb.ScoreRequest(items=items)
            size = request.ByteSize()
            scoring = asyncio.ensure_future(stub.Score(request))
            await until(lambda: access.bodies.taken == size - FREE_BYTES or scoring.done())
            assert not scoring.done()
            scoring.cancel()
            await until(lambda: not access.bodies.taken)
        await server.stop()


async def test_a_refused_call_is_forgotten_at_once(runner: PythiaRunner) -> None:
    """grpc keeps what was raised with the call, which that leads back to."""

    def calls() -> int:
        return Counter(type(one) for one in gc.get_objects())[Call]

    async with serving(runner) as server, open_stub(server.port) as stub:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Tokenize(pb.TokenizeRequest(text="a" * 300_000))
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Generate(asked([POISON], max_tokens=5)).read()
            await until(lambda: calls() <= 1)
        finally:
            gc.enable()
