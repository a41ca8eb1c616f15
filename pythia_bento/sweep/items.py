"""Items out of a file: JSON lines, plain lines of text, or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pythia_bento.errors import InvalidRequest, printable
from pythia_bento.protocol.parsing import loads, parse
from pythia_bento.sweep.parquet import read_columns
from pythia_bento.sweep.spec import Item

MAX_FILE_ITEMS = 10_000_000  # of which each takes some hundred bytes
MAX_LINE_BYTES = 8 * 2**20  # as of a request's body
FIELDS = ("id", "prompt", "continuation")


def read_items(path: Path) -> tuple[Item, ...]:
    """All of a file; raises InvalidRequest with the line and the field at fault, or OSError."""
    readers = {".jsonl": _json_lines, ".txt": _texts, ".parquet": _rows}
    if path.suffix not in readers:
        raise InvalidRequest(
            f"items must be a .jsonl, .txt or .parquet file, not {printable(path.name, 100)}",
            param="items",
        )
    items: list[Item] = []
    for place, data in readers[path.suffix](path):
        if len(items) == MAX_FILE_ITEMS:
            raise InvalidRequest(f"{path} has more than {MAX_FILE_ITEMS:,} items", param="items")
        items.append(_item(place, data))
    if not items:
        raise InvalidRequest(f"{path} has no items", param="items")
    return tuple(items)


def _item(place: str, data: Any) -> Item:
    try:
        return parse(Item, data, "an item")
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}: {error.message}", param=error.param) from None


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Those that are not empty, without their ends."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = f"{path}, line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise InvalidRequest(f"{place} is longer than {MAX_LINE_BYTES:,} bytes")
            if line := line.rstrip(b"\r\n"):
                yield place, line


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for place, line in _lines(path):
        try:
            yield place, loads(line)
        except InvalidRequest as error:
            message = error.message.replace("the body", "it", 1)
            raise InvalidRequest(f"{place}: {message}") from None


def _texts(path: Path) -> Iterator[tuple[str, Any]]:
    for place, line in _lines(path):
        try:
            yield place, {"prompt": line.decode()}
        except UnicodeDecodeError as error:
            message = f"it is not UTF-8: {error.reason} at byte {error.start}"
            raise InvalidRequest(f"{place}: {message}") from None


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(read_columns(path, FIELDS)):
        yield f"{path}, row {number}", row
