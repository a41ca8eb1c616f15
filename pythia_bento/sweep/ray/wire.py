"""Rows as bytes: between actors and driver, and on the driver's disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import orjson

from pythia_bento.errors import PythiaError
from pythia_bento.sweep.events import Row

_LISTS = ("token_ids", "logprobs", "ranks")
_NAMES = tuple(field.name for field in fields(Row) if field.name != "checkpoint")


def encode(rows: Sequence[Row]) -> bytes:
    """A line of JSON for each. Numbers keep their bits."""
    return b"".join(orjson.dumps(_plain(row)) + b"\n" for row in rows)


def decode(lines: bytes, checkpoint: int) -> Iterator[Row]:
    """The rows, as those of this checkpoint."""
    for line in lines.splitlines():
        told = orjson.loads(line)
        told |= {name: tuple(told[name]) for name in _LISTS if name in told}
        if "error" in told:
            told["error"] = PythiaError(told["error"])
        yield Row(checkpoint=checkpoint, **told)


def _plain(row: Row) -> dict[str, Any]:
    told = {name: value for name in _NAMES if (value := getattr(row, name)) is not None}
    if row.error is not None:
        told["error"] = row.error.message  # all that a table has of it
    return told
