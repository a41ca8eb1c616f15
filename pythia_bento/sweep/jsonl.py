"""Tables of rows as lines of JSON: the first has the metadata, each other one a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pythia_bento.errors import InvalidRequest
from pythia_bento.sweep.columns import COLUMNS, Values

_META = "metadata"
_MAX_LINE = 64 * 2**20  # bytes: a context's tokens with all that is told of them take less


class JsonLines:
    """A file that is being written. Close it."""

    suffix = "jsonl"

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Raises OSError, as all else here."""
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._line({_META: metadata})

    def write(self, rows: Sequence[Values]) -> None:
        """One line each, without what is not told."""
        for row in rows:
            pairs = zip(COLUMNS, row, strict=True)
            self._line({name: value for name, value in pairs if value is not None})

    def close(self) -> None:
        """Nothing follows."""
        self._file.close()

    def _line(self, value: Mapping[str, Any]) -> None:
        json.dump(value, self._file, ensure_ascii=False, separators=(",", ":"))
        self._file.write("\n")


def read_metadata(path: Path) -> tuple[dict[str, Any], int] | None:
    """What was said of a file when it was begun, and its rows; None where it is not whole."""
    try:
        with path.open("rb") as file:
            metadata = json.loads(file.readline(_MAX_LINE))[_META]
            rows = sum(line.endswith(b"\n") for line in file)
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return (metadata, rows) if isinstance(metadata, dict) else None


def read_rows(path: Path) -> Iterator[Values]:
    """The rows of a table, one by one; raises InvalidRequest for what is none, or OSError."""
    with path.open("rb") as file:
        file.readline(_MAX_LINE)
        for number, line in enumerate(file, 2):
            try:
                row = json.loads(line)
                yield tuple(row.get(name) for name in COLUMNS)
            except (AttributeError, ValueError):
                raise InvalidRequest(f"{path}, line {number} is no row of a sweep") from None
