"""Over HTTP: the service's own routes."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from pythia_bento.client import http_messages
from pythia_bento.client.answer import Answer
from pythia_bento.client.options import Connection
from pythia_bento.client.transport import Messages, Operation, Result
from pythia_bento.errors import DeadlineExceeded, EngineUnavailable, PythiaError

MUCH = 2**20  # bytes of an answer; what reads it in small pieces takes most of the time


class HttpTransport:
    """Blocking calls."""

    def __init__(self, connection: Connection) -> None:
        self._http = httpx2.Client(**_client_options(connection))

    def call(self, operation: Operation[Result], timeout: float) -> Result:
        with _translated(timeout):
            response = self._http.request(**_request(operation, timeout))
        _check(response)
        return operation.result(response.content)

    def fetch(self, operation: Operation[Result], timeout: float) -> Result:
        with (
            _translated(timeout),
            self._http.stream(**_request(operation, timeout, _AS_IT_IS)) as response,
        ):
            if not response.is_success:
                response.read()
                _check(response)
            body = _Body(operation.method, response.headers)
            for piece in response.iter_raw():
                body.add(piece)
                # Nothing of it is left in the library's buffers now. What is not read through them
                # ends the connection, which is a small price for much.
                if body.missing > MUCH and (source := _socket_of(response)) is not None:
                    body.receive(source, timeout)
                    break
        return operation.result(body.whole())

    def stream(self, operation: Operation[Result], timeout: float) -> Generator[Result, None, None]:
        with (
            _translated(timeout),
            self._http.stream(**_request(operation, timeout)) as response,
        ):
            if response.is_error:
                response.read()
                _check(response)
            answer = Answer(operation.result)
            for piece in response.iter_bytes():
                yield from answer.read(piece)
            answer.check_end()

    def close(self) -> None:
        self._http.close()


class AsyncHttpTransport:
    """The same for coroutines."""

    def __init__(self, connection: Connection) -> None:
        self._http = httpx2.AsyncClient(**_client_options(connection))

    async def call(self, operation: Operation[Result], timeout: float) -> Result:
        with _translated(timeout):
            response = await self._http.request(**_request(operation, timeout))
        _check(response)
        return operation.result(response.content)

    async def fetch(self, operation: Operation[Result], timeout: float) -> Result:
        with _translated(timeout):
            async with self._http.stream(**_request(operation, timeout, _AS_IT_IS)) as response:
                if not response.is_success:
                    await response.aread()
                    _check(response)
                body = _Body(operation.method, response.headers)
                async for piece in response.aiter_raw():
                    body.add(piece)
        return operation.result(body.whole())

    async def stream(
        self, operation: Operation[Result], timeout: float
    ) -> AsyncGenerator[Result, None]:
        with _translated(timeout):
            async with self._http.stream(**_request(operation, timeout)) as response:
                if response.is_error:
                    await response.aread()
                    _check(response)
                answer = Answer(operation.result)
                async for piece in response.aiter_bytes():
                    for result in answer.read(piece):
                        yield result
                answer.check_end()

    async def close(self) -> None:
        await self._http.aclose()


class _Body:
    """An answer of the length that its headers say, in one piece of memory."""

    def __init__(self, method: str, headers: httpx2.Headers) -> None:
        """Raises PythiaError where they say none, or more than there is memory for."""
        import numpy as np  # as who reads much has anyway

        try:
            # Without zeros that would only be written over.
            self._memory = np.empty(int(headers["content-length"]), np.uint8).data
        except (KeyError, MemoryError, OverflowError, ValueError):
            raise PythiaError(f"the server's answer to {method} has no length to read") from None
        self._method, self._place = method, 0

    @property
    def missing(self) -> int:
        """Bytes."""
        return len(self._memory) - self._place

    def add(self, piece: bytes) -> None:
        """The next bytes."""
        end = self._place + len(piece)
        if end <= len(self._memory):  # what is more is no part of it
            self._memory[self._place : end] = piece
        self._place = end

    def receive(self, source: socket.socket, timeout: float) -> None:
        """All that is missing, up to its end or the connection's; raises OSError."""
        source.settimeout(timeout)
        while self.missing and (count := source.recv_into(self._memory[self._place :])):
            self._place += count

    def whole(self) -> memoryview:
        """All of it; raises EngineUnavailable where something is missing."""
        if self.missing:
            raise EngineUnavailable(f"the server's answer to {self._method} broke off")
        return self._memory


def _socket_of(response: httpx2.Response) -> socket.socket | None:
    """Where the body of a streamed answer comes from, as it is; None where something lies between.

    That is chunks, or TLS which the socket does not know of, as in a proxy's tunnel.
    """
    stream = response.extensions.get("network_stream")
    if stream is None or "transfer-encoding" in response.headers:
        return None
    source = stream.get_extra_info("socket")
    has_tls = stream.get_extra_info("ssl_object") is not None
    if not isinstance(source, socket.socket) or isinstance(source, ssl.SSLSocket) != has_tls:
        return None
    return source


def messages() -> Messages:
    """How HTTP says the operations."""
    return http_messages


connect = HttpTransport
connect_async = AsyncHttpTransport


def _client_options(connection: Connection) -> dict[str, Any]:
    return {
        "base_url": f"{connection.scheme}://{connection.address}",
        "headers": {
            **connection.headers(),
            "accept": "application/json, text/event-stream, application/vnd.safetensors",
        },
        "verify": _ssl_context(connection) if connection.scheme == "https" else True,
    }


def _ssl_context(connection: Connection) -> ssl.SSLContext:
    tls = connection.tls
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


_AS_IT_IS = {"accept-encoding": "identity"}  # what is packed has another length


def _request(
    operation: Operation[Any], timeout: float, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "url": operation.method,
        "timeout": timeout,
        "headers": {**(headers or {})},
    }
    if operation.request is None:
        return {"method": "GET", **options}
    if isinstance(operation.request, bytes):
        options["headers"]["content-type"] = "application/json"
        return {"method": "POST", "content": operation.request, **options}
    return {"method": "POST", "files": operation.request, **options}  # parts by their names


def _check(response: httpx2.Response) -> None:
    """Raise what an answer tells of that is none."""
    if not response.is_success:
        retry_after = response.headers.get("retry-after")
        raise http_messages.refusal(response.status_code, retry_after, response.content)


@contextmanager
def _translated(timeout: float) -> Iterator[None]:
    try:
        yield
    except (httpx2.TimeoutException, TimeoutError):
        raise DeadlineExceeded(f"the server was silent for {timeout:g} seconds") from None
    except (httpx2.TransportError, OSError) as error:
        raise EngineUnavailable(f"the server cannot be reached: {error}") from None
    except httpx2.RequestError as error:  # a redirect, or an encoding that is wrong
        raise PythiaError(f"the server's answer cannot be read: {error!r}") from None
