"""What it takes to pull some steps of a model, from one pass over the hub's metadata."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from pythia_bento import catalog
from pythia_bento.catalog import MODELS, ModelId
from pythia_bento.checkpoints import hub, store
from pythia_bento.checkpoints.branches import Report, ask_for_all, related, suspects
from pythia_bento.checkpoints.files import RemoteFile, Snapshot
from pythia_bento.checkpoints.hub import Listing
from pythia_bento.checkpoints.lock import Lock
from pythia_bento.checkpoints.pull import Source
from pythia_bento.checkpoints.steps import steps_of
from pythia_bento.checkpoints.stored_model import StoredModel
from pythia_bento.checkpoints.twins import Twins, is_weights, weights_of
from pythia_bento.checkpoints.workspace import downloads
from pythia_bento.errors import ModelNotFound, PythiaError


@dataclass(frozen=True, slots=True)
class Step:
    """One step that can be pulled, and what that takes."""

    model: ModelId
    source: Source
    weights: object  # equal for equal weights
    stored: StoredModel | None  # it is in the store; its files were not looked at
    twin: str  # the revision whose weights it has, in the store or before it; they come but once
    size: int  # bytes of the files that it needs from the hub
    there: int  # bytes of those that were downloaded before
    keep: int  # bytes that it adds to the store, about


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one model, in the order of training, and those that there are not."""

    model: ModelId
    steps: list[Step]
    problems: dict[str, PythiaError]  # by id
    twins: Twins

    @property
    def num_weights(self) -> int:
        """How many different sets of weights these steps are."""
        return len({step.weights for step in self.steps})

    @property
    def download(self) -> int:
        """Bytes that are still to come."""
        return sum(step.size - step.there for step in self.steps)

    @property
    def keep(self) -> int:
        """Bytes that the store grows by, about."""
        return sum(step.keep for step in self.steps)

    @property
    def kept(self) -> int:
        """Bytes in the store already, a file of several steps counted once."""
        return store.nbytes(step.stored for step in self.steps if step.stored)

    def shortage(self, jobs: int) -> str:
        """What does not fit on the disk, in one sentence; empty where all does, or who knows.

        Beside what is kept there are the originals of those that are on their way.
        """
        if self.model.name not in MODELS:
            return ""  # how large a stranger's model is in 8 bits shows when it is read
        under_way = sum(sorted(step.size for step in self.steps)[-jobs - 1 :])
        needs: dict[Path, int] = {store.home(): self.keep}
        originals = Path(constants.HF_HOME)
        if _device(originals) == _device(store.home()):
            needs[store.home()] += under_way
        else:
            needs[originals] = under_way
        for place, need in needs.items():
            free = shutil.disk_usage(_existing(place)).free
            if need > free:
                return (
                    f"{place} has room for {free / 1e6:,.1f} MB, and {len(self.steps)} steps of "
                    f"{self.model.name} take about {need / 1e6:,.1f} MB there"
                )
        return ""


def make_plan(
    model: ModelId, expression: str, lock: Lock, on_progress: Report | None = None
) -> Plan:
    """Ask the hub about the steps of ``model`` that ``expression`` means; see ``steps``.

    A step that is not there, or that cannot be served, is one of the plan's problems. Raises
    InvalidRequest, ModelNotFound, and CheckpointError where the hub cannot be asked at all.
    """
    wanted, refs = _wanted(model, expression)
    pins = {one.revision: pin.commit for one in wanted if (pin := lock.get(one))}
    commits = refs | pins
    problems = {str(one): _missing(one) for one in wanted if one.revision not in commits}
    chosen = {one.revision: commits[one.revision] for one in wanted if str(one) not in problems}
    listings = _listings(model, chosen, refs, problems, on_progress)
    twins = Twins(model)
    return Plan(model, _steps(model, chosen, listings, twins, problems), problems, twins)


def _wanted(model: ModelId, expression: str) -> tuple[list[ModelId], dict[str, str]]:
    """The steps asked for, and the commits of all branches that there are."""
    refs: dict[str, str] = {}

    def there() -> list[int]:
        refs.update(hub.branches(model))
        return [step for branch in refs if (step := model.at(branch).step) is not None]

    steps = steps_of(expression, model, there)
    return [model.at(f"step{step}") for step in steps], refs or hub.branches(model)


def _listings(
    model: ModelId,
    chosen: Mapping[str, str],
    refs: Mapping[str, str],
    problems: dict[str, PythiaError],
    on_progress: Report | None,
) -> dict[str, Listing]:
    """What the hub tells of those ``chosen``, and of what else may hold the same weights.

    Where it fails for one that is chosen is a problem of that one.
    """
    beside = {other for branch in chosen for other in suspects(model.at(branch))} & refs.keys()
    commits = {**{branch: refs[branch] for branch in sorted(beside)}, **chosen}
    found: dict[str, Listing] = {}
    with closing(ask_for_all(model, commits, on_progress)) as asked:
        for branch, future in asked:
            try:
                found[branch] = future.result()
            except PythiaError as error:
                if branch not in chosen:
                    raise
                problems[str(model.at(branch))] = error
    return found


def _steps(
    model: ModelId,
    commits: Mapping[str, str],
    listings: Mapping[str, Listing],
    twins: Twins,
    problems: dict[str, PythiaError],
) -> list[Step]:
    weights = {branch: listing.weights for branch, listing in listings.items()}
    steps: list[Step] = []
    firsts: dict[object, str] = {}
    for branch, commit in commits.items():
        if branch not in listings:
            continue
        one = model.at(branch)
        try:
            snapshot = listings[branch].snapshot()
            stored = store.find(one, commit)
        except PythiaError as error:
            problems[str(one)] = error
            continue
        told = related(one, commit, weights).told
        steps.append(_step(one, snapshot, told, stored, twins, firsts))
    return steps


def _step(
    model: ModelId,
    snapshot: Snapshot,
    told: list[str],
    stored: StoredModel | None,
    twins: Twins,
    firsts: dict[object, str],
) -> Step:
    key: object = weights_of(snapshot) or snapshot.commit
    before = twins.of(snapshot)
    twin = before.origin.revision if before else firsts.get(key, "")
    firsts.setdefault(key, model.revision)
    needed = [file for file in snapshot.files if not (twin and is_weights(file))]
    if stored:
        twin, needed = "", []
    source = Source(snapshot.commit, lambda: snapshot, lambda: told)
    size = sum(file.size for file in needed)
    return Step(
        model,
        source,
        key,
        stored,
        twin,
        size,
        _there(model, snapshot, needed),
        _kept(model, needed),
    )


def _missing(model: ModelId) -> PythiaError:
    return ModelNotFound(
        f"{model.repository} has no revision {model.revision!r} on the hub", param="model"
    )


def _there(model: ModelId, snapshot: Snapshot, files: list[RemoteFile]) -> int:
    """Bytes of ``files`` that an earlier pull has brought."""
    directory = downloads(model, snapshot.commit)
    there = 0
    for file in files:
        for path in (directory / file.name, directory / f"{file.name}.part"):
            if path.is_file():
                there += min(path.stat().st_size, file.size)
                break
    return there


def _kept(model: ModelId, files: list[RemoteFile]) -> int:
    """Bytes of ``files`` in 8 bits: exact to some kB for the suite, at most that for others."""
    weights = sum(file.size for file in files if is_weights(file))
    others = sum(file.size for file in files if not is_weights(file))
    if model.name in MODELS:
        weights = min(weights, catalog.int8_bytes(catalog.config(model.name)))
    return weights + others


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    return next(place for place in (path, *path.parents) if place.is_dir())


def _device(path: Path) -> int:
    return os.stat(_existing(path)).st_dev
