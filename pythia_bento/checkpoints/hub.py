"""The model hub, through huggingface_hub: branches, commits and files, from metadata alone."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import HfApi
from pydantic import ValidationError

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints.files import FileHash, RemoteFile, Snapshot
from pythia_bento.checkpoints.hub_errors import NotServable, retrying, translated
from pythia_bento.checkpoints.reader import INDEX, WEIGHTS
from pythia_bento.errors import CheckpointError

REQUIRED = ("config.json", "tokenizer.json")
OPTIONAL = ("generation_config.json", "special_tokens_map.json", "tokenizer_config.json")
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SAFETENSORS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_PICKLES = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")


def resolve(model: ModelId) -> Snapshot:
    """Commit and needed files of a revision, from metadata alone.

    Raises ModelNotFound for an unknown repository or revision, NotServable for one without
    safetensors, and CheckpointError when the hub cannot be asked.
    """
    commit, files = _metadata(model)
    wanted = (_remote_file(files[file]) for file in _needed(model, set(files)))
    return Snapshot(model.at(commit), tuple(wanted))


def weight_hashes(model: ModelId) -> tuple[str, dict[str, str]]:
    """Commit of a revision, and sha256 of each weight file: safetensors, else pickles."""
    commit, files = _metadata(model)
    hashes = {file: facts.lfs.sha256 for file, facts in files.items() if facts.lfs}
    for pattern in (_SAFETENSORS, _PICKLES):
        if weights := {file: hashes[file] for file in hashes if pattern.fullmatch(file)}:
            return commit, weights
    return commit, {}


def branches(model: ModelId) -> dict[str, str]:
    """All branches of a repository: name -> commit."""
    with translated(model):
        refs = retrying(lambda: HfApi().list_repo_refs(model.repository))
    return {branch.name: branch.target_commit for branch in refs.branches}


def _metadata(model: ModelId) -> tuple[str, dict[str, Any]]:
    """Commit, and the hub's description of each file."""
    with translated(model):
        info = retrying(
            lambda: HfApi().model_info(
                model.repository, revision=model.revision, files_metadata=True
            )
        )
    if info.sha is None or not model.at(info.sha).is_commit:
        raise CheckpointError(f"the hub gives no commit for {model}")
    return info.sha, {sibling.rfilename: sibling for sibling in info.siblings or ()}


def _needed(model: ModelId, names: set[str]) -> list[str]:
    """Config, tokenizer and safetensors; never pickles, optimizer states or folders."""
    if WEIGHTS in names:
        weights = [WEIGHTS]
    elif INDEX in names:
        weights = [INDEX, *sorted(file for file in names if _SHARD.fullmatch(file))]
    else:
        raise NotServable(f"{model} has neither {WEIGHTS} nor {INDEX} on the hub")
    if missing := [file for file in REQUIRED if file not in names]:
        raise NotServable(f"{model} has no {missing[0]} on the hub")
    return [*REQUIRED, *(file for file in OPTIONAL if file in names), *weights]


def _remote_file(sibling: Any) -> RemoteFile:
    name, size = sibling.rfilename, sibling.size
    if size is None or not (sibling.lfs or sibling.blob_id):
        raise CheckpointError(f"the hub gives neither size nor hash of {name}")
    if not sibling.lfs:
        return RemoteFile(name, size, None, sibling.blob_id)
    try:
        return RemoteFile(name, size, FileHash(sha256=sibling.lfs.sha256, size=size), None)
    except ValidationError:
        raise CheckpointError(f"the hub gives no sha256 of {name} that is one") from None
