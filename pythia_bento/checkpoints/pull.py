"""``pull``: from a model id to verified 8-bit weights in BentoML's store."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from pythia_bento import __version__
from pythia_bento.checkpoints import download, hub, store
from pythia_bento.checkpoints.branches import same_weights
from pythia_bento.checkpoints.files import PinnedFile, RemoteFile, Snapshot, describe, differences
from pythia_bento.checkpoints.lock import Lock, PinnedModel
from pythia_bento.checkpoints.names import ModelName
from pythia_bento.checkpoints.quantize import CheckpointWeights
from pythia_bento.checkpoints.resolve import mismatches, revision_commit
from pythia_bento.checkpoints.save import save_int8
from pythia_bento.checkpoints.store import Provenance, StoredModel
from pythia_bento.checkpoints.workspace import (
    disk_errors,
    downloads,
    exclusive,
    require_space,
)
from pythia_bento.errors import CheckpointError
from pythia_bento.model.config import ModelConfig

Progress = Callable[[str, int, int], None]  # what, done, total
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pulled:
    """The model, and whether it was in the store before."""

    model: StoredModel
    was_there: bool


def pull(model: str, lock: Lock | None = None, on_progress: Progress | None = None) -> Pulled:
    """Bring ``model`` into the store; a model that ``lock`` pins comes at its pinned commit.

    Nothing happens if the store has it whole; a damaged copy is replaced. Raises ModelNotFound,
    and CheckpointError for all that goes wrong on the way: the store then has no such model, and
    what was downloaded is used by the next pull.
    """
    name = ModelName.parse(model)
    pin = (lock or Lock()).get(name)
    commit = pin.commit if pin else revision_commit(name)
    with exclusive(name, commit), disk_errors(name.id):
        found = _whole(name, commit)
        was_there = found is not None
        if found is None:
            found = _pull(name, commit, pin, on_progress or (lambda what, done, total: None))
        if pin:
            _require(mismatches(pin, found), name)
        store.record_branch(name, commit)
        shutil.rmtree(downloads(name, commit), ignore_errors=True)
        shutil.rmtree(store.workspace(name, commit), ignore_errors=True)
    return Pulled(found, was_there)


def _whole(name: ModelName, commit: str) -> StoredModel | None:
    """The model in the store if it is undamaged; a damaged one is thrown away."""
    found = store.find(name, commit)
    if found is None:
        return None
    problems = found.check()
    if not problems:
        return found
    _log.warning("%s; pulling it anew", problems[0])
    store.discard(name, commit)
    return None


def _pull(
    name: ModelName, commit: str, pin: PinnedModel | None, on_progress: Progress
) -> StoredModel:
    snapshot = hub.resolve(name.at(commit))
    sources, prepared = downloads(name, commit), store.workspace(name, commit) / "int8"
    require_space(sources, sum(file.size for file in snapshot.files))
    source_files = _fetch(snapshot, sources, on_progress)
    if pin:
        _require(differences(pin.files, source_files), name)
    shutil.rmtree(prepared, ignore_errors=True)
    quantization = _prepare(sources, source_files, prepared, on_progress)
    provenance = Provenance(
        repository=name.repo_id,
        revision=name.revision,
        commit=commit,
        quantization=quantization,
        source_files=source_files,
        files={path.name: describe(path) for path in sorted(prepared.iterdir())},
        versions={"torch": version("torch"), "pythia-bento": __version__},
        same_weights=same_weights(name, commit),
    )
    if pin:
        _require(differences(pin.int8, provenance.files), name)
    return store.insert(name, provenance, prepared, {**name.labels, "quantisation": "int8"})


def _fetch(snapshot: Snapshot, directory: Path, on_progress: Progress) -> dict[str, PinnedFile]:
    directory.mkdir(parents=True, exist_ok=True)
    files = {}
    for file in snapshot.files:
        report = partial(_report_kilobytes, on_progress, file)
        digest = download.fetch(snapshot, file, directory, report)
        files[file.name] = PinnedFile(sha256=digest, size=file.size)
    return files


def _report_kilobytes(on_progress: Progress, file: RemoteFile, done: int) -> None:
    on_progress(f"{file.name} (kB)", -(-done // 1000), -(-file.size // 1000))


def _prepare(
    sources: Path, files: dict[str, PinnedFile], target: Path, on_progress: Progress
) -> str:
    """Write the 8-bit files to ``target``; says in words how they came about."""
    weights = CheckpointWeights(sources, ModelConfig.from_file(sources / "config.json"))
    if not weights.quantized:
        save_int8(
            weights, sources, target, lambda done, total: on_progress("quantising", done, total)
        )
        return "int8 by row, quantised as bitsandbytes does it"
    target.mkdir(parents=True)
    for name in files:
        shutil.copyfile(sources / name, target / name)  # maybe out of the library's cache
    copies = {name: describe(target / name) for name in files}
    if problems := differences(files, copies):
        raise CheckpointError(f"{target}: {problems[0]}")
    return "int8 by row, as in the repository"


def _require(problems: list[str], name: ModelName) -> None:
    if problems:
        raise CheckpointError(f"{name.id} is not what the lock pins: {'; '.join(problems)}")
