"""What the lock, the store and the hub say about a model, side by side."""

from __future__ import annotations

from huggingface_hub import constants

from pythia_bento.catalog import ModelId, parse
from pythia_bento.checkpoints import download, hub, store
from pythia_bento.checkpoints.files import Hashes, differences
from pythia_bento.checkpoints.lock import Lock, PinnedModel
from pythia_bento.checkpoints.stored_model import StoredModel
from pythia_bento.checkpoints.workspace import downloads, exclusive
from pythia_bento.errors import CheckpointError, ModelNotFound, NotInStore


def make_pin(model: ModelId) -> PinnedModel:
    """Pin a model as it is now: the commit from the hub, the hashes from the store if it is there.

    Otherwise hashes come from the hub's metadata; files that it gives no sha256 for, all small,
    are downloaded. Raises ModelNotFound and CheckpointError.
    """
    commit = revision_commit(model)
    if found := store.find(model, commit):
        files, int8 = found.origin.source_files, found.origin.files
    else:
        files, int8 = _source_files(model, commit), {}
    return PinnedModel(
        repository=model.repository, revision=model.revision, commit=commit, files=files, int8=int8
    )


def find(model: ModelId, lock: Lock) -> StoredModel:
    """The stored model that ``model`` names; its files are not looked at.

    A pinned id is its pinned commit; another branch is what it was when it was pulled last. The
    hub is not asked. Raises CheckpointError, and ModelNotFound for the bundled checkpoint.
    """
    pin = lock.get(model)
    found = _find(model, pin)
    if found is None:
        raise NotInStore(not_in_store(model, pin))
    return found


def not_in_store(model: ModelId, pin: PinnedModel | None) -> str:
    """What is said of a model that can be pulled and was not."""
    at = f" at the commit {pin.commit}, which the lock pins," if pin else ""
    return f"{model}{at} is not in the store; `pythia-bento pull {model}` brings it there"


def locate(model: ModelId, lock: Lock, with_weights: bool = True) -> StoredModel:
    """``find``, all files hashed and compared, or all but the weights; raises the same."""
    found = find(model, lock)
    problems = found.check(with_weights)
    if pin := lock.get(model):
        problems += mismatches(pin, found)
    if problems:
        raise CheckpointError(f"{model} will not be served: {'; '.join(problems)}")
    return found


def verify(lock: Lock, ask_hub: bool) -> list[str]:
    """One line for each difference between lock, store and, where asked for, hub.

    Raises CheckpointError when the hub cannot be asked.
    """
    lines = [f"{tag} has no model.yaml; a pull replaces it" for tag in store.unfinished()]
    lines += [line for stored in store.stored_models() for line in stored.check()]
    for id, pin in lock.models.items():
        model = parse(id)
        found = _find(model, pin)
        problems = mismatches(pin, found) if found else ["is not in the store"]
        if ask_hub:
            problems += _hub_differences(model, pin)
        lines += [f"{id} ({pin.commit}): {problem}" for problem in problems]
    return lines


def revision_commit(model: ModelId) -> str:
    """The commit of a revision: itself, what the hub says, or, offline, what it was last."""
    if model.is_commit:
        return model.revision
    if constants.is_offline_mode() and (found := store.find_branch(model)):
        return found.origin.commit
    return hub.resolve(model).commit


def mismatches(pin: PinnedModel, found: StoredModel) -> list[str]:
    """Where a stored model departs from what is pinned; its files are not read."""
    return [
        *differences(pin.files, found.origin.source_files),
        *(f"8-bit {line}" for line in differences(pin.int8, found.origin.files)),
    ]


def _find(model: ModelId, pin: PinnedModel | None) -> StoredModel | None:
    if pin:
        return store.find(model, pin.commit)
    return store.find(model, model.revision) if model.is_commit else store.find_branch(model)


def _hub_differences(model: ModelId, pin: PinnedModel) -> list[str]:
    """A branch that moved, and files whose hashes in the hub's metadata are not those pinned."""
    try:
        now = hub.resolve(model).commit
        snapshot = hub.resolve(model.at(pin.commit))
    except ModelNotFound as error:
        return [error.message]
    lines = [] if now == pin.commit else [f"{model.revision} has moved to {now} on the hub"]
    known = {file.name: file.hash for file in snapshot.files if file.hash}
    pinned = {file: pin.files[file] for file in known if file in pin.files}
    return lines + [f"on the hub {line}" for line in differences(pinned, known)]


def _source_files(model: ModelId, commit: str) -> Hashes:
    directory = downloads(model, commit)
    directory.mkdir(parents=True, exist_ok=True)
    snapshot = hub.resolve(model.at(commit))
    with exclusive(model, commit):
        return {
            file.name: file.hash or download.fetch(snapshot, file, directory)
            for file in snapshot.files
        }
