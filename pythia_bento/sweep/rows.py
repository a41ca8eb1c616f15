"""Rows of the tables that a sweep wrote, Parquet or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from pythia_bento.errors import InvalidRequest, PythiaError

SUFFIXES = (".parquet", ".jsonl")
BATCH_ROWS = 16_384  # in memory at a time
COMMON = {"model": str, "step": int, "item": int, "id": str, "error": str}
NULLABLE = {"step", "id", "error"}


def files_of(folder: Path) -> list[Path]:
    """One file a checkpoint, ``model=<name>/step=<step>.<suffix>``, by name."""
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is no folder; name the --output of a sweep", param="folder")
    found = [path for path in folder.glob("model=*/*") if path.suffix in SUFFIXES]
    if not found:
        raise InvalidRequest(f"{folder} has no table of a sweep in it", param="folder")
    return sorted(found)


def rows_of(path: Path, columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Rows with the columns that every row has, and ``columns`` where the file has them.

    Raises:
        InvalidRequest: The file cannot be read, or what it holds is no sweep's.
    """
    read = _parquet if path.suffix == ".parquet" else _json_lines
    for row in read(path, [*COMMON, *columns]):
        _check(row, path)
        yield row


def _check(row: dict[str, Any], path: Path) -> None:
    for name, kind in COMMON.items():
        value = row.get(name)
        if (value is None and name not in NULLABLE) or not isinstance(value, kind | None):
            raise InvalidRequest(f"{path} has a row whose {name} is {value!r}, which is no sweep's")


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    pyarrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, columns=there):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from None


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise PythiaError(
            "Parquet is read with pyarrow, which is not installed; "
            "pip install 'pythia-bento[sweep]'"
        ) from None
    return pyarrow, pyarrow.parquet


def _json_lines(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InvalidRequest(f"{path}:{number} is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise InvalidRequest(f"{path}:{number} is no row, which is a JSON object")
            yield {name: row.get(name) for name in columns}
