"""Rows of all tables of a sweep, for whoever reads them again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pythia_bento.errors import InvalidRequest, shown
from pythia_bento.sweep.columns import COLUMNS
from pythia_bento.sweep.table import FORMATS, read_rows

KINDS = {"model": str, "step": int, "item": int, "id": str, "error": str}
NULLABLE = {"step", "id", "error"}


def files_of(folder: Path) -> list[Path]:
    """One a checkpoint, or one for each part of its items, by name; raises InvalidRequest."""
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is no folder; name the --output of a sweep", param="folder")
    found = [
        path
        for path in folder.glob("model=*/*")
        if path.suffix.lstrip(".") in FORMATS and not path.name.startswith(".")
    ]
    if not found:
        raise InvalidRequest(f"{folder} has no table of a sweep in it", param="folder")
    return sorted(found)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """By column; what every row has is of its kind.

    Raises:
        InvalidRequest: The file cannot be read, or what it holds is no sweep's.
        NoPyarrow: It is Parquet, and what reads that is missing.
    """
    for values in read_rows(path):
        row = dict(zip(COLUMNS, values, strict=True))
        _check(row, path)
        yield row


def _check(row: dict[str, Any], path: Path) -> None:
    for name, kind in KINDS.items():
        value = row[name]
        if not (value is None and name in NULLABLE) and not isinstance(value, kind):
            raise InvalidRequest(
                f"{path} has a row whose {name} is {shown(value)}, no {kind.__name__}"
            )
