"""What the lock, the store and the hub say about a model, side by side."""

from __future__ import annotations

from huggingface_hub import constants

from pythia_bento.checkpoints import download, hub, store
from pythia_bento.checkpoints.files import PinnedFile, differences
from pythia_bento.checkpoints.lock import Lock, PinnedModel
from pythia_bento.checkpoints.names import ModelName
from pythia_bento.checkpoints.store import StoredModel
from pythia_bento.checkpoints.workspace import downloads, exclusive
from pythia_bento.errors import CheckpointError, ModelNotFound


def make_pin(name: ModelName) -> PinnedModel:
    """Pin a model as it is now: the commit from the hub, the hashes from the store if it is there.

    Otherwise hashes come from the hub's metadata; files that it gives no sha256 for, all small,
    are downloaded. Raises ModelNotFound and CheckpointError.
    """
    commit = revision_commit(name)
    if found := store.find(name, commit):
        files, int8 = found.provenance.source_files, found.provenance.files
    else:
        files, int8 = _source_files(name, commit), {}
    return PinnedModel(
        repository=name.repo_id, revision=name.revision, commit=commit, files=files, int8=int8
    )


def find(model: str, lock: Lock) -> StoredModel:
    """The stored model that ``model`` names; its files are not looked at.

    A pinned id is its pinned commit; another branch is what it was when it was pulled last. The
    hub is not asked. Raises ModelNotFound for an id that is none, and CheckpointError.
    """
    name = ModelName.parse(model)
    pin = lock.get(name)
    found = _find(name, pin)
    if found is None:
        at = f" at the commit {pin.commit}, which the lock pins," if pin else ""
        raise CheckpointError(
            f"{name.id}{at} is not in the store; `pythia-bento pull {name.id}` brings it there"
        )
    return found


def locate(model: str, lock: Lock) -> StoredModel:
    """``find``, all files hashed and compared; raises the same."""
    found = find(model, lock)
    problems = found.check()
    name = ModelName.parse(model)
    if pin := lock.get(name):
        problems += mismatches(pin, found)
    if problems:
        raise CheckpointError(f"{name.id} will not be served: {'; '.join(problems)}")
    return found


def verify(lock: Lock, ask_hub: bool) -> list[str]:
    """One line for each difference between lock, store and, where asked for, hub.

    Raises CheckpointError when the hub cannot be asked.
    """
    lines = [f"{tag} has no model.yaml; a pull replaces it" for tag in store.unfinished()]
    lines += [line for stored in store.stored_models() for line in stored.check()]
    for id, pin in lock.models.items():
        name = ModelName.parse(id)
        found = _find(name, pin)
        problems = mismatches(pin, found) if found else ["is not in the store"]
        if ask_hub:
            problems += _hub_differences(name, pin)
        lines += [f"{id} ({pin.commit}): {problem}" for problem in problems]
    return lines


def _find(name: ModelName, pin: PinnedModel | None) -> StoredModel | None:
    if pin:
        return store.find(name, pin.commit)
    return store.find(name, name.revision) if name.is_commit else store.find_branch(name)


def _hub_differences(name: ModelName, pin: PinnedModel) -> list[str]:
    """A branch that moved, and files whose hashes in the hub's metadata are not those pinned."""
    try:
        now = hub.resolve(name).commit
        snapshot = hub.resolve(name.at(pin.commit))
    except ModelNotFound as error:
        return [error.message]
    lines = [] if now == pin.commit else [f"{name.revision} has moved to {now} on the hub"]
    known = {
        file.name: PinnedFile(sha256=file.sha256, size=file.size)
        for file in snapshot.files
        if file.sha256
    }
    pinned = {file: pin.files[file] for file in known if file in pin.files}
    return lines + [f"on the hub {line}" for line in differences(pinned, known)]


def _source_files(name: ModelName, commit: str) -> dict[str, PinnedFile]:
    directory = downloads(name, commit)
    directory.mkdir(parents=True, exist_ok=True)
    snapshot = hub.resolve(name.at(commit))
    with exclusive(name, commit):
        return {
            file.name: PinnedFile(
                sha256=file.sha256 or download.fetch(snapshot, file, directory), size=file.size
            )
            for file in snapshot.files
        }


def revision_commit(name: ModelName) -> str:
    """The commit of a revision: itself, what the hub says, or, offline, what it was last."""
    if name.is_commit:
        return name.revision
    if constants.is_offline_mode() and (found := store.find_branch(name)):
        return found.provenance.commit
    return hub.resolve(name).commit


def mismatches(pin: PinnedModel, found: StoredModel) -> list[str]:
    """Where a stored model departs from what is pinned; its files are not read."""
    return [
        *differences(pin.files, found.provenance.source_files),
        *(f"8-bit {line}" for line in differences(pin.int8, found.provenance.files)),
    ]
