"""``pull``: from a model id to verified 8-bit weights in BentoML's store."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
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
    RemoteFile,
    Snapshot,
    differences,
    hash_files,
)
from pythia_bento.checkpoints.hub import SAFETENSORS
from pythia_bento.checkpoints.lock import Lock, PinnedModel
from pythia_bento.checkpoints.prepare import prepare, prepare_beside
from pythia_bento.checkpoints.resolve import mismatches, revision_commit
from pythia_bento.checkpoints.store_names import labels_of
from pythia_bento.checkpoints.stored_model import Origin, StoredModel
from pythia_bento.checkpoints.tokenizer_file import check_tokenizer, try_tokenizer
from pythia_bento.checkpoints.twins import Twins, is_weights
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


@dataclass(frozen=True, slots=True)
class Source:
    """What the hub says of a model, asked for only where it is needed."""

    commit: str
    snapshot: Callable[[], Snapshot]
    same_weights: Callable[[], list[str]]


@dataclass(frozen=True, slots=True)
class Turns:
    """Held by a pull while it downloads, or computes: those side by side have the same ones."""

    downloading: AbstractContextManager[object] = field(default_factory=nullcontext)
    quantising: AbstractContextManager[object] = field(default_factory=nullcontext)


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
    source = Source(
        commit, lambda: hub.resolve(model.at(commit)), lambda: same_weights(model, commit)
    )
    return Pull(
        model, source, pin, Twins(model), on_progress or _unheard, on_bytes or _unheard
    ).run()


@dataclass(frozen=True, slots=True)
class Pull:
    """One model on its way into the store."""

    model: ModelId
    source: Source
    pin: PinnedModel | None
    twins: Twins
    on_progress: Progress
    on_bytes: Progress
    turns: Turns = field(default_factory=Turns)

    def run(self) -> Pulled:
        """What ``pull`` does."""
        model, commit = self.model, self.source.commit
        with disk_errors(str(model)), exclusive(model, commit):
            found = _whole(model, commit)
            was_there = found is not None
            if found is None:
                found = self._bring()
            if self.pin:
                _require(mismatches(self.pin, found), model)
            self.twins.add(found)
            store.record_branch(model, commit)
            shutil.rmtree(downloads(model, commit), ignore_errors=True)
            shutil.rmtree(store.workspace(model, commit), ignore_errors=True)
        return Pulled(found, was_there)

    def _bring(self) -> StoredModel:
        store.require_place(self.model, self.source.commit)
        snapshot = self.source.snapshot()
        twin = self.twins.of(snapshot)
        if twin and self._may_have(twin) and (found := self._beside(snapshot, twin)):
            return found
        sources = self._fetch(snapshot, snapshot.files)
        with self.turns.quantising:
            quantization = prepare(self._sources, sources, self._prepared, self.on_progress)
            return self._insert(sources, quantization, _versions())

    def _may_have(self, twin: StoredModel) -> bool:
        """Whether the lock leaves it open what the weights become in 8 bits, or has these."""
        pinned = self.pin.int8 if self.pin else {}
        weights = {name: pinned[name] for name in pinned if SAFETENSORS.fullmatch(name)}
        return not differences(weights, twin.origin.files)

    def _beside(self, snapshot: Snapshot, twin: StoredModel) -> StoredModel | None:
        """The model with the weights of ``twin``, of which all but these is downloaded."""
        others = tuple(file for file in snapshot.files if not is_weights(file))
        weights = {
            file.name: file.hash for file in snapshot.files if is_weights(file) and file.hash
        }
        sources = self._fetch(snapshot, others, weights)
        with self.turns.quantising:
            if not prepare_beside(self._sources, sources, self._prepared, twin):
                return None
            return self._insert(sources, twin.origin.quantization, twin.origin.versions)

    @property
    def _sources(self) -> Path:
        return downloads(self.model, self.source.commit)

    @property
    def _prepared(self) -> Path:
        return store.workspace(self.model, self.source.commit) / "int8"

    def _fetch(
        self, snapshot: Snapshot, files: tuple[RemoteFile, ...], known: Hashes | None = None
    ) -> Hashes:
        """Download and check; the hashes of all files of the model, the ``known`` among them."""
        with self.turns.downloading:
            require_space(self._sources, sum(file.size for file in files))
            report = partial(self.on_bytes, f"downloading {self.model}")
            hashes = _fetch(snapshot, files, self._sources, report) | (known or {})
        if self.pin:
            _require(differences(self.pin.files, hashes), self.model)
        check_tokenizer(
            self._sources / "tokenizer.json", read_config(self._sources / "config.json")
        )
        try_tokenizer(self._sources / "tokenizer.json")
        shutil.rmtree(self._prepared, ignore_errors=True)
        return hashes

    def _insert(
        self, source_files: Hashes, quantization: str, versions: dict[str, str]
    ) -> StoredModel:
        model, prepared = self.model, self._prepared
        origin = Origin(
            repository=model.repository,
            revision=model.revision,
            commit=self.source.commit,
            quantization=quantization,
            source_files=source_files,
            files=hash_files(prepared, sorted(path.name for path in prepared.iterdir())),
            versions=versions,
            same_weights=self.source.same_weights(),
        )
        if self.pin:
            _require(differences(self.pin.int8, origin.files), model)
        self.twins.link_equal(prepared, origin.files)
        return store.insert(model, origin, prepared, {**labels_of(model), "quantisation": "int8"})


def _versions() -> dict[str, str]:
    return {"torch": version("torch"), "pythia-bento": __version__}


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


def _fetch(
    snapshot: Snapshot,
    files: tuple[RemoteFile, ...],
    directory: Path,
    report: Callable[[int, int], None],
) -> Hashes:
    directory.mkdir(parents=True, exist_ok=True)
    hashes, before, total = {}, 0, sum(file.size for file in files)
    for file in files:
        hashes[file.name] = download.fetch(snapshot, file, directory, _after(before, total, report))
        before += file.size
        report(before, total)  # some are there already
    return hashes


def _after(before: int, total: int, report: Callable[[int, int], None]) -> Callable[[int], None]:
    return lambda done: report(before + done, total)


def _unheard(what: str, done: int, total: int) -> None:
    """Where nobody wants to know."""


def _require(problems: list[str], model: ModelId) -> None:
    if problems:
        raise CheckpointError(f"{model} is not what the lock pins: {'; '.join(problems)}")
