"""Calls from a service of the same Bento, which BentoML sends as pickles.

Reading a pickle can run code, so a port that strangers reach reads none. On the socket that only
the services of one Bento have, requests are read as plain data, which is all that a call has, and
go on as the JSON that they could have been. So BentoML never unpickles anything of ours, and an
answer is the one that HTTP gets.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Awaitable, Mapping
from typing import Any, NoReturn

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from pythia_bento.errors import InvalidRequest, PythiaError, UnsupportedMediaType
from pythia_bento.server.http.body import INNER_TYPE, is_inner
from pythia_bento.server.http.error_shape import HeldAnswer
from pythia_bento.server.http.errors import error_response

_REFUSED = UnsupportedMediaType(
    f"bodies of {INNER_TYPE} are for services of the same Bento, on a socket of their own; send "
    "application/json"
)


class InnerCalls:
    """Inside of ``RequestMiddleware``, which has read the body within its limits."""

    def __init__(self, app: ASGIApp, is_private: bool) -> None:
        """``is_private``: only services of the same Bento can ask."""
        self.app = app
        self._is_private = is_private

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or not is_inner(scope):
            return self.app(scope, receive, send)
        return self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_private:
            return await error_response(_REFUSED)(scope, receive, send)
        try:
            body = _as_json(await HttpRequest(scope, receive).body())
        except PythiaError as error:
            return await error_response(error)(scope, receive, send)
        answer = _Answer(send)
        await self.app(_labelled(scope, body), _Body(body, receive), answer)


def _as_json(pickled: bytes) -> bytes:
    fields = plain(pickled)
    if isinstance(fields, Mapping) and fields.get("stream"):
        raise InvalidRequest("stream is for HTTP; call generate_stream instead", param="stream")
    try:
        return json.dumps(fields, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the arguments cannot be written as JSON: {error}") from None


class _Plain(pickle.Unpickler):
    """Reads data and nothing that has a class or a function: it can make no call."""

    @override
    def find_class(self, module: str, name: str) -> NoReturn:
        raise InvalidRequest(
            f"the arguments have a {module}.{name}; they must be strings, numbers, lists and "
            "dictionaries of these"
        )


def plain(pickled: bytes) -> Any:
    """The data in a pickle; raises InvalidRequest."""
    try:
        return _Plain(io.BytesIO(pickled)).load()
    except PythiaError:
        raise
    except Exception as error:  # pickle names none
        raise InvalidRequest(f"the body is not a pickle of plain data: {error}") from None


class _Parsed:
    """JSON whose pickle is the call that parses it, so that whoever asked does the work."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return json.loads, (self._text,)


class _Answer(HeldAnswer):
    """A ``send`` that pickles JSON, whole. Streams and errors are text to BentoML's client, too."""

    def _holds(self, start: Message) -> bool:
        kind = Headers(raw=start["headers"]).get("content-type", "")
        return start["status"] == 200 and kind.startswith("application/json")

    async def _changed(self, status: int, headers: MutableHeaders, body: bytes) -> bytes:
        headers["content-type"] = INNER_TYPE
        return pickle.dumps(_Parsed(body), protocol=5)


class _Body:
    """A ``receive`` with another body, and what comes behind it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _labelled(scope: Scope, body: bytes) -> Scope:
    headers = MutableHeaders(raw=list(scope["headers"]))
    headers["content-type"] = "application/json"
    headers["content-length"] = str(len(body))
    return {**scope, "headers": headers.raw}
