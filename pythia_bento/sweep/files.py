"""A sweep on its way to the files of a directory, and what is there already."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pythia_bento import __version__
from pythia_bento.errors import InvalidRequest, PythiaError
from pythia_bento.sweep.columns import of_checkpoint
from pythia_bento.sweep.events import Checkpoint, Done, Event, Failed, Row
from pythia_bento.sweep.parquet import arrow
from pythia_bento.sweep.shards import Shard, key_of
from pythia_bento.sweep.source import Facts
from pythia_bento.sweep.spec import SweepSpec
from pythia_bento.sweep.table import SWEEP, Metadata, TableFile, is_done, place_of, write_json
from pythia_bento.sweep.tensor_file import SUFFIX, TensorFile


@dataclass(frozen=True, slots=True)
class Output:
    """Where rows go, and which of them are ours."""

    directory: Path
    suffix: str  # the format
    shard: Shard

    def path(self, id: str) -> Path:
        """Of a checkpoint's file, or of our part of it."""
        return self.directory / place_of(id, self.suffix, self.shard.of_items)

    def is_done(self, key: str, id: str, weights: str) -> bool:
        """Whether there is nothing to compute: its rows are there, or are another's to make."""
        whole = self.directory / place_of(id, self.suffix)
        paths = {whole, self.path(id)}
        return not self.shard.has(weights) or any(is_done(path, key, weights) for path in paths)


def begin(
    output: Output, spec: SweepSpec, asked: Sequence[tuple[str, Facts | PythiaError]]
) -> None:
    """Write what is being swept. Raises InvalidRequest where another sweep's files are, OSError."""
    path = output.directory / SWEEP
    known = key_of(path)
    if known not in (None, spec.key):
        raise InvalidRequest(
            f"{output.directory} has another sweep, of other items or another task; choose "
            "another --output",
            param="output",
        )
    shard = output.shard
    write_json(path, _said(output, spec, asked), f"{shard.index}-of-{shard.count}")


def _said(
    output: Output, spec: SweepSpec, asked: Sequence[tuple[str, Facts | PythiaError]]
) -> dict[str, Any]:
    """Nothing of it depends on the moment, or on which shard writes it."""
    versions = {"pythia-bento": __version__, "python": platform.python_version()}
    if output.suffix == "parquet":
        versions["pyarrow"] = arrow().__version__
    return {
        "key": spec.key,
        "task": spec.task.model_dump(mode="json", exclude_defaults=True) | {"type": spec.task.type},
        "items": {"count": len(spec.items)},
        "format": output.suffix,
        "versions": versions,
        "checkpoints": [
            {
                "model": id,
                "file": place_of(id, output.suffix).as_posix(),
                "weights": facts.weights if isinstance(facts, Facts) else None,
                "commit": facts.commit if isinstance(facts, Facts) else None,
            }
            for id, facts in asked
        ],
    }


class Recorder:
    """Takes the events of a sweep, in order. Close it."""

    def __init__(self, output: Output, spec: SweepSpec) -> None:
        self._output, self._key = output, spec.key
        self.items = output.shard.items(len(spec.items))
        self._task = spec.task.model_dump_json(exclude_defaults=True)
        self._file: TableFile | TensorFile | None = None
        self.num_done = self.num_rows = self.num_bad_rows = 0
        self.failed: dict[str, PythiaError] = {}

    def record(self, event: Event) -> None:
        """Rows are on the disk when ``Done`` of their checkpoint was taken; raises OSError."""
        if isinstance(event, Row):
            self._row(event)
        elif isinstance(event, Checkpoint):
            self._begin(event)
        elif isinstance(event, Failed):
            self.close()
            self.failed[event.model] = event.error
        elif isinstance(event, Done):
            assert self._file is not None
            self._file.finish()
            self._file = None
            self.num_done += 1

    def close(self) -> None:
        """What was begun is not kept."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _row(self, row: Row) -> None:
        assert self._file is not None
        self._file.add(row)
        self.num_rows += 1
        self.num_bad_rows += row.error is not None

    def _begin(self, checkpoint: Checkpoint) -> None:
        metadata = Metadata(
            key=self._key,
            weights=checkpoint.weights,
            fingerprint=checkpoint.system_fingerprint,
            commit=checkpoint.commit,
            same_weights=checkpoint.same_weights,
            rows=len(self.items),
            shard=self._output.shard.of_items,
        )
        path, start = self._output.path(checkpoint.model), self.items.start
        if self._output.suffix == SUFFIX:
            self._file = TensorFile(path, asdict(metadata), self._told(checkpoint), start)
        else:
            self._file = TableFile(path, of_checkpoint(checkpoint), metadata, start)

    def _told(self, checkpoint: Checkpoint) -> dict[str, str]:
        """As answers name it."""
        fingerprint = {"system_fingerprint": checkpoint.system_fingerprint}
        return {"model": checkpoint.model, **fingerprint, "request": self._task}
