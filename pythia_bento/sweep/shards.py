"""Parts of a sweep for machines that know nothing of each other: whose each is, and the whole.

Checkpoints go to shards by rendezvous hashing of their weights: equal weights to the same, so that
they are computed once, and each shard knows its own without asking the others. Items go by number.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pythia_bento.errors import InvalidRequest, shown
from pythia_bento.sweep import tensor_file
from pythia_bento.sweep.table import SWEEP, Metadata, TableFile, is_done, read_metadata, read_rows

_Rows = TypeVar("_Rows", contravariant=True)
By = Literal["checkpoints", "items"]
MAX_SHARDS = 4096
_SHARD = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``index`` of ``count``, counted from 0."""

    index: int = 0
    count: int = 1
    by: By = "checkpoints"

    @classmethod
    def parse(cls, text: str, by: By = "checkpoints") -> Shard:
        """Of ``3/16``; raises InvalidRequest."""
        match = _SHARD.fullmatch(text)
        index, count = map(int, match.groups()) if match else (0, 0)
        if not index < count <= MAX_SHARDS:
            raise InvalidRequest(
                f"shard must be I/N with I from 0 to N - 1 and N at most {MAX_SHARDS}, not "
                f"{shown(text)}",
                param="shard",
            )
        return cls(index, count, by)

    @property
    def of_items(self) -> str | None:
        """As the files of a part of the items are named; None where files have all of them."""
        return f"{self.index}/{self.count}" if self.by == "items" and self.count > 1 else None

    def has(self, weights: str) -> bool:
        """Whether a checkpoint is of this part, by its weights, or by its id where it has none."""
        if self.of_items or self.count == 1:
            return True
        return max(range(self.count), key=lambda index: _draw(weights, index)) == self.index

    def items(self, count: int) -> range:
        """Which of so many are of this part."""
        if not self.of_items:
            return range(count)
        return range(self.index * count // self.count, (self.index + 1) * count // self.count)


def _draw(weights: str, index: int) -> bytes:
    return hashlib.sha256(f"{weights} {index}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that a complete sweep has."""

    model: str
    path: Path
    key: str
    weights: str | None  # None of a checkpoint that was not there
    items: int


def wanted(directory: Path) -> list[Wanted]:
    """What ``sweep.json`` says; raises InvalidRequest where it is none, or OSError."""
    path = directory / SWEEP
    if not path.is_file():
        raise InvalidRequest(f"{path} is not there: nothing was swept into {directory}")
    try:
        said = json.loads(path.read_bytes())
        return [_wanted(directory, said, one) for one in said["checkpoints"]]
    except (KeyError, TypeError, ValueError):
        raise InvalidRequest(f"{path} was not written by a sweep, or was changed") from None


def key_of(path: Path) -> str | None:
    """The key of a ``sweep.json``; None where there is none, or it makes no sense."""
    try:
        return str(json.loads(path.read_bytes())["key"])
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _wanted(directory: Path, said: Mapping[str, Any], one: Mapping[str, Any]) -> Wanted:
    path = directory / str(one["file"])
    if not path.resolve().is_relative_to(directory.resolve()):
        raise ValueError(path)
    weights = one["weights"]
    return Wanted(
        model=str(one["model"]),
        path=path,
        key=str(said["key"]),
        weights=None if weights is None else str(weights),
        items=int(said["items"]["count"]),
    )


def merge(directory: Path) -> Iterator[tuple[Wanted, str]]:
    """Each file of a sweep, and what it lacks: an empty string where it is complete.

    Parts by items become one file, the same as that of one process, and go. Raises InvalidRequest,
    NoPyarrow or OSError.
    """
    for one in wanted(directory):
        yield one, _merge(one)


def _merge(one: Wanted) -> str:
    if one.weights is None:
        return "it was not there"
    if is_done(one.path, one.key, one.weights):
        return ""
    parts = sorted(one.path.parent.glob(f"{one.path.stem}.part-*{one.path.suffix}"))
    sets = _sets(one, parts)
    if not sets:
        return "its file is missing" if not one.path.exists() else "its file is of another sweep"
    lacks = {count: _lacks(count, there, one.items) for count, there in sets.items()}
    whole = next((count for count in sets if not lacks[count]), None)
    if whole is None:
        return lacks[max(sets, key=lambda count: len(sets[count]))]
    _join(one, [sets[whole][index] for index in range(whole)])
    for path in parts:
        path.unlink()
    return ""


Parts = dict[int, tuple[Path, Metadata]]  # by index


def _sets(one: Wanted, paths: list[Path]) -> dict[int, Parts]:
    """Parts of this sweep and these weights, by how many shards there were."""
    sets: dict[int, Parts] = {}
    for path in paths:
        said = read_metadata(path)
        if said and said.shard and (said.key, said.weights) == (one.key, one.weights):
            shard = Shard.parse(said.shard, "items")
            sets.setdefault(shard.count, {})[shard.index] = path, said
    return sets


def _lacks(count: int, parts: Parts, items: int) -> str:
    if missing := [f"{index}/{count}" for index in range(count) if index not in parts]:
        return f"of its parts {', '.join(missing[:10])} {'are' if missing[1:] else 'is'} missing"
    if len({said.fingerprint for _, said in parts.values()}) > 1:
        return "its parts were computed by different code or kernels"
    if (rows := sum(said.rows for _, said in parts.values())) != items:
        return f"its parts have {rows} rows, not {items}"
    return ""


def _join(one: Wanted, parts: list[tuple[Path, Metadata]]) -> None:
    metadata = replace(parts[0][1], shard=None, rows=one.items)
    if one.path.suffix == f".{tensor_file.SUFFIX}":
        told = tensor_file.told_of([path for path, _ in parts])
        tensors = tensor_file.TensorFile(one.path, asdict(metadata), told, 0)
        starts = itertools.accumulate((said.rows for _, said in parts), initial=0)
        found = (
            tensor_file.read_items(path, start)
            for (path, _), start in zip(parts, starts, strict=False)
        )
        _fill(tensors, itertools.chain.from_iterable(found))
    else:
        table = TableFile(one.path, (), metadata, 0)
        _fill(table, (values for path, _ in parts for values in read_rows(path)))


class _File(Protocol[_Rows]):
    """Of tables or tensors."""

    def append(self, row: _Rows, /) -> None: ...

    def finish(self) -> None: ...

    def discard(self) -> None: ...


def _fill(file: _File[_Rows], rows: Iterable[_Rows]) -> None:
    try:
        for row in rows:
            file.append(row)
        file.finish()
    except BaseException:
        file.discard()
        raise
