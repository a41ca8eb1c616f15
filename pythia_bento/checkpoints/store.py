"""BentoML's model store, where pulled models live as ``<name>-int8:<commit>``.

BentoML copies a model into its store file by file, and a process killed meanwhile leaves half a
model there under its final name. Here a model is completed beside the store, on the same file
system, and appears in it by one rename.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints.files import Commit, Hashes, check
from pythia_bento.errors import CheckpointError

_YAML = "model.yaml"  # BentoML's own file in a model
_TAG_LENGTH = 63  # BentoML's limit for names
_INT8 = "-int8"
_PYTHIA = re.compile(r"pythia-(?:intervention-(?:long-)?)?([0-9]+(?:\.[0-9]+)?[mb])(-deduped)?")


class Origin(BaseModel):
    """The metadata of a pulled model in ``model.yaml``."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    repository: str
    revision: str  # what was asked for at the first pull
    commit: Commit
    quantization: str  # how the 8-bit files came about, in words
    source_files: Hashes  # as the hub serves them
    files: Hashes  # as they lie in the store
    versions: dict[str, str]  # of the packages that made the files
    same_weights: list[str] = []  # other branches that hold the same weights, or some of them


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A pulled model; nothing is known about its files until ``check``."""

    tag: str
    path: Path
    origin: Origin

    def check(self) -> list[str]:
        """Hash every file: one line for each that is damaged, missing, or does not belong."""
        expected = self.origin.files
        present = {path.name for path in self.path.iterdir()} - {_YAML}
        lines = [f"{name} is not part of the model" for name in sorted(present - expected.keys())]
        return [f"{self.tag}: {line}" for line in [*check(self.path, expected), *lines]]


def store_name(model: ModelId) -> str:
    """The name of a repository's models in BentoML's store, where the commit is the version."""
    base = re.sub(r"[^a-z0-9._-]", "-", model.repository.partition("/")[2].lower())
    return base[: _TAG_LENGTH - len(_INT8)].rstrip("-._") + _INT8


def labels_of(model: ModelId) -> dict[str, str]:
    """What an id says about the model, for people who browse the store."""
    labels: dict[str, str] = {}
    if match := _PYTHIA.search(model.name):
        labels |= {"size": match[1], "variant": "deduped" if match[2] else "standard"}
    if model.claimed_step is not None:
        labels["step"] = str(model.claimed_step)
    return labels


def find(model: ModelId, commit: str) -> StoredModel | None:
    """The model of a repository at a commit; CheckpointError if its metadata makes no sense."""
    path = _models() / store_name(model) / commit
    if not (path / _YAML).is_file():
        return None  # also what is left of a copy by BentoML that was killed
    found = _open(path)
    return found if found.origin.repository == model.repository else None


def stored_models() -> list[StoredModel]:
    """Everything in the store that ``pull`` put there."""
    return [_open(path) for path in _directories(f"*{_INT8}") if (path / _YAML).is_file()]


def unfinished() -> list[str]:
    """Tags under which the store has less than a model: BentoML copies file by file."""
    paths = _directories(f"*{_INT8}")
    return [_tag(path) for path in paths if not (path / _YAML).is_file()]


def find_branch(model: ModelId) -> StoredModel | None:
    """What a branch was when it was pulled last; in a Bento, what was pulled for that branch."""
    ref = _ref(model)
    if ref.is_file() and (found := find(model, ref.read_text().strip())):
        return found
    paths = [path for path in _directories(store_name(model)) if (path / _YAML).is_file()]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        found = _open(path)
        asked = (found.origin.repository, found.origin.revision)
        if asked == (model.repository, model.revision):
            return found
    return None


def record_branch(model: ModelId, commit: str) -> None:
    """Remember what a branch was; a commit needs no record."""
    if not model.is_commit:
        _replace_text(_ref(model), commit)


def insert(model: ModelId, origin: Origin, files: Path, labels: dict[str, str]) -> StoredModel:
    """Move the complete directory ``files`` into the store; it must be on the same file system.

    The caller holds ``pulling`` and has made sure that the model is not in the store.
    """
    tag = f"{store_name(model)}:{origin.commit}"
    staging = workspace(model, origin.commit) / "store"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    metadata: dict[str, Any] = origin.model_dump(exclude_none=True)
    with bentoml.models.create(
        tag, labels=labels, metadata=metadata, _model_store=ModelStore(staging)
    ):
        pass  # model.yaml is all that BentoML writes
    staged = staging / store_name(model) / origin.commit
    for path in files.iterdir():
        path.rename(staged / path.name)
    _sync(staged)
    final = _models() / store_name(model) / origin.commit
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        discard(model, origin.commit)
    staged.rename(final)
    _sync_directory(final.parent)
    _replace_text(final.parent / "latest", origin.commit)
    shutil.rmtree(staging)
    return StoredModel(tag, final, origin)


def discard(model: ModelId, commit: str) -> None:
    """Take a damaged or unfinished model out of the store."""
    trash = workspace(model, commit) / "discarded"
    shutil.rmtree(trash, ignore_errors=True)
    trash.parent.mkdir(parents=True, exist_ok=True)
    (_models() / store_name(model) / commit).rename(trash)
    shutil.rmtree(trash)


def workspace(model: ModelId, commit: str) -> Path:
    """Where a pull puts what is not finished; on the file system of the store."""
    return _own() / "work" / store_name(model) / commit


def pulling(model: ModelId, commit: str) -> FileLock:
    """Held by the one process that may change this model in the store."""
    path = _own() / "locks" / f"{store_name(model)}-{commit}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _home() -> Path:
    return Path(BentoMLContainer.bentoml_home.get())


def _models() -> Path:
    # Not `model_store_dir`: while a Bento with models of its own is loaded, those are the store.
    return Path(BentoMLContainer.model_store.get()._path)


def _directories(name: str) -> list[Path]:
    """Where the models of one name, or of a pattern, lie."""
    return sorted(_models().glob(f"{name}/{'[0-9a-f]' * 40}"))


def _tag(path: Path) -> str:
    return f"{path.parent.name}:{path.name}"


def _own() -> Path:
    return _home() / "pythia-bento"


def _ref(model: ModelId) -> Path:
    return _own() / "refs" / model.repository.replace("/", "--") / model.revision


def _open(path: Path) -> StoredModel:
    tag = _tag(path)
    try:
        model = bentoml.models.get(tag)
        origin = Origin.model_validate(model.info.metadata)
    except (bentoml.exceptions.BentoMLException, ValidationError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{tag} in BentoML's store was not put there by `pythia-bento pull`, or is damaged; "
            f"`bentoml models delete {tag}` removes it ({str(error).splitlines()[0]})"
        ) from None
    return StoredModel(tag, path, origin)


def _replace_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def _sync(directory: Path) -> None:
    """Bring files to the disk before their names: a power cut must not leave empty ones."""
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
