"""What somebody does who means no good: one function an attack, named as in docs/faults.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import httpx

from bench.serving.server import HOST, Server
from pythia_bento.protocol.generated import pythia_pb2 as pb
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub

BODY = 8 * 2**20 - 100  # bytes, just below the server's limit
CONTEXT = 512  # of the bundled model
SECONDS = 60.0  # that an attacker waits for an answer


@dataclass
class Attacker:
    """With a key of its own, and a count of the answers it had."""

    server: Server
    key: str
    until: float = 0.0  # time.monotonic() at which it stops
    answers: Counter[str] = field(default_factory=Counter)

    async def post(self, path: str, body: bytes, patience: float = SECONDS) -> None:
        """One request, of which only the status counts; ``patience`` in seconds, then it leaves."""
        async with httpx.AsyncClient(base_url=self.server.url, timeout=SECONDS) as client:
            request = client.post(
                path, content=body, headers={"authorization": f"Bearer {self.key}"}
            )
            try:
                kind = str((await asyncio.wait_for(request, patience)).status_code)
            except (asyncio.TimeoutError, httpx.HTTPError) as error:
                kind = type(error).__name__
        self.answers[kind] += 1

    async def call(self, method: str, message: object, seconds: float = SECONDS) -> None:
        """One call over gRPC."""
        async with grpc.aio.insecure_channel(self.server.grpc_target) as channel:
            await self.call_on(channel, method, message, seconds)

    async def call_on(
        self, channel: grpc.aio.Channel, method: str, message: object, seconds: float
    ) -> None:
        """One of many on a channel."""
        metadata = (("authorization", f"Bearer {self.key}"),)
        kind = "OK"
        try:
            call = getattr(PythiaStub(channel), method)(message, timeout=seconds, metadata=metadata)
            if method == "Generate":
                async for _ in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError as error:
            kind = error.code().name
        self.answers[kind] += 1

    async def repeat(self, at_once: int, ask: Callable[[], Awaitable[None]]) -> None:
        """So many at a time, again and again until its time is over."""

        async def one() -> None:
            while time.monotonic() < self.until:
                await ask()

        await asyncio.gather(*(one() for _ in range(at_once)))


Attack = Callable[[Attacker], Awaitable[None]]


async def score_items_over_grpc(attacker: Attacker) -> None:
    """F1: more items than may be, and as many as may be, with a deadline."""
    item = pb.ScoreItem(prompt=pb.Prompt(tokens=pb.TokenIds(ids=[5, 6])))
    messages = [pb.ScoreRequest(items=[item] * count) for count in (500_000, 4096)]

    async def ask() -> None:
        for message in messages:
            await attacker.call("Score", message, 5)

    await attacker.repeat(1, ask)


async def long_texts(attacker: Attacker) -> None:
    """F2: a text of 8 MiB, and many of the longest that are tokenised."""
    text = json.dumps({"prompt": "a " * (BODY // 2 - 50)}).encode()
    many = json.dumps({"prompt": ["ab " * 1365] * 2000}).encode()
    bodies = [("/tokenize", text), ("/v1/completions", text), ("/v1/completions", many)]

    async def ask() -> None:
        for path, body in bodies:
            await attacker.post(path, body)

    await attacker.repeat(2, ask)


async def trailers(attacker: Attacker) -> None:
    """F3: a trailer without end behind a request without a key."""
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    head += b"2\r\n{}\r\n0\r\nX: "
    await attacker.repeat(2, lambda: _send(attacker, head, b"a" * 2**16, 800))


async def pipelining(attacker: Attacker) -> None:
    """F4: 100,000 requests without a key on one connection."""
    requests = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    await attacker.repeat(2, lambda: _send(attacker, b"", requests, 100))


async def leaving_scores(attacker: Attacker) -> None:
    """F8: 2,000 items of 128 tokens over HTTP, and gone."""
    body = json.dumps({"items": [{"prompt": [7] * 128}] * 2000}).encode()
    await attacker.repeat(4, lambda: attacker.post("/score", body, patience=0.5))


async def many_sequences(attacker: Attacker) -> None:
    """F9: as many continuations as a request may have."""
    fields = {"prompt": ["a"] * 32, "n": 128, "max_tokens": 500, "ignore_eos": True}
    body = json.dumps(fields).encode()
    await attacker.repeat(4, lambda: attacker.post("/v1/completions", body, patience=4))


async def long_prompts(attacker: Attacker) -> None:
    """Of a whole context each, none of which the cache knows."""
    count = 0

    async def ask() -> None:
        nonlocal count
        count += 1
        ids = [5 + (count * 31 + place * 7) % 900 for place in range(CONTEXT - 1)]
        await attacker.post("/generate", json.dumps({"prompt": ids, "max_tokens": 1}).encode())

    await attacker.repeat(64, ask)


async def many_scores(attacker: Attacker) -> None:
    """As many items as a request may have, each of a context."""
    body = json.dumps({"items": [{"prompt": [9] * 500}] * 4000}).encode()
    await attacker.repeat(2, lambda: attacker.post("/score", body, patience=5))


async def unknown_fields(attacker: Attacker) -> None:
    """F10: 8 MB of fields that nobody knows, and of empty lists."""
    fields = b"{" + b",".join(b'"%d":1' % number for number in range(800_000))[: BODY - 9] + b"}"
    lists = b'{"prompt":[' + b"[]," * (BODY // 3 - 9) + b"[]]}"

    async def ask() -> None:
        for path in ("/v1/completions", "/generate", "/tokenize"):
            await attacker.post(path, fields)
            await attacker.post(path, lists)

    await attacker.repeat(2, ask)


async def long_names(attacker: Attacker) -> None:
    """F11: a model's name of 8 MB, and 3 MB, which is read."""
    bodies = [
        json.dumps({"model": "a" * size, "prompt": "a"}).encode() for size in (BODY - 50, 3_000_000)
    ]

    async def ask() -> None:
        for body in bodies:
            await attacker.post("/v1/completions", body)

    await attacker.repeat(2, ask)


async def bursts_over_grpc(attacker: Attacker) -> None:
    """F13: 4,000 calls at once."""
    message = pb.GenerateRequest(prompt=pb.Prompt(tokens=pb.TokenIds(ids=[5, 6])))

    async def ask() -> None:
        async with grpc.aio.insecure_channel(attacker.server.grpc_target) as channel:
            calls = (attacker.call_on(channel, "Generate", message, 5) for _ in range(4000))
            await asyncio.gather(*calls)

    await attacker.repeat(1, ask)


async def large_answers(attacker: Attacker) -> None:
    """As many alternatives as may be asked for."""
    fields = {"prompt": "a", "n": 100, "max_tokens": 500, "logprobs": 20, "ignore_eos": True}
    body = json.dumps(fields).encode()
    await attacker.repeat(2, lambda: attacker.post("/v1/completions", body))


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        *(score_items_over_grpc, long_texts, trailers, pipelining, leaving_scores, many_sequences),
        *(long_prompts, many_scores, unknown_fields, long_names, bursts_over_grpc, large_answers),
    )
}
TOGETHER = (
    *("score_items_over_grpc", "long_texts", "trailers", "pipelining", "leaving_scores"),
    *("many_sequences", "unknown_fields", "bursts_over_grpc"),
)


async def _send(attacker: Attacker, head: bytes, piece: bytes, pieces: int) -> None:
    """As much as the server takes of ``head`` and so many pieces, while it answers or not."""
    reader, writer = await asyncio.open_connection(HOST, attacker.server.port)

    async def read() -> None:
        while await reader.read(2**16):
            pass

    reading = asyncio.create_task(read())
    with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
        writer.write(head)
        for _ in range(pieces):
            if reading.done() or time.monotonic() > attacker.until:
                break
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), 5)
    attacker.answers["closed by the server" if reading.done() else "left"] += 1
    reading.cancel()
    writer.close()
    await asyncio.gather(reading, return_exceptions=True)
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
