"""Pages, scripts and descriptions leave compressed where the client can read that."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable
from functools import lru_cache

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pythia_bento.server.http.error_shape import HeldAnswer
from pythia_bento.server.openapi.operations import operation_of

MIN_BYTES = 1024  # below, the headers are what is sent

# More than there are static answers. Each is compressed once: whoever asks for Swagger's script,
# which needs no key, again and again, would else have a processor for himself.
_packed = lru_cache(maxsize=64)(lambda body: gzip.compress(body, mtime=0))


class Packed:
    """Compresses what is the same for everybody. Answers and streams of the model stay as they are.

    starlette's GZipMiddleware would compress each answer anew.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        return self.app(scope, receive, _Packer(send) if _can_be_packed(scope) else send)


def _can_be_packed(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "GET":
        return False
    operation = operation_of(scope["path"])
    is_static = operation is not None and operation.is_static
    return is_static and "gzip" in Headers(scope=scope).get("accept-encoding", "")


class _Packer(HeldAnswer):
    """A ``send``; of other statuses it sends what comes."""

    def _holds(self, start: Message) -> bool:
        return bool(start["status"] == 200)

    async def _changed(self, status: int, headers: MutableHeaders, body: bytes) -> bytes:
        headers.add_vary_header("Accept-Encoding")
        if len(body) < MIN_BYTES:
            return body
        headers["content-encoding"] = "gzip"
        return await asyncio.to_thread(_packed, body)
