"""Ways to ask the service, for clients that cost themselves little. Plain sockets: a client library
would spend more than the server that is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bench.common.stats import Timing

Prompts = list[list[int]]
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_END = b"0\r\n\r\n"  # of a chunked body


class Connection(Protocol):
    """One client of a transport."""

    async def ask(self, prompts: Prompts, new: int) -> Timing:
        """Have all of a request done; raises RuntimeError on any other answer.

        That is ``new`` greedy tokens of each prompt, or the scores of the prompts' tokens. The
        tokens that count are those that were generated, or those of the prompts.
        """
        ...

    async def close(self) -> None: ...


class Form(Protocol):
    """What is asked over HTTP, and what an answer of it says."""

    path: str

    def body(self, prompts: Prompts, new: int) -> Mapping[str, Any]:
        """Of the request."""
        ...

    def has_all(self, body: bytes, prompts: Prompts, new: int) -> bool:
        """Whether an answer is whole."""
        ...

    def tokens(self, prompts: Prompts, new: int) -> int:
        """That count."""
        ...


class Completions:
    """Greedy tokens."""

    path = "/v1/completions"
    _USED = re.compile(rb'"completion_tokens":\s?(\d+)')

    def __init__(self, stream: bool = False) -> None:
        self._stream = stream

    def body(self, prompts: Prompts, new: int) -> Mapping[str, Any]:
        prompt = prompts[0] if len(prompts) == 1 else prompts
        fields = {"prompt": prompt, "max_tokens": new, "temperature": 0, "ignore_eos": True}
        if self._stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return fields

    def has_all(self, body: bytes, prompts: Prompts, new: int) -> bool:
        used = self._USED.findall(body)
        return bool(used) and int(used[-1]) == self.tokens(prompts, new)

    def tokens(self, prompts: Prompts, new: int) -> int:
        return new * len(prompts)


class Scores:
    """``/score``."""

    path = "/score"
    _SCORED = re.compile(rb'"num_tokens":\s?(\d+)')

    def body(self, prompts: Prompts, new: int) -> Mapping[str, Any]:
        return {"items": [{"prompt": prompt} for prompt in prompts]}

    def has_all(self, body: bytes, prompts: Prompts, new: int) -> bool:
        scored = list(map(int, self._SCORED.findall(body)))
        return scored == [len(prompt) - 1 for prompt in prompts]

    def tokens(self, prompts: Prompts, new: int) -> int:
        return sum(map(len, prompts))


class Echo(Scores):
    """``/v1/completions`` as lm-eval asks it for log-likelihoods."""

    path = "/v1/completions"
    _USED = re.compile(rb'"prompt_tokens":\s?(\d+)')

    def body(self, prompts: Prompts, new: int) -> Mapping[str, Any]:
        asked = {"max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0, "seed": 1234}
        return {"prompt": prompts, **asked}

    def has_all(self, body: bytes, prompts: Prompts, new: int) -> bool:
        used = self._USED.findall(body)
        return bool(used) and int(used[-1]) == self.tokens(prompts, new)


class Http:
    """One kept-alive connection."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, host: str, port: int, form: Form) -> Http:
        self = cls(form)
        self._reader, self._writer = await asyncio.open_connection(host, port, limit=1 << 22)
        return self

    async def ask(self, prompts: Prompts, new: int) -> Timing:
        request = self._request(prompts, new)
        timing = Timing(time.monotonic())
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length:
            body = await self._reader.readexactly(int(length[1]))
        else:
            body = await self._chunks(timing)
        timing.end = time.monotonic()
        if not head.startswith(b"HTTP/1.1 200") or not self._form.has_all(body, prompts, new):
            raise RuntimeError(
                f"not an answer of {new} tokens, or of {len(prompts)} prompts: "
                f"{head!r} {body[-500:]!r}"
            )
        timing.tokens = self._form.tokens(prompts, new)
        return timing

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def _request(self, prompts: Prompts, new: int) -> bytes:
        body = json.dumps(self._form.body(prompts, new)).encode()
        head = f"POST {self._form.path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"Content-Type: application/json\r\n\r\n" + body

    async def _chunks(self, timing: Timing) -> bytes:
        """A chunked body; notes when events with choices came."""
        body = bytearray()
        while not body.endswith(_END):
            data = await self._reader.read(1 << 20)
            if not data:
                raise RuntimeError(f"the connection was closed after {bytes(body[-2000:])!r}")
            if b'"index":' in data:
                timing.arrivals.append(time.monotonic())
            body += data
        return bytes(body)


class Grpc:
    """Unary ``Score``."""

    def __init__(self, channel: Any, stub: Any) -> None:
        self._channel, self._stub = channel, stub

    @classmethod
    async def connect(cls, host: str, port: int) -> Grpc:
        import grpc

        from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub

        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        channel = grpc.aio.insecure_channel(f"{host}:{port}", options)
        return cls(channel, PythiaStub(channel))

    async def ask(self, prompts: Prompts, new: int) -> Timing:
        from pythia_bento.protocol.generated import pythia_pb2 as pb

        items = [pb.ScoreItem(prompt=pb.Prompt(tokens={"ids": prompt})) for prompt in prompts]
        request = pb.ScoreRequest(items=items)
        timing = Timing(time.monotonic())
        answer = await self._stub.Score(request)
        timing.end = time.monotonic()
        if [r.score.num_tokens for r in answer.results] != [len(p) - 1 for p in prompts]:
            raise RuntimeError(f"not an answer of {len(prompts)} prompts: {str(answer)[:500]}")
        timing.tokens = sum(map(len, prompts))
        return timing

    async def close(self) -> None:
        await self._channel.close()


Connect = Callable[[str, int], Any]


def _http(form: Form) -> Connect:
    return lambda host, port: Http.connect(host, port, form)


# Another transport needs a Connection and a line here.
TRANSPORTS: dict[str, Connect] = {
    "http": _http(Completions()),
    "http-stream": _http(Completions(stream=True)),
    "score": _http(Scores()),
    "echo": _http(Echo()),
    "grpc-score": Grpc.connect,
}
GRPC_PORT = {"grpc-score"}
"""Those that ask another port."""
