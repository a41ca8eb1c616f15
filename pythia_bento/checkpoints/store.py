"""BentoML's model store, where pulled models live as ``<owner>--<name>-int8:<commit>``.

Names of the suite are without their owner. BentoML copies a model into its store file by file, and
a process killed meanwhile leaves half a model there under its final name. Here a model is completed
beside the store, on the same file system, and appears in it by one rename. What the program cannot
prove to have put there is never deleted.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from filelock import FileLock
from pydantic import Field

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints import strict
from pythia_bento.checkpoints.files import Commit, Hashes, Repository, Revision, check
from pythia_bento.checkpoints.store_names import INT8, old_name, store_name
from pythia_bento.checkpoints.yaml_file import read_yaml
from pythia_bento.errors import CheckpointError

_YAML = "model.yaml"  # BentoML's own file in a model


_log = logging.getLogger(__name__)


class Origin(strict.Open):
    """The metadata of a pulled model in ``model.yaml``."""

    repository: Repository
    revision: Revision  # what was asked for at the first pull
    commit: Commit
    quantization: str  # how the 8-bit files came about, in words
    source_files: Hashes  # as the hub serves them
    files: Hashes  # as they lie in the store
    versions: dict[str, str]  # of the packages that made the files
    same_weights: list[str] = Field(default_factory=list)  # other branches with some of the weights


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A pulled model; nothing is known about its files until ``check``."""

    tag: str
    path: Path
    origin: Origin

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """Bytes of its files by (device, inode): models share files."""
        paths = (self.path / name for name in self.origin.files)
        stats = [path.stat() for path in paths if path.is_file()]
        return {(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}

    def check(self) -> list[str]:
        """Hash every file: one line for each that is damaged, missing, or does not belong."""
        expected = self.origin.files
        present = {path.name for path in self.path.iterdir()} - {_YAML}
        lines = [f"{name} is not part of the model" for name in sorted(present - expected.keys())]
        return [f"{self.tag}: {line}" for line in [*check(self.path, expected), *lines]]


def nbytes(models: Iterable[StoredModel]) -> int:
    """Bytes of their files, each counted once however many share it."""
    sizes: dict[tuple[int, int], int] = {}
    for model in models:
        sizes |= model.sizes
    return sum(sizes.values())


def find(model: ModelId, commit: str) -> StoredModel | None:
    """The model of a repository at a commit; CheckpointError if its metadata makes no sense."""
    path = _place(model, commit)
    if (path / _YAML).is_file() and _is_of(model, found := _open(path)):
        return found
    return _find_old(model, commit)


def _find_old(model: ModelId, commit: str) -> StoredModel | None:
    """The same under its old name, where there may as well be what has nothing to do with it."""
    path = _models() / old_name(model) / commit
    try:
        found = _open(path) if (path / _YAML).is_file() else None
    except CheckpointError:
        return None
    return found if found and _is_of(model, found) else None


def _is_of(model: ModelId, found: StoredModel) -> bool:
    return found.origin.repository == model.repository


def require_place(model: ModelId, commit: str) -> None:
    """Raise CheckpointError if another repository's model lies where this one would."""
    path = _place(model, commit)
    if (path / _YAML).is_file() and not _is_of(model, found := _open(path)):
        raise CheckpointError(
            f"{found.tag} in BentoML's store is {found.origin.repository}, put there by an earlier "
            f"version where {model.repository} belongs; `bentoml models delete {found.tag}` "
            "removes it, and both can then be pulled"
        )


def stored_models() -> list[StoredModel]:
    """Everything in the store that ``pull`` put there."""
    return [_open(path) for path in _directories(f"*{INT8}") if (path / _YAML).is_file()]


def unfinished() -> list[str]:
    """Tags under which the store has less than a model: BentoML copies file by file."""
    paths = _directories(f"*{INT8}")
    return [_tag(path) for path in paths if not (path / _YAML).is_file()]


def find_branch(model: ModelId) -> StoredModel | None:
    """What a branch was when it was pulled last; in a Bento, what was pulled for that branch."""
    if (commit := _recorded(model)) and (found := find(model, commit)):
        return found
    commits = {path.name: path.stat().st_mtime for path in _pulled(model)}
    for commit in sorted(commits, key=lambda commit: commits[commit], reverse=True):
        found = find(model, commit)
        if found and found.origin.revision == model.revision:
            return found
    return None


def _pulled(model: ModelId) -> Iterator[Path]:
    for name in dict.fromkeys((store_name(model), old_name(model))):
        yield from (path for path in _directories(name) if (path / _YAML).is_file())


def _recorded(model: ModelId) -> str | None:
    """The commit in the record of a branch, if there is one."""
    ref = _ref(model)
    text = strict.read_bytes(ref, limit=100).decode(errors="replace") if ref.is_file() else ""
    return text.strip() if model.at(text.strip()).is_commit else None


def of_repository(model: ModelId) -> Iterator[StoredModel]:
    """What the store has of a repository; what makes no sense is left out."""
    for path in _pulled(model):
        with suppress(CheckpointError):
            if _is_of(model, found := _open(path)):
                yield found


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
    final = _place(model, origin.commit)
    final.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(final):
        _set_aside(final)
    staged.rename(final)
    _sync_directory(final.parent)
    _replace_text(final.parent / "latest", origin.commit)
    shutil.rmtree(staging)
    return StoredModel(tag, final, origin)


def discard(found: StoredModel) -> None:
    """Take a damaged model out of the store; what others put into it is kept beside the store."""
    made = {*found.origin.files, _YAML}
    others = [path for path in found.path.iterdir() if path.name not in made or path.is_dir()]
    if found.path.is_symlink() or others:
        _set_aside(found.path)
        return
    trash = _own() / "discarded" / f"{found.path.parent.name}-{found.path.name}"
    shutil.rmtree(trash, ignore_errors=True)
    trash.parent.mkdir(parents=True, exist_ok=True)
    found.path.rename(trash)
    shutil.rmtree(trash)


def _set_aside(path: Path) -> None:
    """Move what is not known to be a model of ours out of the store."""
    folder = _own() / "set-aside"
    folder.mkdir(parents=True, exist_ok=True)
    places = (folder / f"{path.parent.name}-{path.name}-{number}" for number in range(10**6))
    place = next(place for place in places if not os.path.lexists(place))
    path.rename(place)
    _log.warning("%s was no whole model; it is now %s", _tag(path), place)


def workspace(model: ModelId, commit: str) -> Path:
    """Where a pull puts what is not finished; on the file system of the store."""
    return _own() / "work" / store_name(model) / commit


def pulling(model: ModelId, commit: str) -> FileLock:
    """Held by the one process that may change this model in the store."""
    path = _own() / "locks" / f"{store_name(model)}-{commit}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def home() -> Path:
    """The directory that BentoML keeps everything in, the store among it."""
    return Path(BentoMLContainer.bentoml_home.get())


def _models() -> Path:
    # Not `model_store_dir`: while a Bento with models of its own is loaded, those are the store.
    return Path(BentoMLContainer.model_store.get()._path)


def _place(model: ModelId, commit: str) -> Path:
    return _models() / store_name(model) / commit


def _directories(name: str) -> list[Path]:
    """Where the models of one name, or of a pattern, lie."""
    return sorted(_models().glob(f"{name}/{'[0-9a-f]' * 40}"))


def _tag(path: Path) -> str:
    return f"{path.parent.name}:{path.name}"


def _own() -> Path:
    return home() / "pythia-bento"


def _ref(model: ModelId) -> Path:
    return _own() / "refs" / model.repository.replace("/", "--") / model.revision


def _open(path: Path) -> StoredModel:
    tag = _tag(path)
    try:
        raw = read_yaml(path / _YAML)
        metadata = raw.get("metadata") if isinstance(raw, dict) else None
        origin = strict.check(Origin, metadata, "metadata")
    except CheckpointError as error:
        raise CheckpointError(
            f"{tag} in BentoML's store was not put there by `pythia-bento pull`, or is damaged; "
            f"`bentoml models delete {tag}` removes it ({error.message})"
        ) from None
    return StoredModel(tag, path, origin)


def _replace_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Pulls side by side write the same name: some in this process, some in others.
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
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
