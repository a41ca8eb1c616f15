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
from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints import download, hub, store
from pythia_bento.checkpoints.branches import same_weights
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.files import (
    Hashes,
    Snapshot,
    check,
    differences,
    hash_files,
)
from pythia_bento.checkpoints.lock import Lock, PinnedModel
from pythia_bento.checkpoints.resolve import mismatches, revision_commit
from pythia_bento.checkpoints.store import Origin, StoredModel
from pythia_bento.checkpoints.store_names import labels_of
from pythia_bento.checkpoints.tokenizer_file import check_tokenizer, try_tokenizer
from pythia_bento.checkpoints.workspace import (
    disk_errors,
    downloads,
    exclusive,
    require_space,
)
from pythia_bento.errors import CheckpointError

Progress = Callable[[str, int, int], None]  # what, done, total
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pulled:
    """The model, and whether it was in the store before."""

    model: StoredModel
    was_there: bool


def pull(
    model: ModelId,
    lock: Lock | None = None,
    on_progress: Progress | None = None,
    on_bytes: Progress | None = None,
) -> Pulled:
    """Bring ``model`` into the store; a model that ``lock`` pins comes at its pinned commit.

    ``on_bytes`` is told of bytes that were downloaded, ``on_progress`` of all other work.
    Nothing happens if the store has it whole; a damaged copy is replaced. Raises ModelNotFound,
    and CheckpointError for all that goes wrong on the way: the store then has no such model, and
    what was downloaded is used by the next pull.
    """
    pin = (lock or Lock()).get(model)
    commit = pin.commit if pin else revision_commit(model)
    with disk_errors(str(model)), exclusive(model, commit):
        found = _whole(model, commit)
        was_there = found is not None
        if found is None:
            found = _pull(model, commit, pin, on_progress or _unheard, on_bytes or _unheard)
        if pin:
            _require(mismatches(pin, found), model)
        store.record_branch(model, commit)
        shutil.rmtree(downloads(model, commit), ignore_errors=True)
        shutil.rmtree(store.workspace(model, commit), ignore_errors=True)
    return Pulled(found, was_there)


def _whole(model: ModelId, commit: str) -> StoredModel | None:
    """The model in the store if it is undamaged; a damaged one is thrown away."""
    found = store.find(model, commit)
    if found is None:
        return None
    problems = found.check()
    if not problems:
        return found
    _log.warning("%s; pulling it anew", problems[0])
    store.discard(found)
    return None


def _pull(
    model: ModelId,
    commit: str,
    pin: PinnedModel | None,
    on_progress: Progress,
    on_bytes: Progress,
) -> StoredModel:
    store.require_place(model, commit)
    snapshot = hub.resolve(model.at(commit))
    sources, prepared = downloads(model, commit), store.workspace(model, commit) / "int8"
    require_space(sources, sum(file.size for file in snapshot.files))
    source_files = _fetch(snapshot, sources, partial(on_bytes, f"downloading {model}"))
    if pin:
        _require(differences(pin.files, source_files), model)
    check_tokenizer(sources / "tokenizer.json", read_config(sources / "config.json"))
    try_tokenizer(sources / "tokenizer.json")
    shutil.rmtree(prepared, ignore_errors=True)
    quantization = _prepare(sources, source_files, prepared, on_progress)
    origin = Origin(
        repository=model.repository,
        revision=model.revision,
        commit=commit,
        quantization=quantization,
        source_files=source_files,
        files=hash_files(prepared, sorted(path.name for path in prepared.iterdir())),
        versions={"torch": version("torch"), "pythia-bento": __version__},
        same_weights=same_weights(model, commit),
    )
    if pin:
        _require(differences(pin.int8, origin.files), model)
    return store.insert(model, origin, prepared, {**labels_of(model), "quantisation": "int8"})


def _fetch(snapshot: Snapshot, directory: Path, report: Callable[[int, int], None]) -> Hashes:
    directory.mkdir(parents=True, exist_ok=True)
    hashes, before, total = {}, 0, sum(file.size for file in snapshot.files)
    for file in snapshot.files:
        hashes[file.name] = download.fetch(snapshot, file, directory, _after(before, total, report))
        before += file.size
        report(before, total)  # some are there already
    return hashes


def _after(before: int, total: int, report: Callable[[int, int], None]) -> Callable[[int], None]:
    return lambda done: report(before + done, total)


def _unheard(what: str, done: int, total: int) -> None:
    """Where nobody wants to know."""


def _prepare(sources: Path, files: Hashes, target: Path, on_progress: Progress) -> str:
    """Write the 8-bit files to ``target``; says in words how they came about."""
    # Imported here: these bring torch, which takes seconds, and a name is resolved without.
    from pythia_bento.checkpoints.quantize import CheckpointWeights
    from pythia_bento.checkpoints.save import save_int8

    weights = CheckpointWeights(sources, read_config(sources / "config.json"))
    if not weights.reader.quantized:
        save_int8(
            weights, sources, target, lambda done, total: on_progress("quantising", done, total)
        )
        return "int8 by row, quantised as bitsandbytes does it"
    target.mkdir(parents=True)
    for name in files:
        shutil.copyfile(sources / name, target / name)  # maybe out of the library's cache
    if problems := check(target, files):
        raise CheckpointError(f"{target}: {problems[0]}")
    return "int8 by row, as in the repository"


def _require(problems: list[str], model: ModelId) -> None:
    if problems:
        raise CheckpointError(f"{model} is not what the lock pins: {'; '.join(problems)}")
