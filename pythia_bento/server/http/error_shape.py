"""Answers that are held until they are whole: the framework's own errors, for OpenAI's shape."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from pythia_bento.protocol.errors import error_body
from pythia_bento.protocol.parsing import invalid_request
from pythia_bento.server.http.errors import status_body


class HeldAnswer(ABC):
    """A ``send``. What is not to be held passes at once."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None  # of what is held
        self._body = bytearray()
        self.has_started = False
        """Whether the client has been sent anything."""

    @abstractmethod
    def _holds(self, start: Message) -> bool:
        """Whether to hold the answer that begins so."""

    @abstractmethod
    async def _changed(self, status: int, headers: MutableHeaders, body: bytes) -> bytes:
        """The body to send instead; changes ``headers`` to what fits it."""

    def __call__(self, message: Message) -> Awaitable[None]:
        """Take or pass on one message."""
        kind = message["type"]
        if kind == "http.response.start" and self._holds(message):
            self._start = message
        elif self._start is None or kind != "http.response.body":
            self.has_started = True
            return self._send(message)
        return self._hold(message, self._start)

    async def _hold(self, message: Message, start: Message) -> None:
        if message is start:
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._finish(start)

    async def _finish(self, start: Message) -> None:
        headers = MutableHeaders(raw=list(start["headers"]))
        body = await self._changed(start["status"], headers, bytes(self._body))
        headers["content-length"] = str(len(body))
        self.has_started = True
        await self._send({**start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})


class ErrorShaper(HeldAnswer):
    """A ``send`` that brings the framework's own error bodies into OpenAI's shape."""

    def __init__(self, scope: Scope, send: Send) -> None:
        super().__init__(send)
        self._scope = scope

    def _holds(self, start: Message) -> bool:
        return bool(start["status"] >= 400)

    async def _changed(self, status: int, headers: MutableHeaders, body: bytes) -> bytes:
        headers["content-type"] = "application/json"
        return json.dumps(self._shaped(status, body)).encode()

    def _shaped(self, status: int, body: bytes) -> Mapping[str, object]:
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if isinstance(found, list) and found:
            found = found[0]  # BentoML wraps some of its bodies so
        if not isinstance(found, dict):
            return status_body(status, self._sentence(status, body))
        if isinstance(found.get("error"), dict):
            return found
        if details := found.get("detail"):
            return error_body(invalid_request(details[0]))
        return status_body(status, str(found.get("error") or self._sentence(status, body)))

    def _sentence(self, status: int, body: bytes) -> str:
        method, path = self._scope["method"], self._scope["path"][:100]
        known = {404: f"there is no {path}", 405: f"{path} does not allow {method}"}
        return known.get(status) or body.decode(errors="replace")[:500] or f"status {status}"
