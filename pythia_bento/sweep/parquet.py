"""Tables of rows as Parquet, through pyarrow, which is imported where it is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pythia_bento.errors import InvalidRequest, PythiaError, printable
from pythia_bento.sweep.columns import COLUMNS, Kind, Values

_META = b"pythia-bento"  # the key of a file's metadata
_LEVEL = 3  # of zstd


class NoPyarrow(PythiaError):
    """Parquet is asked for, and what writes it is missing."""

    code = "no_pyarrow"


def arrow() -> Any:
    """pyarrow, with ``parquet``; raises NoPyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise NoPyarrow(
            "sweeps write Parquet with pyarrow, which is not installed; pip install "
            "'pythia-bento[sweep]', or --format jsonl"
        ) from None
    return pyarrow


class ParquetTable:
    """A file that is being written. Close it."""

    suffix = "parquet"

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Raises NoPyarrow, and OSError as all else here."""
        self._arrow = arrow()
        self._schema = schema(self._arrow).with_metadata({_META: json.dumps(metadata)})
        self._writer = self._arrow.parquet.ParquetWriter(
            path, self._schema, compression="zstd", compression_level=_LEVEL
        )

    def write(self, rows: Sequence[Values]) -> None:
        """One row group."""
        pa = self._arrow
        arrays = [
            pa.array([row[place] for row in rows], field.type)
            for place, field in enumerate(self._schema)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """The footer."""
        self._writer.close()


def read_metadata(path: Path) -> tuple[dict[str, Any], int] | None:
    """What was said of a file when it was begun, and its rows; None where it is not whole."""
    pa = arrow()
    try:
        footer = pa.parquet.read_metadata(path)
        metadata = json.loads((footer.metadata or {})[_META])
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None
    return (metadata, footer.num_rows) if isinstance(metadata, dict) else None


def read_rows(path: Path) -> Iterator[Values]:
    """The rows of a table, one by one; raises InvalidRequest for what is none."""
    for row in read_columns(path, tuple(COLUMNS)):
        yield tuple(row.get(name) for name in COLUMNS)


def read_columns(path: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of any Parquet file that has some of these columns and no others.

    Raises InvalidRequest, NoPyarrow, or OSError.
    """
    pa = arrow()
    with path.open("rb") as opened:
        try:
            file = pa.parquet.ParquetFile(opened)
            _check_names(path, file.schema_arrow.names, names)
            for batch in file.iter_batches(4096):
                yield from batch.to_pylist()
        except pa.ArrowException as error:
            message = printable(str(error), 200)
            raise InvalidRequest(f"{path} cannot be read as Parquet: {message}") from None


def _check_names(path: Path, found: Sequence[str], names: Sequence[str]) -> None:
    if other := [name for name in found if name not in names]:
        raise InvalidRequest(
            f"{path} has a column {printable(other[0], 100)!r}; known are {', '.join(names)}"
        )


def schema(pa: Any) -> Any:
    """``COLUMNS`` in pyarrow's types."""
    types: dict[Kind, Any] = {
        "dictionary": pa.dictionary(pa.int32(), pa.string()),
        "string": pa.string(),
        "int64": pa.int64(),
        "int32": pa.int32(),
        "bool": pa.bool_(),
        "float64": pa.float64(),
        "float32": pa.float32(),
        "int32s": pa.list_(pa.int32()),
        "float32s": pa.list_(pa.float32()),
    }
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
