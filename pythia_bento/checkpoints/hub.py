"""The model hub: branches, commits and files, from metadata alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from huggingface_hub import constants
from pydantic import Field, StringConstraints

from pythia_bento.catalog import ModelId
from pythia_bento.checkpoints import hub_client
from pythia_bento.checkpoints.files import Commit, FileHash, RemoteFile, Sha256, Size, Snapshot
from pythia_bento.checkpoints.hub_errors import NotServable, retrying, translated
from pythia_bento.checkpoints.reader import INDEX, WEIGHTS
from pythia_bento.checkpoints.strict import MAX_JSON_BYTES, Open, check, parse_json
from pythia_bento.errors import CheckpointError

REQUIRED = ("config.json", "tokenizer.json")
MAX_WEIGHT_FILES = 256  # of a revision; the suite has at most a handful
OPTIONAL = ("generation_config.json", "special_tokens_map.json", "tokenizer_config.json")
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
SAFETENSORS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_PICKLES = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")

# Of files that are not needed a repository may have many, with any name.
_AnyName = Annotated[str, StringConstraints(max_length=1024)]
_Blob = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class _Lfs(Open):
    sha256: Sha256
    size: Size | None = None


class _Sibling(Open):
    rfilename: _AnyName
    size: Size | None = None
    blobId: _Blob | None = None  # git's sha1; of the pointer for a file in LFS
    lfs: _Lfs | None = None


class _Info(Open):
    """What the hub tells about a revision."""

    sha: Commit
    siblings: Annotated[list[_Sibling], Field(max_length=20_000)]


class _Ref(Open):
    name: _AnyName
    targetCommit: Commit


class _Refs(Open):
    branches: Annotated[list[_Ref], Field(max_length=20_000)]


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one revision that may be needed, or tell its weights, as the hub has them."""

    asked: ModelId
    commit: str
    files: dict[str, _Sibling]

    def snapshot(self) -> Snapshot:
        """The files that serving needs; raises NotServable, and CheckpointError for nonsense."""
        needed = _needed(self.asked, set(self.files))
        wanted = (_remote_file(self.asked, self.files[file]) for file in needed)
        return Snapshot(self.asked.at(self.commit), tuple(wanted))

    @property
    def weights(self) -> dict[str, str]:
        """sha256 of each weight file: safetensors, else pickles."""
        hashes = {file: facts.lfs.sha256 for file, facts in self.files.items() if facts.lfs}
        for pattern in (SAFETENSORS, _PICKLES):
            if weights := {file: hashes[file] for file in hashes if pattern.fullmatch(file)}:
                return weights
        return {}


def resolve(model: ModelId) -> Snapshot:
    """Commit and needed files of a revision, from metadata alone.

    Raises as ``listing`` and ``Listing.snapshot`` do.
    """
    return listing(model).snapshot()


def branches(model: ModelId) -> dict[str, str]:
    """All branches of a repository: name -> commit."""
    refs = check(_Refs, _ask(model, "refs"), f"the hub's list of branches of {model.repository}")
    return {branch.name: branch.targetCommit for branch in refs.branches}


def listing(model: ModelId) -> Listing:
    """Commit, and the hub's description of each file.

    Raises ModelNotFound for an unknown repository or revision, and CheckpointError when the hub
    cannot be asked or answers nonsense.
    """
    raw = _ask(model, f"revision/{quote(model.revision, safe='')}?blobs=true")
    info = check(_Info, raw, f"the hub's answer about {model}")
    if model.is_commit and info.sha != model.revision:
        raise CheckpointError(f"asked for {model}, the hub answers about the commit {info.sha}")
    files = {file.rfilename: file for file in info.siblings if _matters(file.rfilename)}
    if (count := sum(map(_is_weights, files))) > MAX_WEIGHT_FILES:
        raise CheckpointError(
            f"{model} has {count} weight files on the hub; the limit is {MAX_WEIGHT_FILES}"
        )
    return Listing(model, info.sha, files)


def _matters(name: str) -> bool:
    return name in (*REQUIRED, *OPTIONAL, INDEX) or _is_weights(name)


def _is_weights(name: str) -> bool:
    return bool(SAFETENSORS.fullmatch(name) or _PICKLES.fullmatch(name))


def _ask(model: ModelId, question: str) -> object:
    """The JSON that the hub's API answers about a repository."""
    url = f"{constants.ENDPOINT}/api/models/{model.repository}/{question}"
    with translated(model):
        data = retrying(lambda: hub_client.read(url, str(model)))
    return parse_json(data, f"the hub's answer about {model}")


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


def _remote_file(model: ModelId, sibling: _Sibling) -> RemoteFile:
    """A file whose content is known by hash and size, and that is no larger than its kind is."""
    name, size, lfs = sibling.rfilename, sibling.size, sibling.lfs
    if size is None or not (lfs or sibling.blobId):
        raise CheckpointError(f"the hub gives neither size nor hash of {name} of {model}")
    if lfs and lfs.size not in (None, size):
        raise CheckpointError(f"the hub gives two sizes of {name} of {model}")
    if name.endswith(".json") and size > MAX_JSON_BYTES:
        raise CheckpointError(
            f"{name} of {model} has {size} bytes on the hub, more than {MAX_JSON_BYTES}"
        )
    if lfs:
        return RemoteFile(name, size, FileHash(sha256=lfs.sha256, size=size), None)
    return RemoteFile(name, size, None, sibling.blobId)
