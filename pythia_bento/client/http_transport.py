"""Over HTTP: the service's own routes."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from pythia_bento.client import http_messages
from pythia_bento.client.answer import Answer
from pythia_bento.client.options import Connection
from pythia_bento.client.transport import Messages, Operation, Result
from pythia_bento.errors import DeadlineExceeded, EngineUnavailable, PythiaError


class HttpTransport:
    """Blocking calls."""

    def __init__(self, connection: Connection) -> None:
        self._http = httpx2.Client(**_client_options(connection))

    def call(self, operation: Operation[Result], timeout: float) -> Result:
        with _translated(timeout):
            response = self._http.request(**_request(operation, timeout))
        _check(response)
        return operation.result(response.content)

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
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        },
        "verify": _ssl_context(connection) if connection.scheme == "https" else True,
    }


def _ssl_context(connection: Connection) -> ssl.SSLContext:
    tls = connection.tls
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def _request(operation: Operation[Any], timeout: float) -> dict[str, Any]:
    return {
        "method": "GET" if operation.request is None else "POST",
        "url": operation.method,
        "content": operation.request,
        "timeout": timeout,
    }


def _check(response: httpx2.Response) -> None:
    """Raise what an answer tells of that is none."""
    if not response.is_success:
        retry_after = response.headers.get("retry-after")
        raise http_messages.refusal(response.status_code, retry_after, response.content)


@contextmanager
def _translated(timeout: float) -> Iterator[None]:
    try:
        yield
    except httpx2.TimeoutException:
        raise DeadlineExceeded(f"the server was silent for {timeout:g} seconds") from None
    except httpx2.TransportError as error:
        raise EngineUnavailable(f"the server cannot be reached: {error}") from None
    except httpx2.RequestError as error:  # a redirect, or an encoding that is wrong
        raise PythiaError(f"the server's answer cannot be read: {error!r}") from None
