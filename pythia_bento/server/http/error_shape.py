"""The framework's own error bodies in OpenAI's shape."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from pythia_bento.protocol.errors import error_body
from pythia_bento.protocol.parsing import invalid_request
from pythia_bento.server.http.errors import status_body


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

    def _shaped(self, status: int) -> Mapping[str, object]:
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
