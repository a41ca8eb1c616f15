"""What somebody does who means no good: one function an attack, named as in docs/faults.md.

Over HTTP and gRPC at the same time, where an attack is one of both.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import grpc

from bench.soak.attacker import Attacker
from pythia_bento.protocol.generated import pythia_pb2 as pb

BODY = 8 * 2**20 - 100  # bytes, just below the server's limit
FIELD = 2**20  # bytes, just below the limit of a field of a message
CONTEXT = 512  # of the bundled model
UNKNOWN = b"\xc0\x3e\x01"  # field 1000 of a message, which none has

Attack = Callable[[Attacker], Awaitable[None]]
IDS = pb.Prompt(tokens=pb.TokenIds(ids=[5, 6]))


async def score_items_over_grpc(attacker: Attacker) -> None:
    """F1: more items than may be, and as many as may be, with a deadline."""
    messages = [pb.ScoreRequest(items=[pb.ScoreItem(prompt=IDS)] * n) for n in (500_000, 4096)]

    async def ask() -> None:
        for message in messages:
            await attacker.call("Score", message, 5)

    await attacker.repeat(1, ask)


async def long_texts(attacker: Attacker) -> None:
    """F2: a text of 8 MiB, and many of the longest that are tokenised."""
    text = json.dumps({"prompt": "a " * (BODY // 2 - 50)}).encode()
    many = json.dumps({"prompt": ["ab " * 1365] * 2000}).encode()
    bodies = [("/tokenize", text), ("/v1/completions", text), ("/v1/completions", many)]
    whole = pb.TokenizeRequest(text="a " * (BODY // 2 - 50))
    longest = pb.TokenizeRequest(text="a " * 2**17)

    async def ask() -> None:
        for path, body in bodies:
            await attacker.post(path, body)

    async def call() -> None:
        await attacker.call("Tokenize", whole)
        await attacker.call("Tokenize", longest)

    await attacker.repeat(1, ask, call)


async def trailers(attacker: Attacker) -> None:
    """F3: a trailer without end behind a request without a key."""
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    head += b"2\r\n{}\r\n0\r\nX: "
    await attacker.repeat(2, lambda: attacker.send(head, b"a" * 2**16, 800))


async def pipelining(attacker: Attacker) -> None:
    """F4: 100,000 requests without a key on one connection."""
    requests = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    await attacker.repeat(2, lambda: attacker.send(b"", requests, 100))


async def leaving_scores(attacker: Attacker) -> None:
    """F8: 2,000 items of 128 tokens, and gone."""
    body = json.dumps({"items": [{"prompt": [7] * 128}] * 2000}).encode()
    item = pb.ScoreItem(prompt=pb.Prompt(tokens=pb.TokenIds(ids=[7] * 128)))
    message = pb.ScoreRequest(items=[item] * 2000)
    await attacker.repeat(
        2,
        lambda: attacker.post("/score", body, patience=0.5),
        lambda: attacker.call("Score", message, 0.5),
    )


async def many_sequences(attacker: Attacker) -> None:
    """F9: as many continuations as a request may have."""
    fields = {"prompt": ["a"] * 32, "n": 128, "max_tokens": 500, "ignore_eos": True}
    body = json.dumps(fields).encode()
    sampling = pb.Sampling(n=128, max_tokens=500, ignore_eos=True)
    message = pb.GenerateRequest(prompt=IDS, sampling=sampling)
    await attacker.repeat(
        2,
        lambda: attacker.post("/v1/completions", body, patience=2),
        lambda: attacker.call("Generate", message, 2),
    )


async def long_prompts(attacker: Attacker) -> None:
    """Of a whole context each, none of which the cache knows."""
    count = 0

    def ids() -> list[int]:
        nonlocal count
        count += 1
        return [5 + (count * 31 + place * 7) % 900 for place in range(CONTEXT - 1)]

    async def ask() -> None:
        body = json.dumps({"prompt": ids(), "max_tokens": 1}).encode()
        await attacker.post("/generate", body)

    async def call() -> None:
        prompt = pb.Prompt(tokens=pb.TokenIds(ids=ids()))
        await attacker.call(
            "Generate", pb.GenerateRequest(prompt=prompt, sampling={"max_tokens": 1})
        )

    await attacker.repeat(8, ask, call)


async def many_scores(attacker: Attacker) -> None:
    """As many items as a request may have, each of a context."""
    body = json.dumps({"items": [{"prompt": [9] * 500}] * 4000}).encode()
    item = pb.ScoreItem(prompt=pb.Prompt(tokens=pb.TokenIds(ids=[9] * 500)))
    message = pb.ScoreRequest(items=[item] * 4000)
    await attacker.repeat(
        1,
        lambda: attacker.post("/score", body, patience=3),
        lambda: attacker.call("Score", message, 3),
    )


async def unknown_fields(attacker: Attacker) -> None:
    """F10: 8 MB of fields that nobody knows, and of empty lists; of a message and of its parts."""
    fields = b"{" + b",".join(b'"%d":1' % number for number in range(800_000))[: BODY - 9] + b"}"
    lists = b'{"prompt":[' + b"[]," * (BODY // 3 - 9) + b"[]]}"
    whole = pb.GenerateRequest.FromString(UNKNOWN * (BODY // len(UNKNOWN)))
    part = pb.ScoreItem.FromString(UNKNOWN * (FIELD // len(UNKNOWN)))
    parts = pb.ScoreRequest(items=[part] * 7)

    async def ask() -> None:
        for path in ("/v1/completions", "/generate", "/tokenize"):
            await attacker.post(path, fields)
            await attacker.post(path, lists)

    async def call() -> None:
        await attacker.call("Generate", whole)
        await attacker.call("Score", parts)

    await attacker.repeat(1, ask, call)


async def long_names(attacker: Attacker) -> None:
    """F11: a model's name of 8 MB, and 3 MB, which is read; a field's; a header's."""
    bodies = [
        *(json.dumps({"model": "a" * size, "prompt": "a"}) for size in (BODY - 50, 3_000_000)),
        *(json.dumps({"a" * size: 1, "prompt": "a"}) for size in (BODY - 50, 3_000_000)),
    ]
    names = [pb.GenerateRequest(prompt=IDS, model="a" * size) for size in (BODY - 50, FIELD)]

    async def ask() -> None:
        for body in bodies:
            await attacker.post("/v1/completions", body.encode())
        await attacker.send(b"GET /v1/models HTTP/1.1\r\n", b"x" * 2**16, 100)

    async def call() -> None:
        for message in names:
            await attacker.call("Generate", message)
        await attacker.call("Info", pb.InfoRequest(), 60, ("x-request-id", "a" * 7000))

    await attacker.repeat(1, ask, call)


async def bursts_over_grpc(attacker: Attacker) -> None:
    """F13: thousands of calls at once."""
    message = pb.GenerateRequest(prompt=IDS)

    async def ask() -> None:
        async with grpc.aio.insecure_channel(attacker.grpc_target) as channel:
            calls = (attacker.call_on(channel, "Generate", message) for _ in range(attacker.burst))
            await asyncio.gather(*calls)

    await attacker.repeat(1, ask)


async def large_answers(attacker: Attacker) -> None:
    """As many alternatives as may be asked for."""
    fields = {"prompt": "a", "n": 100, "max_tokens": 500, "logprobs": 20, "ignore_eos": True}
    body = json.dumps(fields).encode()
    await attacker.repeat(1, lambda: attacker.post("/v1/completions", body))


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
