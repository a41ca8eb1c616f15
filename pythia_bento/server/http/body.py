"""The bodies of HTTP requests: their limits, and clients that leave while they are answered."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pythia_bento.engine.validate import Limits
from pythia_bento.errors import PayloadTooLarge, PythiaError, RequestTimeout
from pythia_bento.protocol.parsing import loads
from pythia_bento.server.access.control import BodyRoom, Grow
from pythia_bento.server.http.error_shape import ErrorShaper
from pythia_bento.server.http.errors import error_response
from pythia_bento.server.http.json_body import read_large
from pythia_bento.server.http.multipart import is_multipart
from pythia_bento.server.openapi.operations import operation_of

INNER_TYPE = "application/vnd.bentoml+pickle"
_INNER = INNER_TYPE.encode()
SMALL = 2**16  # bytes of a body that are parsed at once
HEADS = 2**14  # bytes of a body besides its parts


class RequestMiddleware:
    """Around the whole service, mounted applications included.

    Bodies are read before the application starts, which has two uses: the limit holds for chunked
    bodies too, and from then on the only thing the client can send is that it is gone. Then the
    application's task is cancelled, and with it whatever it asked of the engine.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int,
        room: BodyRoom,
        client_timeout: float,
        max_tensor_bytes: int = 0,
    ) -> None:
        """``room`` is shared with other transports."""
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.max_tensor_bytes = max_tensor_bytes
        self.client_timeout = client_timeout
        self.room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        shaped = ErrorShaper(scope, send)
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return await self.app(scope, receive, shaped)
        with self.room.place() as grow:
            try:
                body = await self._read_in_time(scope, receive, grow)
            except PythiaError as error:
                return await error_response(error)(scope, receive, send)
            if body is not None:
                await _until_disconnect(self.app, _as_json(scope), body, receive, shaped)
        if not shaped.has_started:
            # The client is gone. Middleware above waits for an answer all the same, BentoML's
            # for as long as its time-out; 499 is nginx's word for this in logs and metrics.
            await Response(status_code=499)(scope, receive, send)

    async def _read_in_time(self, scope: Scope, receive: Receive, grow: Grow) -> bytes | None:
        try:
            return await asyncio.wait_for(self._read(scope, receive, grow), self.client_timeout)
        except asyncio.TimeoutError:
            raise RequestTimeout(
                f"the body did not arrive within {self.client_timeout:g} seconds"
            ) from None

    async def _read(self, scope: Scope, receive: Receive, grow: Grow) -> bytes | None:
        """The whole body; None when the client left. Raises PayloadTooLarge and Overloaded."""
        announced, most = Headers(scope=scope).get("content-length", "0"), self._most(scope)
        _check_size(int(announced) if announced.isdigit() else 0, most)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            _check_size(len(body), most)
            grow(len(body))
            if not message.get("more_body", False):
                return bytes(body)

    def _most(self, scope: Scope) -> int:
        """Bytes that a body may have: more where it brings a file, but never more than has room."""
        if not _has_parts(scope):
            return self.max_body_bytes
        return min(self.max_body_bytes + self.max_tensor_bytes + HEADS, self.room.most)


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise PayloadTooLarge(f"the body has {size} bytes or more, but the limit is {most}")


def _has_parts(scope: Scope) -> bool:
    """Whether the body is of JSON and a file, and may be."""
    operation = operation_of(scope["path"])
    takes_file = operation is not None and operation.takes_tensors
    return takes_file and is_multipart(Headers(scope=scope).get("content-type", ""))


async def _until_disconnect(
    app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send
) -> None:
    """Run ``app`` to its end, or cancel it when the client is gone."""
    gone = asyncio.ensure_future(_wait_for_disconnect(receive))
    served = asyncio.ensure_future(app(scope, _Replay(body, gone), send))
    try:
        await asyncio.wait((served, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not served.done():
            served.cancel()
            await asyncio.wait((served,))
    if not served.cancelled():
        served.result()


async def _wait_for_disconnect(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message


class _Replay:
    """A ``receive`` for the application: the body that was read, then the end."""

    def __init__(self, body: bytes, gone: asyncio.Future[Message]) -> None:
        self._body: bytes | None = body
        self._gone = gone

    async def __call__(self) -> Message:
        if self._body is None:
            return await asyncio.shield(self._gone)
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def is_inner(scope: Scope) -> bool:
    """Whether the body is said to be what services of one Bento send each other."""
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    return bool(kinds) and kinds[0].partition(b";")[0].strip().lower() == _INNER


def _as_json(scope: Scope) -> Scope:
    """All bodies are JSON here, whatever curl and others call them by default.

    But those that ``server.bentoml.inner_calls`` reads or refuses, and those that bring a file.
    """
    if is_inner(scope) or _has_parts(scope):
        return scope
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


async def read_json(request: HttpRequest, limits: Limits) -> Any:
    """The body of a request that has passed the middleware; raises InvalidRequest."""
    return await read_part(await request.body(), limits)


async def read_part(body: bytes, limits: Limits) -> Any:
    """The same of a body's bytes, or of a part's."""
    return loads(body) if len(body) <= SMALL else await read_large(body, limits)
