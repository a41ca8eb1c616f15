"""Errors as clients see them, on every transport: one clear sentence with its field and code."""

from __future__ import annotations

from typing import TypedDict

from pythia_bento.errors import PythiaError


class ErrorDetail(TypedDict):
    """OpenAI's fields."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(TypedDict):
    """What stands in an answer's place."""

    error: ErrorDetail


def error_body(error: PythiaError) -> ErrorBody:
    """The body for one of this project's errors."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }
