"""Errors as clients see them: OpenAI's body, one clear sentence, the right status."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import JSONResponse

from pythia_bento.errors import PythiaError, Unauthenticated
from pythia_bento.protocol.errors import ErrorBody, error_body

# Sent while the request's body may still be on its way: nothing more is read of that connection.
CLOSING = (401, 408, 413)


class OrjsonResponse(JSONResponse):
    """Answers with thousands of log-probabilities take json ten times as long."""

    def render(self, content: Any) -> bytes:
        """Floats are written with the fewest digits that read back as the same float."""
        return orjson.dumps(content)


def error_response(error: PythiaError) -> JSONResponse:
    """The whole answer to a request that failed."""
    return JSONResponse(error_body(error), status_code=error.status, headers=_headers(error))


def _headers(error: PythiaError) -> dict[str, str]:
    headers = {"Connection": "close"} if error.status in CLOSING else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))  # whole seconds, says RFC 9110
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def status_body(status: int, message: str) -> ErrorBody:
    """The same body for an answer of the framework, which knows only a status."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
