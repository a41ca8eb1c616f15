"""Over gRPC: ``pythia.v1``."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from pythia_bento.client import grpc_messages
from pythia_bento.client.options import Connection
from pythia_bento.client.transport import Messages, Operation, Result
from pythia_bento.protocol.generated.pythia_pb2_grpc import PythiaStub

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class _Parts(deque[Any]):
    """Messages of an answer of many bytes."""

    def taken(self) -> Iterator[Any]:
        """Each once: its memory is free when the next one is looked at."""
        while self:
            yield self.popleft()


class _Caller:
    """Begins calls on a channel of either kind."""

    def __init__(self, channel: Any, connection: Connection) -> None:
        self._channel = channel
        self._stub: Any = PythiaStub(channel)
        self._metadata = tuple(connection.headers().items())

    def _begin(self, operation: Operation[Any], timeout: float) -> Any:
        method = getattr(self._stub, operation.method)
        return method(operation.request, timeout=timeout, metadata=self._metadata)


class GrpcTransport(_Caller):
    """Blocking calls."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(_channel(grpc, connection), connection)

    def call(self, operation: Operation[Result], timeout: float) -> Result:
        with _translated():
            return operation.result(self._begin(operation, timeout))

    def fetch(self, operation: Operation[Result], timeout: float) -> Result:
        call, parts = self._begin(operation, timeout), _Parts()
        try:
            with _translated():
                parts.extend(call)
        finally:
            call.cancel()  # harmless at the end
        return operation.result(parts.taken())

    def stream(self, operation: Operation[Result], timeout: float) -> Generator[Result, None, None]:
        call = self._begin(operation, timeout)
        try:
            with _translated():
                for response in call:
                    yield operation.result(response)
        finally:
            call.cancel()  # harmless at the end

    def close(self) -> None:
        self._channel.close()


class AsyncGrpcTransport(_Caller):
    """The same for coroutines; made in the event loop that uses it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(_channel(grpc.aio, connection), connection)

    async def call(self, operation: Operation[Result], timeout: float) -> Result:
        with _translated():
            return operation.result(await self._begin(operation, timeout))

    async def fetch(self, operation: Operation[Result], timeout: float) -> Result:
        call, parts = self._begin(operation, timeout), _Parts()
        try:
            with _translated():
                async for part in call:
                    parts.append(part)
        finally:
            call.cancel()  # harmless at the end
        return operation.result(parts.taken())

    async def stream(
        self, operation: Operation[Result], timeout: float
    ) -> AsyncGenerator[Result, None]:
        call = self._begin(operation, timeout)
        try:
            with _translated():
                async for response in call:
                    yield operation.result(response)
        finally:
            call.cancel()  # harmless at the end

    async def close(self) -> None:
        await self._channel.close()


def messages() -> Messages:
    """How gRPC says the operations."""
    return grpc_messages


connect = GrpcTransport
connect_async = AsyncGrpcTransport


def _channel(kind: Any, connection: Connection) -> Any:
    """``kind`` is grpc or grpc.aio."""
    if connection.scheme == "grpc":
        return kind.insecure_channel(connection.address, OPTIONS)
    tls = connection.tls
    ca, key, cert = (
        None if path is None else Path(path).read_bytes() for path in (tls.ca, tls.key, tls.cert)
    )
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
    return kind.secure_channel(connection.address, credentials, OPTIONS)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise grpc_messages.refusal(error) from None
