"""Whatever comes in, a call ends with a documented code, and the server has lost nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_bento.protocol.generated import bentoml_v1_pb2, pythia_pb2
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.settings import Settings
from tests.amounts import amounts
from tests.grpc_parts import HOST, background_server
from tests.unit.runtime.toy_runner import settled

CALLS = 20  # in an example, all at once
EXAMPLES = (15, 100)  # of each of the two tests: 600 calls in all, or 4,000
SECONDS = 0.25  # deadline: some requests are for a whole context, many times

# The codes that pythia.proto names, but for INTERNAL, which is always a fault.
DOCUMENTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}
METHODS = {
    f"/{service.full_name}/{method.name}": method.input_type
    for service in (
        pythia_pb2.DESCRIPTOR.services_by_name["Pythia"],
        bentoml_v1_pb2.DESCRIPTOR.services_by_name["BentoService"],
    )
    for method in service.methods
}

_relaxed = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.sampled_from([low, max(low, -1), 0, 1, 2, 7, high]) | st.integers(0, 40)


SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20),
    FieldDescriptor.TYPE_DOUBLE: st.floats() | st.floats(0, 2),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 3),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_INT32: integers(32, signed=True),
    FieldDescriptor.TYPE_INT64: integers(64, signed=True),
    FieldDescriptor.TYPE_SINT64: integers(64, signed=True),
    FieldDescriptor.TYPE_STRING: st.sampled_from(
        [
            *("", "Once upon a time", "generate", "score", "bundled"),
            *("blocks.*.hook_resid_post", "hook_embed", "last", "norm", "scale", "zero"),
        ]
    )
    | st.text(max_size=20),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 999) | integers(32, signed=False),
    FieldDescriptor.TYPE_UINT64: integers(64, signed=False),
}
# Bodies of BentoML's calls: JSON that is nearly right.
JSON_NAMES = st.sampled_from(["prompt", "max_tokens", "n", "stop", "logit_bias", "items", "seed"])


def field_value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is None:
        return SCALARS[field.type]
    return message(field.message_type, depth - 1)


def field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        keys = JSON_NAMES if key.type == FieldDescriptor.TYPE_STRING else SCALARS[key.type]
        return st.dictionaries(keys, field_value(value, depth), max_size=3)
    one = field_value(field, depth)
    return st.lists(one, max_size=3) if field.is_repeated else one


def message(kind: Descriptor, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields, as the arguments of the message's class."""
    if depth == 0:
        return st.just({})
    return st.deferred(
        lambda: st.fixed_dictionaries({}, optional={f.name: field(f, depth) for f in kind.fields})
    )


def encoded(kind: Descriptor, fields: dict[str, Any]) -> bytes:
    return bytes(GetMessageClass(kind)(**fields).SerializeToString())


calls = st.sampled_from(sorted(METHODS)).flatmap(
    lambda method: message(METHODS[method], depth=4).map(
        lambda fields: (method, encoded(METHODS[method], fields))
    )
)
noise = st.tuples(st.sampled_from(sorted(METHODS)), st.binary(max_size=200))


@pytest.fixture(scope="module")
def runner() -> Iterator[PythiaRunner]:
    torch.set_num_threads(1)
    with PythiaRunner.load(Settings(model="bundled@step64", device="cpu")) as runner:
        yield runner


@pytest.fixture(scope="module")
def port(runner: PythiaRunner) -> Iterator[int]:
    with background_server(runner) as port:
        yield port


@amounts(*EXAMPLES)
def test_messages(runner: PythiaRunner, port: int, amount: int) -> None:
    seen: Counter[grpc.StatusCode] = Counter()

    @settings(_relaxed, max_examples=amount)
    @given(st.lists(calls, min_size=CALLS, max_size=CALLS))
    def check(batch: list[tuple[str, bytes]]) -> None:
        seen.update(documented(port, batch))

    check()
    nothing_is_lost(runner)
    # The cases are not all alike, and some are asked right. Late ones may be of any kind.
    least, late = amount * CALLS // 6, seen[grpc.StatusCode.DEADLINE_EXCEEDED]
    found = min(seen[grpc.StatusCode.OK], seen[grpc.StatusCode.INVALID_ARGUMENT])
    assert found + late > least, seen


@amounts(*EXAMPLES)
def test_noise(runner: PythiaRunner, port: int, amount: int) -> None:
    @settings(_relaxed, max_examples=amount)
    @given(st.lists(noise, min_size=CALLS, max_size=CALLS))
    def check(batch: list[tuple[str, bytes]]) -> None:
        documented(port, batch)

    check()
    nothing_is_lost(runner)


def documented(port: int, batch: list[tuple[str, bytes]]) -> list[grpc.StatusCode]:
    """The codes of the calls, made all at once; no other one may be among them."""
    codes = asyncio.run(send_all(port, batch))
    assert set(codes) <= DOCUMENTED, list(zip(codes, batch, strict=True))
    return codes


def nothing_is_lost(runner: PythiaRunner) -> None:
    settled(runner)
    assert runner.stats().non_finite == 0


async def send_all(port: int, batch: list[tuple[str, bytes]]) -> list[grpc.StatusCode]:
    async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
        return await asyncio.gather(*(send(channel, *call) for call in batch))


async def send(channel: grpc.aio.Channel, method: str, data: bytes) -> grpc.StatusCode:
    """The code of a call; streams are read to their end."""
    call = channel.unary_stream(method)(data, timeout=SECONDS)
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
