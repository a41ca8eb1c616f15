"""Somebody who means no good, and what he was answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import grpc
import httpx
from google.protobuf.message import Message

from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub

SECONDS = 60.0  # that an attacker waits for an answer


@dataclass
class Attacker:
    """With a key of its own, and a count of the answers it had."""

    url: str  # of HTTP
    grpc_target: str
    key: str
    seconds: float
    burst: int = 4000  # calls at once
    began: float = 0.0  # time.monotonic() when its messages were made
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.began + self.seconds

    async def post(self, path: str, body: bytes, patience: float = SECONDS) -> None:
        """One request, of which only the status counts; ``patience`` in seconds, then it leaves."""
        # Without TLS nothing is verified, and the system's certificates take 50 ms to read.
        async with httpx.AsyncClient(base_url=self.url, timeout=None, verify=False) as client:
            request = client.post(
                path, content=body, headers={"authorization": f"Bearer {self.key}"}
            )
            try:
                kind = str((await asyncio.wait_for(request, patience)).status_code)
            except (asyncio.TimeoutError, httpx.HTTPError) as error:
                kind = type(error).__name__
        self.answers[kind] += 1

    async def call(
        self, method: str, message: Message, seconds: float = SECONDS, *metadata: tuple[str, str]
    ) -> None:
        """One call over gRPC."""
        async with grpc.aio.insecure_channel(self.grpc_target) as channel:
            await self.call_on(channel, method, message, seconds, *metadata)

    async def call_on(
        self,
        channel: grpc.aio.Channel,
        method: str,
        message: Message,
        seconds: float = SECONDS,
        *metadata: tuple[str, str],
    ) -> None:
        """One of many on a channel."""
        metadata = (("authorization", f"Bearer {self.key}"), *metadata)
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

    async def send(self, head: bytes, piece: bytes, pieces: int) -> None:
        """As much as the server takes of ``head`` and so many pieces, while it answers or not."""
        where = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)

        async def read() -> None:
            while await reader.read(2**16):
                pass

        reading = asyncio.create_task(read())
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            writer.write(head)
            for _ in range(pieces):
                if reading.done() or self.is_over:
                    break
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), 5)
        self.answers["closed by the server" if reading.done() else "left"] += 1
        reading.cancel()
        writer.close()
        await asyncio.gather(reading, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def repeat(self, at_once: int, *asks: Callable[[], Awaitable[None]]) -> None:
        """So many of each at a time, again and again until its time is over."""
        self.began = self.began or time.monotonic()

        async def one(ask: Callable[[], Awaitable[None]]) -> None:
            while not self.is_over:
                await ask()

        await asyncio.gather(*(one(ask) for ask in asks for _ in range(at_once)))
