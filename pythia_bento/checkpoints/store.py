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
from pathlib import Path
from typing import Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from filelock import FileLock

from pythia_bento.catalog import ModelId, parse
from pythia_bento.checkpoints import strict
from pythia_bento.checkpoints.store_names import INT8, old_name, store_name
from pythia_bento.checkpoints.stored_model import YAML, Origin, StoredModel, open_stored, tag_of
from pythia_bento.errors import CheckpointError, ModelNotFound

_log = logging.getLogger(__name__)


def nbytes(models: Iterable[StoredModel]) -> int:
    """Bytes of their files, each counted once however many share it."""
    sizes: dict[tuple[int, int], int] = {}
    for model in models:
        sizes |= model.sizes
    return sum(sizes.values())


def find(model: ModelId, commit: str) -> StoredModel | None:
    """The model of a repository at a commit; CheckpointError if its metadata makes no sense."""
    path = _place(model, commit)
    if (path / YAML).is_file() and is_of(model, found := open_stored(path)):
        return found
    return _find_old(model, commit)


def _find_old(model: ModelId, commit: str) -> StoredModel | None:
    """The same under its old name, where there may as well be what has nothing to do with it."""
    path = _models() / old_name(model) / commit
    try:
        found = open_stored(path) if (path / YAML).is_file() else None
    except CheckpointError:
        return None
    return found if found and is_of(model, found) else None


def is_of(model: ModelId, found: StoredModel) -> bool:
    """Whether a model is of a repository; under the old name there may be anyone's."""
    return found.origin.repository == model.repository


def require_place(model: ModelId, commit: str) -> None:
    """Raise CheckpointError if another repository's model lies where this one would."""
    path = _place(model, commit)
    if (path / YAML).is_file() and not is_of(model, found := open_stored(path)):
        raise CheckpointError(
            f"{found.tag} in BentoML's store is {found.origin.repository}, put there by an earlier "
            f"version where {model.repository} belongs; `bentoml models delete {found.tag}` "
            "removes it, and both can then be pulled"
        )


def stored_models() -> list[StoredModel]:
    """Everything in the store that ``pull`` put there."""
    return [open_stored(path) for path in _directories(f"*{INT8}") if (path / YAML).is_file()]


def unfinished() -> list[str]:
    """Tags under which the store has less than a model: BentoML copies file by file."""
    paths = _directories(f"*{INT8}")
    return [tag_of(path) for path in paths if not (path / YAML).is_file()]


def find_branch(model: ModelId) -> StoredModel | None:
    """What a branch was when it was pulled last; in a Bento, what was pulled for that branch."""
    if (commit := _recorded(model)) and (found := find(model, commit)):
        return found
    commits = {path.name: path.stat().st_mtime for path in places(model)}
    for commit in sorted(commits, key=lambda commit: commits[commit], reverse=True):
        found = find(model, commit)
        if found and found.origin.revision == model.revision:
            return found
    return None


def places(model: ModelId) -> Iterator[Path]:
    """Where models lie that may be of a repository, by its name of today and by the old one."""
    for name in dict.fromkeys((store_name(model), old_name(model))):
        yield from (path for path in _directories(name) if (path / YAML).is_file())


def folders(model: ModelId) -> list[Path]:
    """What changes when models of a repository come and go, or their branches move."""
    names = dict.fromkeys((store_name(model), old_name(model)))
    return [*(_models() / name for name in names), _ref(model).parent]


def branches(model: ModelId) -> dict[str, str]:
    """branch -> commit at the last pull, of all branches of a repository that were pulled."""
    found = {}
    for path in sorted(_ref(model).parent.glob("*")):
        with suppress(ModelNotFound, CheckpointError):
            if commit := _recorded(parse(f"{model.name}@{path.name}")):
                found[path.name] = commit
    return found


def _recorded(model: ModelId) -> str | None:
    """The commit in the record of a branch, if there is one."""
    ref = _ref(model)
    text = strict.read_bytes(ref, limit=100).decode(errors="replace") if ref.is_file() else ""
    return text.strip() if model.at(text.strip()).is_commit else None


def of_repository(model: ModelId) -> Iterator[StoredModel]:
    """What the store has of a repository; what makes no sense is left out."""
    for path in places(model):
        with suppress(CheckpointError):
            if is_of(model, found := open_stored(path)):
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
    made = {*found.origin.files, YAML}
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
    _log.warning("%s was no whole model; it is now %s", tag_of(path), place)


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


def _own() -> Path:
    return home() / "pythia-bento"


def _ref(model: ModelId) -> Path:
    return _own() / "refs" / model.repository.replace("/", "--") / model.revision


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
