"""Errors as clients see them, on every transport: one clear sentence with its field and code."""

from __future__ import annotations

from typing import Any

from pythia_bento.errors import PythiaError


def error_body(error: PythiaError) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }
