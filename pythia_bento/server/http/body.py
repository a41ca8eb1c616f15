"""What every HTTP request passes: API keys, size limit, leaving clients, errors in one shape."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pythia_bento.errors import PayloadTooLarge, PythiaError, RequestTimeout
from pythia_bento.protocol.parsing import invalid_request
from pythia_bento.server.access.control import AccessControl, note_caller
from pythia_bento.server.http.errors import error_body, error_response, status_body

# Open to all: probes, metrics, descriptions and pages, which cost and reveal little. Whatever is
# not named needs a key, paths that do not exist included.
OPEN_PATHS = frozenset(
    ("/", "/livez", "/readyz", "/healthz", "/metrics", "/docs.json", "/schema.json", "/playground")
)
OPEN_FOLDERS = ("/playground/", "/static_content/")
# Refused as a whole while the engine is full. Scores are refused one by one, in their answer.
GENERATING = frozenset(("/generate", "/v1/completions"))


class AccessMiddleware:
    """Outermost: who may not ask is refused before anything of the body is read."""

    def __init__(self, app: ASGIApp, access: AccessControl) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the caller's place is held until the last byte of the answer."""
        if scope["type"] != "http" or _is_open(scope):
            return await self.app(scope, receive, send)
        with ExitStack() as stack:
            try:
                key = Headers(scope=scope).get("authorization")
                entry = self.access.enter(key, generates=scope["path"] in GENERATING)
                note_caller(stack.enter_context(entry))
            except PythiaError as error:
                return await error_response(error)(scope, receive, send)
            await self.app(scope, receive, send)


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"]
    if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
        return True
    # Browsers ask so before they send a key; what they may do is BentoML's setting `http.cors`.
    headers = Headers(scope=scope)
    return scope["method"] == "OPTIONS" and "access-control-request-method" in headers


class RequestMiddleware:
    """Around the whole service, mounted applications included.

    Bodies are read before the application starts, which has two uses: the limit holds for chunked
    bodies too, and from then on the only thing the client can send is that it is gone. Then the
    application's task is cancelled, and with it whatever it asked of the engine.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, client_timeout: float) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.client_timeout = client_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        shaped = ErrorShaper(scope, send)
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return await self.app(scope, receive, shaped)
        try:
            body = await self._read_in_time(scope, receive)
        except PythiaError as error:
            return await error_response(error)(scope, receive, send)
        if body is not None:
            await _until_disconnect(self.app, _as_json(scope), body, receive, shaped)
        if not shaped.has_started:
            # The client is gone. Middleware above waits for an answer all the same, BentoML's
            # for as long as its time-out; 499 is nginx's word for this in logs and metrics.
            await Response(status_code=499)(scope, receive, send)

    async def _read_in_time(self, scope: Scope, receive: Receive) -> bytes | None:
        try:
            return await asyncio.wait_for(self._read(scope, receive), self.client_timeout)
        except asyncio.TimeoutError:
            raise RequestTimeout(
                f"the body did not arrive within {self.client_timeout:g} seconds"
            ) from None

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client left. Raises PayloadTooLarge."""
        announced = Headers(scope=scope).get("content-length", "0")
        self._check_size(int(announced) if announced.isdigit() else 0)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            self._check_size(len(body))
            if not message.get("more_body", False):
                return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self.max_body_bytes:
            raise PayloadTooLarge(
                f"the body has {size} bytes or more, but the limit is {self.max_body_bytes}"
            )


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


def _as_json(scope: Scope) -> Scope:
    """All bodies are JSON here, whatever curl and others call them by default."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


class ErrorShaper:
    """A ``send`` that brings the framework's own error bodies into OpenAI's shape."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._start: Message | None = None
        self._body = b""
        self.has_started = False

    async def __call__(self, message: Message) -> None:
        """Pass a message on; those of an error only once its body is complete."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
        elif self._start is None or message["type"] != "http.response.body":
            self.has_started = True
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        body = json.dumps(self._shaped(start["status"])).encode()
        headers = MutableHeaders(raw=list(start["headers"]))
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(body))
        self.has_started = True
        await self._send({**start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})

    def _shaped(self, status: int) -> dict[str, Any]:
        try:
            found = json.loads(self._body)
        except ValueError:
            found = None
        if isinstance(found, list) and found:
            found = found[0]  # BentoML wraps some of its bodies so
        if not isinstance(found, dict):
            return status_body(status, self._sentence(status))
        if isinstance(found.get("error"), dict):
            return found
        if details := found.get("detail"):
            return error_body(invalid_request(details[0]))
        return status_body(status, str(found.get("error") or self._sentence(status)))

    def _sentence(self, status: int) -> str:
        method, path = self._scope["method"], self._scope["path"][:100]
        known = {404: f"there is no {path}", 405: f"{path} does not allow {method}"}
        return known.get(status) or self._body.decode(errors="replace")[:500] or f"status {status}"
