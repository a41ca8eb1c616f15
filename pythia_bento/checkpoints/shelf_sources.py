"""What the bundle and the store have of a model, read once for each change and never hashed.

Whatever makes no sense there is a fault of the ids that mean it, not of the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pythia_bento.catalog import BUNDLED, MAIN, ModelId
from pythia_bento.checkpoints import bundle
from pythia_bento.checkpoints.checkpoint import AT_LOAD, CONFIG, TOKENIZER
from pythia_bento.checkpoints.config_file import parse_config
from pythia_bento.checkpoints.files import FileHash, Hashes, stamp
from pythia_bento.checkpoints.patterns import Pattern, ids_of
from pythia_bento.checkpoints.shelf_entry import ShelfEntry, make_entry, step_of
from pythia_bento.checkpoints.strict import parse_json, read_bytes
from pythia_bento.errors import CheckpointError, PythiaError
from pythia_bento.model.config import ModelConfig

if TYPE_CHECKING:
    from pythia_bento.checkpoints.lock import Lock, PinnedModel
    from pythia_bento.checkpoints.stored_model import StoredModel


@dataclass(slots=True)
class Found:
    """What patterns match: entries, and by id why others are none."""

    entries: list[ShelfEntry] = field(default_factory=list)
    faults: dict[str, PythiaError] = field(default_factory=dict)
    watched: list[str] = field(default_factory=list)  # while these are the same, so is the rest

    def watch(self, *paths: Path) -> None:
        """Name files and directories that this was read from."""
        self.watched += map(str, paths)

    def add(self, names: tuple[str, ...], make: Callable[[], ShelfEntry]) -> None:
        """Take an entry, or what is raised instead."""
        try:
            self.entries.append(make())
        except CheckpointError as error:
            self.faults |= dict.fromkeys(names, error)
        except OSError as error:
            told = CheckpointError(f"{names[0]} cannot be read: {error.strerror}")
            self.faults |= dict.fromkeys(names, told)


class BundledSteps:
    """Steps of the checkpoint that comes with the package."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._configs = _Kept()

    def find(self, patterns: Iterable[Pattern], found: Found) -> None:
        """Add those that a pattern matches."""
        found.watch(self._root / bundle.MANIFEST)
        try:
            steps = bundle.list_bundled(self._root)
        except CheckpointError as error:
            found.faults[BUNDLED] = error
            return
        model = ModelId(BUNDLED)
        for step in steps:
            revisions = [step.step, step.commit, *([MAIN] if step.is_main else [])]
            if _match(patterns, model, revisions):
                found.watch(*_parts(step.directory))
                names = ids_of(model, revisions, step.is_main)
                found.add(names, partial(self._entry, step, names))

    def _entry(self, step: bundle.BundledStep, names: tuple[str, ...]) -> ShelfEntry:
        config = self._configs.get(step.directory, partial(_config, step.directory, step.files))
        return make_entry(
            names=names,
            step=step_of(ModelId(BUNDLED), [step.step]),
            commit=step.commit,
            path=step.directory,
            files=_hashes(step.files),
            config=config,
            quantization=AT_LOAD,
            same_weights=(),
        )


class PulledModels:
    """Models of BentoML's store, by the branches that mean them as ``resolve.find`` has it."""

    def __init__(self) -> None:
        self._kept = _Kept()

    def find(self, model: ModelId, patterns: Iterable[Pattern], lock: Lock, found: Found) -> None:
        """Add what the store has of a repository and a pattern matches; may raise OSError."""
        from pythia_bento.checkpoints import store

        found.watch(*store.folders(model))
        known = self._known(model, found)
        pins = [pin for pin in lock.models.values() if pin.repository == model.repository]
        meant = _branches(model, known, pins)
        for commit, (_, one) in known.items():
            branches = sorted((b for b, c in meant.items() if c == commit), key=_by_step)
            if _match(patterns, model, [*branches, commit]):
                names = ids_of(model, [*branches, commit], MAIN in branches)
                pin = next((pin for pin in pins if pin.commit == commit), None)
                found.add(names, partial(_pulled_entry, model, one, branches, names, pin))

    def _known(
        self, model: ModelId, found: Found
    ) -> dict[str, tuple[float, _Known | CheckpointError]]:
        """commit -> when it came, and what it is."""
        from pythia_bento.checkpoints import store
        from pythia_bento.checkpoints.store_names import store_name

        known: dict[str, tuple[float, _Known | CheckpointError]] = {}
        for path in store.places(model):
            found.watch(*_parts(path))
            try:
                came = path.stat().st_mtime
                one = self._kept.get(path, partial(_read, path))
            except OSError:
                continue  # it was there a moment ago
            except CheckpointError as error:
                if path.parent.name == store_name(model):  # the old name may be anyone's
                    known.setdefault(path.name, (came, error))
                continue
            if store.is_of(model, one.model):
                known.setdefault(path.name, (came, one))
        return known


@dataclass(frozen=True, slots=True)
class _Known:
    model: StoredModel
    config: ModelConfig


class _Kept:
    """Results by directory, until one of its files is another; errors are results."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[object, Any]] = {}

    def get(self, directory: Path, make: Callable[[], Any]) -> Any:
        """What ``make`` returned or raised when the files were as they are."""
        now = tuple(map(stamp, _parts(directory)))
        if directory not in self._kept or self._kept[directory][0] != now:
            try:
                self._kept[directory] = now, make()
            except CheckpointError as error:
                self._kept[directory] = now, error
        result = self._kept[directory][1]
        if isinstance(result, CheckpointError):
            raise CheckpointError(result.message)
        return result


def _parts(directory: Path) -> list[Path]:
    """What is read of a model for the shelf."""
    return [directory, directory / "model.yaml", directory / CONFIG, directory / TOKENIZER]


def _read(path: Path) -> _Known:
    from pythia_bento.checkpoints.stored_model import open_stored

    found = open_stored(path)
    if found.origin.commit != path.name:
        raise CheckpointError(f"{found.tag} says that it is {found.origin.commit}")
    return _Known(found, _config(path, found.origin.files))


def _config(directory: Path, files: Hashes) -> ModelConfig:
    """The shape, out of bytes that are those recorded."""
    if absent := [name for name in (CONFIG, TOKENIZER) if name not in files]:
        raise CheckpointError(f"{directory} was recorded without {absent[0]}")
    path, recorded = directory / CONFIG, files[CONFIG].sha256
    data = read_bytes(path)
    if (digest := hashlib.sha256(data).hexdigest()) != recorded:
        raise CheckpointError(f"{path} has sha256 {digest}, not {recorded}")
    return parse_config(parse_json(data, str(path)), str(path))


def _branches(
    model: ModelId,
    known: dict[str, tuple[float, _Known | CheckpointError]],
    pins: Iterable[PinnedModel],
) -> dict[str, str]:
    """branch -> commit: as pinned, else as recorded at the last pull, else what came last."""
    from pythia_bento.checkpoints import store

    meant: dict[str, str] = {}
    for commit, (_, one) in sorted(known.items(), key=lambda item: item[1][0]):
        if isinstance(one, _Known):
            meant[one.model.origin.revision] = commit
    meant |= {b: commit for b, commit in store.branches(model).items() if commit in known}
    meant |= {pin.revision: pin.commit for pin in pins}
    return {branch: commit for branch, commit in meant.items() if branch != commit}


def _pulled_entry(
    model: ModelId,
    one: _Known | CheckpointError,
    branches: list[str],
    names: tuple[str, ...],
    pin: PinnedModel | None,
) -> ShelfEntry:
    from pythia_bento.checkpoints.resolve import mismatches

    if isinstance(one, CheckpointError):
        raise one
    origin = one.model.origin
    if pin and (problems := mismatches(pin, one.model)):
        raise CheckpointError(f"{names[0]} will not be served: {'; '.join(problems)}")
    return make_entry(
        names=names,
        step=step_of(model, branches),
        commit=origin.commit,
        path=one.model.path,
        files=_hashes(origin.files),
        config=one.config,
        quantization=origin.quantization,
        same_weights=tuple(origin.same_weights),
    )


def _match(patterns: Iterable[Pattern], model: ModelId, revisions: Iterable[str]) -> bool:
    ids = [model.at(revision) for revision in revisions]
    return any(pattern.matches(id) for pattern in patterns for id in ids)


def _by_step(branch: str) -> tuple[bool, int, str]:
    """Steps first: a step says more than another name."""
    step = ModelId(BUNDLED, branch).step
    return step is None, step or 0, branch


def _hashes(files: dict[str, FileHash]) -> dict[str, str]:
    return {name: facts.sha256 for name, facts in files.items()}
