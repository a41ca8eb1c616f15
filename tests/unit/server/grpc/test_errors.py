"""Every failure has its code, one sentence, and details that a program can read."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

from pythia_bento import errors
from pythia_bento.client.failures import BY_CODE
from pythia_bento.errors import InvalidRequest, Overloaded, PythiaError
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.grpc.errors import DOMAIN, grpc_status
from tests.unit.engine.gate import Gate
from tests.unit.runtime.toy_runner import toy_runner
from tests.unit.server.grpc.conftest import asked, open_stub, serving

LEAVES = sorted(set(BY_CODE.values()), key=lambda kind: kind.__name__)

BAD = [
    # (request, code, field, words of the message)
    (pb.GenerateRequest(), "INVALID_ARGUMENT", "prompt", ["prompt is required"]),
    (pb.GenerateRequest(prompt={}), "INVALID_ARGUMENT", "prompt", ["not empty"]),
    (asked(""), "INVALID_ARGUMENT", "prompt", ["prompt is empty"]),
    (asked([]), "INVALID_ARGUMENT", "prompt", ["not empty"]),
    (asked([268]), "INVALID_ARGUMENT", "prompt", ["268", "0 to 267"]),
    (asked([2**32 - 1]), "INVALID_ARGUMENT", "prompt", ["4294967295"]),
    (asked([5] * 65), "INVALID_ARGUMENT", "prompt", ["65 tokens", "64 tokens"]),
    (asked("a", max_tokens=-1), "INVALID_ARGUMENT", "max_tokens", ["at least 0", "-1"]),
    (asked("a", max_tokens=65), "INVALID_ARGUMENT", "max_tokens", ["context is 64"]),
    (asked("a", n=0), "INVALID_ARGUMENT", "n", ["1 and 128"]),
    (asked("a", n=2, best_of=1), "INVALID_ARGUMENT", "best_of", ["at least n"]),
    (asked("a", temperature=-1), "INVALID_ARGUMENT", "temperature", ["temperature", "-1"]),
    (asked("a", temperature=float("nan")), "INVALID_ARGUMENT", "temperature", ["finite"]),
    (asked("a", top_p=float("inf")), "INVALID_ARGUMENT", "top_p", ["finite"]),
    (asked("a", top_k=-2), "INVALID_ARGUMENT", "top_k", ["0 and 2147483647", "-2"]),
    (asked("a", logprobs=21), "INVALID_ARGUMENT", "logprobs", ["0 and 20", "21"]),
    (asked("a", stop=["x" * 300]), "INVALID_ARGUMENT", "stop", ["1 to 256 characters"]),
    (asked("a", stop_token_ids=[268]), "INVALID_ARGUMENT", "stop_token_ids", ["268"]),
    (asked("a", logit_bias={5: 101}), "INVALID_ARGUMENT", "logit_bias", ["-100 and 100"]),
    (asked("a", logit_bias={5: float("nan")}), "INVALID_ARGUMENT", "logit_bias", ["nan"]),
    (asked("a", repetition_penalty=0), "INVALID_ARGUMENT", "repetition_penalty", ["0.01 and 100"]),
    (pb.GenerateRequest(prompt={"text": "a"}, model="gpt"), "NOT_FOUND", None, ["'gpt'", "toy"]),
]


@pytest.mark.parametrize(("request_", "code", "field", "words"), BAD)
async def test_bad_requests(
    stub: PythiaStub, runner: PythiaRunner, request_: Any, code: str, field: str, words: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.Generate(request_):
            pass
    error = caught.value
    assert error.code().name == code
    assert all(word in str(error.details()) for word in words), error.details()
    assert "\n" not in str(error.details())
    found = details_of(error)
    assert found[ErrorInfo].domain == DOMAIN
    if field is not None:
        [violation] = found[BadRequest].field_violations
        assert (violation.field, violation.description) == (field, error.details())
    stats = runner.stats()
    assert (stats.prompt_tokens, stats.blocks_used, stats.waiting) == (0, 0, 0)


@pytest.mark.parametrize("kind", LEAVES)
def test_every_leaf_has_a_status(kind: type[PythiaError]) -> None:
    status = grpc_status(kind("what went wrong", param="a_field"))
    assert status.code == grpc.StatusCode[kind.grpc_code]
    assert status.details == "what went wrong"
    found = unpacked(status.trailing_metadata)
    assert found[ErrorInfo].reason == kind.code.upper()
    assert found[ErrorInfo].metadata == {"type": kind.type, "param": "a_field"}
    assert (BadRequest in found) == issubclass(kind, InvalidRequest)
    assert (RetryInfo in found) == (kind is Overloaded)


def test_no_two_leaves_have_the_same_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert set(LEAVES) == {kind for kind in kinds if issubclass(kind, PythiaError)}


def test_when_to_come_again() -> None:
    status = grpc_status(Overloaded("full", retry_after=1.5))
    delay = unpacked(status.trailing_metadata)[RetryInfo].retry_delay
    assert delay.ToNanoseconds() == 1_500_000_000


@pytest.mark.parametrize("method", ["Info", "Generate", "Score", "Tokenize", "Detokenize"])
async def test_bytes_that_are_no_message(channel: grpc.aio.Channel, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(f"/pythia.v1.Pythia/{method}")(b"\xff\xff")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == f"the message is not a request of pythia.v1.Pythia/{method}"


@pytest.mark.parametrize("path", ["/pythia.v1.Pythia/Infos", "/nothing", "/a.B/C"])
async def test_unknown_methods(channel: grpc.aio.Channel, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(path)(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_messages_have_a_limit(runner: PythiaRunner) -> None:
    async with serving(runner, max_body_bytes=5000) as server, open_stub(server.port) as stub:
        assert (await stub.Tokenize(pb.TokenizeRequest(text="a" * 4900))).ids
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Tokenize(pb.TokenizeRequest(text="a" * 5001))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "5000" in str(caught.value.details())


async def test_what_nobody_foresaw_is_told_without_details(
    stub: PythiaStub, runner: PythiaRunner, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    async def broken(text: str, field: str) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(runner, "encode", broken)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Tokenize(pb.TokenizeRequest(text="a"))
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert caught.value.details() == "the server failed; its log says how"
    assert "ZeroDivisionError: secret" in caplog.text


async def test_a_full_queue_says_when_to_come_again() -> None:
    sizes = {"max_batch_size": 1, "max_queue": 1, "caller_share": 1}
    gate = Gate()
    with toy_runner(gate=gate, **sizes) as runner:
        async with serving(runner) as server, open_stub(server.port) as stub:
            first = stub.Generate(asked("a", max_tokens=50, ignore_eos=True))
            gate.open(2)
            await first.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Generate(asked("a", n=2)).read()
            first.cancel()
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(caught.value)[RetryInfo].retry_delay.ToNanoseconds() > 0


def details_of(error: grpc.aio.AioRpcError) -> dict[type, Any]:
    return unpacked(error.trailing_metadata())


def unpacked(metadata: Any) -> dict[type, Any]:
    """The details by their kind."""
    [data] = [value for key, value in metadata if key == "grpc-status-details-bin"]
    found: dict[type, Any] = {}
    for detail in rpc_status.status_pb2.Status.FromString(data).details:
        for kind in (ErrorInfo, BadRequest, RetryInfo):
            if detail.Is(kind.DESCRIPTOR):
                found[kind] = kind.FromString(detail.value)
    return found
