"""Whatever frames come, the gRPC server goes on, loses nothing and writes no traceback."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub
from pythia_bento.runtime.runner import PythiaRunner
from pythia_bento.server.grpc import server as server_module
from tests.amounts import amounts
from tests.grpc_parts import HOST, background_server
from tests.raw_http2 import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    Connection,
    Frame,
    call,
    frame,
)
from tests.unit.runtime.toy_runner import settled, toy_runner

EXAMPLES = (40, 500)  # of some 20 frames each: 800 or 10,000
METHODS = [
    *("/pythia.v1.Pythia/Generate", "/pythia.v1.Pythia/Score") * 4,  # what the engine works on
    *(f"/pythia.v1.Pythia/{name}" for name in ("Info", "Tokenize")),
    "/bentoml.grpc.v1.BentoService/Call",
    *("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    *("/nothing.Here/A", "no path", ""),
]


def nested(depth: int) -> bytes:
    """A message in a message, and so on, in fields that could be lists of google.protobuf.Value."""
    data = b""
    for _ in range(depth):
        data = b"\x32" + varint(len(data) + 1 + len(varint(len(data)))) + wrapped(data)
    return data


def wrapped(data: bytes) -> bytes:
    return b"\x0a" + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


NESTED = [wrapped(b"generate") + b"\x3a" + varint(len(nested(d))) + nested(d) for d in (20, 3000)]
SCORES = pb.ScoreRequest(items=[pb.ScoreItem(prompt={"text": "the end"})] * 3)
GENERATE = pb.GenerateRequest(prompt={"text": "the end"}, sampling={"max_tokens": 3})
GOOD = {
    "/pythia.v1.Pythia/Generate": GENERATE.SerializeToString(),
    "/pythia.v1.Pythia/Score": SCORES.SerializeToString(),
}
messages = st.sampled_from([*GOOD.values(), b"", *NESTED]) | st.binary(max_size=60)
lengths = st.none() | st.sampled_from([0, 1, 2**16, 2**31, 2**32 - 1])


def prefixed(data: bytes, compressed: int = 0, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return bytes([compressed]) + size.to_bytes(4, "big") + data


@st.composite
def message(draw: st.DrawFn) -> bytes:
    """With its prefix: whether it is compressed, and a length that may be a lie."""
    return prefixed(draw(messages), draw(st.sampled_from([0, 0, 0, 1, 255])), draw(lengths))


@st.composite
def one_call(draw: st.DrawFn) -> tuple[str, list[tuple[str, str]], list[bytes], int | None]:
    """Its method, metadata, messages, and the code that it is reset with."""
    method = draw(st.sampled_from(METHODS))
    metadata = draw(st.lists(odd_metadata, max_size=2)) if draw(st.integers(0, 3)) == 0 else []
    right = st.just(prefixed(GOOD.get(method, b"")))
    sent = draw(st.lists(right | message(), max_size=2))
    return method, metadata, sent, draw(st.none() | st.integers(0, 14))


odd_metadata = st.tuples(
    st.sampled_from(["grpc-timeout", "authorization", "grpc-encoding", "x-bin", ":path"]),
    st.sampled_from(["1m", "99999999H", "gzip", "\x00", "a" * 100, "Bearer x"]),
)
streams = st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1])
flags = st.sampled_from([0, END_STREAM, 4, 5, 8, 32, 255])
noise = st.builds(frame, st.integers(0, 12), flags, streams, st.binary(max_size=40))
broken = st.builds(lambda stream, block: frame(HEADERS, 5, stream, block), streams, st.binary())


@st.composite
def sequences(draw: st.DrawFn) -> list[bytes]:
    """Frames of calls, each on its stream, in pieces that overtake each other; noise at the end."""
    frames: list[tuple[float, bytes]] = []
    for number, (method, metadata, sent, code) in enumerate(draw(CALLS)):
        stream, at = 2 * number + 1, float(number)
        frames.append((at, call(stream, method, *metadata)))
        for index, data in enumerate(sent):
            at += draw(st.integers(0, 3))
            end = END_STREAM if index == len(sent) - 1 and draw(st.booleans()) else 0
            frames.append((at, frame(DATA, end, stream, data)))
        if code is not None:
            frames.append((at, frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))))
    in_order = [data for _, data in sorted(frames, key=lambda pair: pair[0])]
    return in_order + draw(st.lists(noise | broken, max_size=3))


CALLS = st.lists(one_call(), min_size=1, max_size=10)
RIGHT = [
    call(1, "/pythia.v1.Pythia/Generate"),
    frame(DATA, END_STREAM, 1, prefixed(GENERATE.SerializeToString())),
]


@pytest.fixture(scope="module")
def runner() -> Iterator[PythiaRunner]:
    torch.set_num_threads(1)
    with toy_runner() as runner:
        yield runner


@amounts(*EXAMPLES)
def test_frames(
    runner: PythiaRunner,
    amount: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "_keepalive", lambda seconds: [])  # we answer no pings
    seen: Counter[int] = Counter()
    with background_server(runner, client_timeout=10) as port:

        @settings(
            deadline=None,
            max_examples=amount,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @example(RIGHT)
        @given(sequences())
        def check(frames: list[bytes]) -> None:
            with contextlib.closing(Connection(port)) as connection:
                for data in [*frames, frame(PING, payload=b"all read")]:
                    connection.send(data)
                answers = {(found.kind, found.payload) for found in until_read(connection)}
                seen.update(kind for kind, _ in answers)
                if frames == RIGHT:  # others may be cut off before the engine has them
                    assert any(found.kind == DATA for found in connection.frames())

        check()
        # The server often reads all of it; some it answers, some it refuses.
        assert min(seen[HEADERS], seen[RST_STREAM], seen[PING]) >= amount / 10, seen
        assert runner.stats().prompt_tokens > 0
        asked_properly(port)
        settled(runner)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_control_the_frames_make_a_call(runner: PythiaRunner) -> None:
    """What the sequences are made of is understood where it is put together right."""
    with (
        background_server(runner) as port,
        contextlib.closing(Connection(port)) as connection,
    ):
        connection.send(b"".join(RIGHT))
        found = next(f for f in connection.frames() if f.kind == DATA and f.stream == 1)
    answer = pb.GenerateResponse.FromString(found.payload[5:])
    assert answer.deltas[0].token_ids


def until_read(connection: Connection) -> Iterator[Frame]:
    """What the server says until it has read all, or until it reads no more."""
    for found in connection.frames():
        yield found
        if found.kind == GOAWAY or (found.kind, found.flags) == (PING, ACK):
            return


def asked_properly(port: int) -> None:
    with grpc.insecure_channel(f"{HOST}:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert PythiaStub(channel).Info(pb.InfoRequest()).model
