"""How fields that are validated by hand are described."""

from __future__ import annotations

from typing import Any

from pydantic import WithJsonSchema

STRING_SCHEMA: dict[str, Any] = {"type": "string"}
STRINGS_SCHEMA: dict[str, Any] = {"type": "array", "items": STRING_SCHEMA}
IDS_SCHEMA: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}


def schema(*kinds: dict[str, Any]) -> WithJsonSchema:
    """A value of one of some kinds."""
    return WithJsonSchema({"anyOf": list(kinds)} if len(kinds) > 1 else kinds[0])
