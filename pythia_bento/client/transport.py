"""What carries calls: the seam between the clients and HTTP or gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol

from pythia_bento.client.options import Connection
from pythia_bento.errors import PythiaError
from pythia_bento.protocol.types import Info, Part, Prompt, Score, ScoreItem

Scores = list[Score | PythiaError]


class Transport(Protocol):
    """Blocking calls; ``timeout`` in seconds. ``Client`` describes them."""

    def info(self, timeout: float) -> Info: ...

    def stream(self, prompt: Prompt, options: dict[str, Any], timeout: float) -> Iterator[Part]: ...

    def score(self, items: Sequence[ScoreItem], timeout: float) -> Scores: ...

    def tokenize(self, text: str, timeout: float) -> list[int]: ...

    def detokenize(self, ids: Sequence[int], timeout: float) -> str: ...

    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """The same for coroutines."""

    async def info(self, timeout: float) -> Info: ...

    def stream(
        self, prompt: Prompt, options: dict[str, Any], timeout: float
    ) -> AsyncIterator[Part]: ...

    async def score(self, items: Sequence[ScoreItem], timeout: float) -> Scores: ...

    async def tokenize(self, text: str, timeout: float) -> list[int]: ...

    async def detokenize(self, ids: Sequence[int], timeout: float) -> str: ...

    async def close(self) -> None: ...


# Each transport is imported when it is asked for: who uses one need not load the other.


def connect(connection: Connection) -> Transport:
    """The transport that the URL names."""
    if connection.is_grpc:
        from pythia_bento.client.grpc_transport import GrpcTransport

        return GrpcTransport(connection)
    from pythia_bento.client.http_transport import HttpTransport

    return HttpTransport(connection)


def connect_async(connection: Connection) -> AsyncTransport:
    """The same for coroutines, in the event loop that uses it."""
    if connection.is_grpc:
        from pythia_bento.client.grpc_transport import AsyncGrpcTransport

        return AsyncGrpcTransport(connection)
    from pythia_bento.client.http_transport import AsyncHttpTransport

    return AsyncHttpTransport(connection)
