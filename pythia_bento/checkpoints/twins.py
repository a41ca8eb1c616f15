"""What the store has of a repository, so that equal bytes are neither fetched nor kept twice.

Equal files are hard links. None is taken on trust: what is linked is hashed at its new place.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints import store
from pythia_bento.checkpoints.files import FileHash, Hashes, RemoteFile, Snapshot, check
from pythia_bento.checkpoints.hub import SAFETENSORS
from pythia_bento.checkpoints.stored_model import StoredModel

_Weights = tuple[tuple[str, str], ...]  # (name, sha256) of safetensors as the hub serves them
_log = logging.getLogger(__name__)


class Twins:
    """The models of one repository by their weights, and their files by content; for any thread."""

    def __init__(self, model: ModelId) -> None:
        self._model = model
        self._mutex = threading.Lock()
        self._is_read = False
        self._by_weights: dict[_Weights, StoredModel] = {}
        self._by_hash: dict[str, Path] = {}

    def of(self, snapshot: Snapshot) -> StoredModel | None:
        """A stored model that was made of the same weights."""
        wanted = weights_of(snapshot)
        with self._mutex:
            self._read()
            return self._by_weights.get(wanted) if wanted else None

    def add(self, found: StoredModel) -> None:
        """Let later pulls use a model that is in the store now."""
        with self._mutex:
            self._add(found)

    def link_equal(self, directory: Path, files: Hashes) -> None:
        """Let files of ``directory`` be those of stored models that are equal, where that works."""
        with self._mutex:
            self._read()
            known = {name: self._by_hash.get(facts.sha256) for name, facts in files.items()}
        for name, path in known.items():
            if path is not None and path.is_file() and not path.samefile(directory / name):
                _replace(directory / name, path, files[name])

    def _read(self) -> None:
        """Once, and only by a pull that has something to do."""
        if not self._is_read:
            self._is_read = True
            for found in store.of_repository(self._model):
                self._add(found)

    def _add(self, found: StoredModel) -> None:
        origin = found.origin
        source = {name: facts.sha256 for name, facts in origin.source_files.items()}
        self._by_weights[_only_weights(source)] = found
        self._by_hash |= {facts.sha256: found.path / name for name, facts in origin.files.items()}


def weights_of(snapshot: Snapshot) -> _Weights:
    """What weights are called equal by; empty where the hub does not give all hashes."""
    weights = [file for file in snapshot.files if is_weights(file)]
    if any(file.hash is None for file in weights):
        return ()
    return _only_weights({file.name: file.hash.sha256 for file in weights if file.hash})


def is_weights(file: RemoteFile) -> bool:
    """Whether a file holds weights; the index of several does not."""
    return SAFETENSORS.fullmatch(file.name) is not None


def take_weights(twin: StoredModel, names: list[str], target: Path) -> bool:
    """Link files of a stored model into ``target``; False, with nothing left, if one is damaged."""
    expected = {name: twin.origin.files[name] for name in names}
    for name in names:
        _link_or_copy(twin.path / name, target / name)
    if not check(target, expected):
        return True
    _log.warning("%s is damaged; its weights are downloaded anew", twin.tag)
    for name in names:
        (target / name).unlink(missing_ok=True)
    return False


def _only_weights(hashes: Mapping[str, str]) -> _Weights:
    found = ((name, digest) for name, digest in hashes.items() if SAFETENSORS.fullmatch(name))
    return tuple(sorted(found))


def _link_or_copy(origin: Path, target: Path) -> None:
    """A missing file is left out: the hashes show it."""
    if origin.is_symlink() or not origin.is_file():
        return
    try:
        target.hardlink_to(origin)
    except OSError:  # a file system without links, one link too many, another owner's file
        shutil.copyfile(origin, target)


def _replace(path: Path, twin: Path, expected: FileHash) -> None:
    """Put a link in the place of a file, if what it leads to is what it should be."""
    link = path.with_name(f".{path.name}.link")
    with suppress(OSError):
        try:
            if twin.is_symlink():
                return
            link.hardlink_to(twin)
            if not check(path.parent, {link.name: expected}):
                link.replace(path)
        finally:
            link.unlink(missing_ok=True)
