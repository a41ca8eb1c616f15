"""Files of a sweep: one for each checkpoint, there as a whole or not at all.

A file counts as done when its metadata has this sweep's key and this checkpoint's weights, and all
rows: what was computed of them before is what would be computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from pythia_bento.sweep import jsonl, parquet, tensor_file
from pythia_bento.sweep.columns import Values, model_id, of_row
from pythia_bento.sweep.durable import move
from pythia_bento.sweep.events import Row

FORMATS = ("parquet", "jsonl")
ROW_GROUP = 65_536  # rows that are written at a time; by number, so that files are equal
SWEEP = "sweep.json"


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of itself."""

    key: str  # see ``SweepSpec.key``
    weights: str
    fingerprint: str
    commit: str | None
    same_weights: tuple[str, ...]
    rows: int
    shard: str | None = None  # ``3/16`` of a file that has a part of the items


class Table(Protocol):
    """What writes one format."""

    def write(self, rows: Sequence[Values]) -> None:
        """The next ones."""
        ...

    def close(self) -> None:
        """These were all."""
        ...


def place_of(id: str, suffix: str, shard: str | None = None) -> Path:
    """Where a checkpoint's file is, below a sweep's directory; no name leads out of it."""
    model = model_id(id)
    step = model.step
    name = f"step={step:06d}" if step is not None else f"revision={quote(model.revision, '')}"
    part = "" if shard is None else f".part-{shard.replace('/', '-of-')}"
    return Path(f"model={quote(model.name, '')}", f"{name}{part}.{suffix}")


def read_metadata(path: Path) -> Metadata | None:
    """Of a file that is there and whole; raises NoPyarrow."""
    if not path.is_file():
        return None
    if (found := _READS[path.suffix](path)) is None:
        return None
    said, rows = found
    try:
        metadata = Metadata(**{**said, "same_weights": tuple(said["same_weights"])})
    except (KeyError, TypeError):
        return None
    return metadata if metadata.rows == rows else None


_READS: dict[str, Callable[[Path], tuple[dict[str, Any], int] | None]] = {
    ".parquet": parquet.read_metadata,
    ".jsonl": jsonl.read_metadata,
    f".{tensor_file.SUFFIX}": tensor_file.read_metadata,
}


def read_rows(path: Path) -> Iterator[Values]:
    """Rows of a file, in the order of items; raises InvalidRequest, NoPyarrow or OSError."""
    return parquet.read_rows(path) if path.suffix == ".parquet" else jsonl.read_rows(path)


def is_done(path: Path, key: str, weights: str) -> bool:
    """Whether a file has all rows of this sweep and these weights; raises NoPyarrow."""
    found = read_metadata(path)
    return found is not None and (found.key, found.weights) == (key, weights)


class TableFile:
    """One checkpoint's rows on their way to its file; ``finish`` or ``discard`` it."""

    def __init__(self, path: Path, first: Values, metadata: Metadata, start: int) -> None:
        """``first`` is what rows that are added begin with, see ``columns.of_checkpoint``.

        They are of the items from ``start`` on. Raises NoPyarrow, and OSError as all here.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # Readers of directories look at nothing that begins with a dot.
        self._path, self._partial = path, path.with_name(f".{path.name}.part")
        self._metadata, self._first = metadata, first
        self._start = self._next = start
        self._early: dict[int, Row] = {}  # which came before others in front of them
        self._ready: list[Values] = []
        kind = parquet.ParquetTable if path.suffix == ".parquet" else jsonl.JsonLines
        self._table: Table = kind(self._partial, asdict(metadata))

    def add(self, row: Row) -> None:
        """Rows may come in any order; each item's once."""
        self._early[row.item] = row
        while (found := self._early.pop(self._next, None)) is not None:
            self.append(of_row(self._first, found))

    def append(self, values: Values) -> None:
        """The next row in the order of items."""
        self._ready.append(values)
        self._next += 1
        if len(self._ready) == ROW_GROUP:
            self._flush()

    def finish(self) -> None:
        """All rows are on the disk under the file's name when this returns."""
        self._flush()
        self._table.close()
        if (count := self._next - self._start) != self._metadata.rows:
            raise ValueError(f"{self._path} has {count} rows, not {self._metadata.rows}")
        move(self._partial, self._path)

    def discard(self) -> None:
        """There is nothing to keep."""
        self._table.close()
        self._partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._ready:
            self._table.write(self._ready)
            self._ready = []


def write_json(path: Path, value: Mapping[str, Any], writer: str) -> None:
    """Beside and renamed; raises OSError.

    ``writer`` is nobody else's at the time: shards say the same in the same directory, and each
    must find what it wrote.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{writer}.part")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    move(partial, path)
