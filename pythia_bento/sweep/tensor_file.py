"""One checkpoint's activations as a safetensors file; ``table`` has the files of other tasks.

Tensors are named as in an answer of ``/v1/activations``, with an item's place for a prompt's, and
what is said of them is the same and more, so that who reads one reads the other. Data are beside
the file until all are known: the header comes first and needs all sizes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pythia_bento.errors import InvalidRequest
from pythia_bento.protocol.activations import Run
from pythia_bento.protocol.tensors import ANSWER, Entry, Stored, header, read
from pythia_bento.sweep.durable import move
from pythia_bento.sweep.events import Row

SUFFIX = "safetensors"
_META = "sweep"  # of the file's metadata, as JSON
_TOLD = ("model", "system_fingerprint", "request", "num_layers")
_COLUMNS = ("tokens", "completions", "ids", "errors")  # of each item
_ENTRY_BYTES = 60  # of a header for a tensor, and its name
MAX_HEADER = 90_000_000  # bytes; huggingface/safetensors reads 100,000,000
_COPIED = 2**20  # bytes at a time


@dataclass(frozen=True, slots=True)
class Entries:
    """What an item has in a file."""

    stored: Mapping[str, Stored]  # by the names of sites, token_ids too
    tokens: list[str]
    completion: Any  # JSON's value
    id: str | None
    error: str | None


class TensorFile:
    """Rows on their way to a file; ``finish`` or ``discard`` it."""

    def __init__(
        self, path: Path, metadata: Mapping[str, Any], told: Mapping[str, str], start: int
    ) -> None:
        """``told`` are the model and whatever else readers of answers know; raises OSError.

        Rows are of the items from ``start`` on.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # Readers of directories look at nothing that begins with a dot.
        self._path, self._partial = path, path.with_name(f".{path.name}.part")
        self._data_path = path.with_name(f".{path.name}.data.part")
        self._metadata, self._told = metadata, dict(told)
        self._start = self._next = start
        self._early: dict[int, Row] = {}  # which came before others in front of them
        self._entries: list[Entry] = []
        self._columns: list[list[str]] = [[] for _ in _COLUMNS]  # JSON
        self._header_bytes = 0  # at least
        self._data = self._data_path.open("w+b")

    def add(self, row: Row) -> None:
        """Rows may come in any order; each item's once."""
        self._early[row.item] = row
        while (found := self._early.pop(self._next, None)) is not None:
            self.append(_of_row(found))
            if found.run is not None:
                self._told["num_layers"] = str(found.run.num_layers)

    def append(self, item: Entries) -> None:
        """The next item's."""
        for name, tensor in item.stored.items():
            self._entries.append(Entry(f"{self._next}:{name}", tensor.dtype, tensor.shape))
            self._header_bytes += len(name) + _ENTRY_BYTES
            self._data.write(tensor.data)
        for column, value in zip(
            self._columns, (item.tokens, item.completion, item.id, item.error), strict=True
        ):
            column.append(json.dumps(value))
            self._header_bytes += len(column[-1])
        self._next += 1
        if self._header_bytes > MAX_HEADER:
            raise InvalidRequest(
                f"{self._path} cannot have the names and tokens of more than its first "
                f"{self._next - self._start:,} items; sweep fewer at a time",
                param="items",
            )

    def finish(self) -> None:
        """All are on the disk under the file's name when this returns."""
        if (count := self._next - self._start) != self._metadata["rows"]:
            raise ValueError(f"{self._path} has {count} items, not {self._metadata['rows']}")
        self._data.seek(0)
        with self._partial.open("wb") as file:
            file.write(header(self._entries, self._said()))
            shutil.copyfileobj(self._data, file, _COPIED)
        self._data.close()
        self._data_path.unlink()  # first: nobody looks at it again where the file is there
        move(self._partial, self._path)

    def discard(self) -> None:
        """There is nothing to keep."""
        self._data.close()
        self._data_path.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)

    def _said(self) -> dict[str, str]:
        columns = zip(_COLUMNS, self._columns, strict=True)
        listed = {name: f"[{','.join(values)}]" for name, values in columns}
        return {"num_layers": "0", **self._told, **listed, _META: json.dumps(self._metadata)}


def _of_row(row: Row) -> Entries:
    run, error = row.run, None if row.error is None else row.error.message
    if run is None:
        return Entries({}, [], None, row.id, error)
    stored = {**run.stored, "token_ids": _ids(run)}
    completion = None if run.completion is None else asdict(run.completion)
    return Entries(stored, list(run.tokens), completion, row.id, error)


def _ids(run: Run) -> Stored:
    return Stored("I32", (len(run.token_ids),), np.array(run.token_ids, "<i4").data)


def read_metadata(path: Path) -> tuple[dict[str, Any], int] | None:
    """What a sweep said of a file, and its items; None where it is not whole."""
    try:
        _, told = read(_mapped(path), ANSWER)
        metadata = json.loads(told[_META])
        items = len(json.loads(told["tokens"]))
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return (metadata, items) if isinstance(metadata, dict) else None


def told_of(paths: Iterable[Path]) -> dict[str, str]:
    """What readers of answers know of the parts of a file, which are whole."""
    found: dict[str, str] = {}
    for path in paths:
        _, told = read(_mapped(path), ANSWER)
        if not found or told["num_layers"] != "0":  # as of a part in which all items failed
            found = {name: told[name] for name in _TOLD}
    return found


def read_items(path: Path, start: int) -> Iterator[Entries]:
    """Of a file that is whole, whose first item has the place ``start``."""
    tensors, told = read(_mapped(path), ANSWER)
    by_item: dict[int, dict[str, Stored]] = {}
    for name, tensor in tensors.items():
        item, _, site = name.partition(":")
        by_item.setdefault(int(item), {})[site] = tensor
    columns = [json.loads(told[name]) for name in _COLUMNS]
    for place, values in enumerate(zip(*columns, strict=True), start):
        yield Entries(by_item.get(place, {}), *values)


def _mapped(path: Path) -> memoryview:
    return np.memmap(path, np.uint8, "r").data
