"""The model hub, through huggingface_hub: what a revision holds, and verified copies of its files.

Downloads go through the library's own ``http_get``, which reconnects and resumes. A file is kept
as ``<name>.part`` until its hash is the one that the hub's metadata gives, so that a later process
goes on where this one was stopped; the library's cache forgets unfinished files.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    parse_ratelimit_headers,
)

from pythia_bento import __version__
from pythia_bento.checkpoints.names import ModelName
from pythia_bento.checkpoints.reader import INDEX, WEIGHTS
from pythia_bento.errors import CheckpointError, ModelNotFound

REQUIRED = ("config.json", "tokenizer.json")
OPTIONAL = ("generation_config.json", "special_tokens_map.json", "tokenizer_config.json")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, or a limit on file sizes
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SAFETENSORS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_PICKLES = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_RETRIES = 4
_FIRST_WAIT = 0.5  # seconds, doubled with every retry
_LONGEST_WAIT = 300.0
Report = Callable[[int], None]
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class NotServable(CheckpointError):
    """The repository lacks files that serving needs."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub's metadata describes it."""

    name: str
    size: int
    sha256: str | None  # known for files in LFS
    blob_id: str | None  # git's sha1 of the content, for the others


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one commit that are needed to serve it."""

    repo_id: str
    commit: str
    files: tuple[RemoteFile, ...]


def resolve(name: ModelName) -> Snapshot:
    """Commit and needed files of a revision, from metadata alone.

    Raises ModelNotFound for an unknown repository or revision, NotServable for one without
    safetensors, and CheckpointError when the hub cannot be asked.
    """
    commit, files = _metadata(name)
    wanted = (_remote_file(files[file]) for file in _needed(name, set(files)))
    return Snapshot(name.repo_id, commit, tuple(wanted))


def weight_hashes(name: ModelName) -> tuple[str, dict[str, str]]:
    """Commit of a revision, and sha256 of each weight file: safetensors, else pickles."""
    commit, files = _metadata(name)
    hashes = {file: facts.lfs.sha256 for file, facts in files.items() if facts.lfs}
    for pattern in (_SAFETENSORS, _PICKLES):
        if weights := {file: hashes[file] for file in hashes if pattern.fullmatch(file)}:
            return commit, weights
    return commit, {}


def branches(name: ModelName) -> dict[str, str]:
    """All branches of a repository: name -> commit."""
    with _translated(name):
        refs = _retrying(lambda: HfApi().list_repo_refs(name.repo_id))
    return {branch.name: branch.target_commit for branch in refs.branches}


def fetch(
    snapshot: Snapshot, file: RemoteFile, directory: Path, report: Report | None = None
) -> str:
    """Bring one file into ``directory`` and return its sha256; ``report`` gets the bytes so far.

    A file of the library's cache is linked rather than downloaded. Whatever is there already is
    used if its hash is right. Raises CheckpointError, and leaves no file whose hash is wrong.
    """
    target = directory / file.name
    if target.is_file() and (digest := _matching_digest(target, file)):
        return digest
    target.unlink(missing_ok=True)
    cached = try_to_load_from_cache(snapshot.repo_id, file.name, revision=snapshot.commit)
    if isinstance(cached, str) and (digest := _matching_digest(Path(cached), file)):
        target.symlink_to(Path(cached).resolve())
        return digest
    return _download(snapshot, file, target, report or (lambda done: None))


def _download(snapshot: Snapshot, file: RemoteFile, target: Path, report: Report) -> str:
    """Download with resume; a wrong file that was begun by another process is begun anew once."""
    part = target.with_name(f"{target.name}.part")
    while True:
        was_begun = part.exists()
        if was_begun and part.stat().st_size > file.size:
            part.unlink()
        with _translated(ModelName(snapshot.repo_id, snapshot.commit), file):
            _retrying(lambda: _get(snapshot, file, part, report))
        if digest := _matching_digest(part, file):
            part.rename(target)
            return digest
        actual = _digest(part, "sha256")
        part.unlink()
        if not was_begun:
            raise CheckpointError(
                f"{file.name} of {snapshot.repo_id} at {snapshot.commit} arrived with sha256 "
                f"{actual}, which is not what the hub's metadata says; it was deleted, pull again"
            )
        _log.warning("%s was damaged; downloading it from its beginning", part)


class _Bar:
    """What ``http_get`` needs of a progress bar."""

    def __init__(self, report: Report, initial: int) -> None:
        self._report, self._done = report, initial

    def update(self, count: int) -> None:
        self._done += count
        self._report(self._done)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None: ...


def _get(snapshot: Snapshot, file: RemoteFile, part: Path, report: Report) -> None:
    url = hf_hub_url(snapshot.repo_id, file.name, revision=snapshot.commit)
    headers: dict[str, Any] = build_hf_headers(
        library_name="pythia-bento", library_version=__version__
    )
    headers["accept-encoding"] = "identity"  # ranges count bytes of the file
    with part.open("ab") as sink:
        http_get(
            url,
            sink,
            resume_size=part.stat().st_size,
            headers=headers,
            expected_size=file.size,
            tqdm_class=cast(Any, lambda initial=0, **rest: _Bar(report, initial)),
        )


def _metadata(name: ModelName) -> tuple[str, dict[str, Any]]:
    """Commit, and the hub's description of each file."""
    with _translated(name):
        info = _retrying(
            lambda: HfApi().model_info(name.repo_id, revision=name.revision, files_metadata=True)
        )
    if info.sha is None:
        raise CheckpointError(f"the hub gives no commit for {name.id}")
    return info.sha, {sibling.rfilename: sibling for sibling in info.siblings or ()}


def _needed(name: ModelName, names: set[str]) -> list[str]:
    """Config, tokenizer and safetensors; never pickles, optimizer states or folders."""
    if WEIGHTS in names:
        weights = [WEIGHTS]
    elif INDEX in names:
        weights = [INDEX, *sorted(file for file in names if _SHARD.fullmatch(file))]
    else:
        raise NotServable(f"{name.id} has neither {WEIGHTS} nor {INDEX} on the hub")
    if missing := [file for file in REQUIRED if file not in names]:
        raise NotServable(f"{name.id} has no {missing[0]} on the hub")
    return [*REQUIRED, *(file for file in OPTIONAL if file in names), *weights]


def _remote_file(sibling: Any) -> RemoteFile:
    if sibling.size is None or not (sibling.lfs or sibling.blob_id):
        raise CheckpointError(f"the hub gives neither size nor hash of {sibling.rfilename}")
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    return RemoteFile(sibling.rfilename, sibling.size, sha256, None if sha256 else sibling.blob_id)


def _matching_digest(path: Path, file: RemoteFile) -> str | None:
    """sha256 of ``path`` if it has the size and the hash that the hub gives, else None."""
    if path.stat().st_size != file.size:
        return None
    digest = _digest(path, "sha256")
    if file.sha256 is not None:
        return digest if digest == file.sha256 else None
    blob_id = _digest(path, "sha1", b"blob %d\0" % file.size)  # as git names a blob
    return digest if blob_id == file.blob_id else None


def _digest(path: Path, algorithm: str, prefix: bytes = b"") -> str:
    state = hashlib.new(algorithm, prefix, usedforsecurity=False)
    with path.open("rb") as content:
        while piece := content.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


def _retrying(call: Callable[[], _Result]) -> _Result:
    """Call again after errors that pass, as late as the hub asks."""
    for attempt in range(_RETRIES):
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code not in _TRANSIENT:
                raise
            wait, problem = _wait(error.response.headers, attempt), str(error.response.status_code)
        except httpx2.TransportError as error:
            wait, problem = _FIRST_WAIT * 2**attempt, repr(error)
        _log.warning("the hub failed (%s); trying again in %.1f s", problem, wait)
        time.sleep(wait)
    return call()


def _wait(headers: Any, attempt: int) -> float:
    """Seconds until the next try: what the hub says, else doubling."""
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return min(float(limit.reset_in_seconds), _LONGEST_WAIT)
    asked = str(headers.get("retry-after", ""))
    return min(float(asked), _LONGEST_WAIT) if asked.isdigit() else _FIRST_WAIT * 2**attempt


@contextmanager
def _translated(name: ModelName, file: RemoteFile | None = None) -> Iterator[None]:
    """Turn the library's errors into ours."""
    what = f"{file.name} of {name.id}" if file else name.id
    try:
        yield
    except GatedRepoError:
        raise CheckpointError(
            f"{name.repo_id} is gated: accept its terms on the hub, and log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise ModelNotFound(
            f"the hub has no repository {name.repo_id}, or hides it from this token", param="model"
        ) from None
    except RevisionNotFoundError:
        raise ModelNotFound(
            f"{name.repo_id} has no revision {name.revision!r} on the hub", param="model"
        ) from None
    except OfflineModeIsEnabled:
        raise CheckpointError(
            f"{what} is not at hand, and HF_HUB_OFFLINE forbids asking the hub"
        ) from None
    except HfHubHTTPError as error:
        raise CheckpointError(
            f"the hub answered {error.response.status_code} for {what}; pull again to resume"
        ) from None
    except httpx2.HTTPError as error:
        raise CheckpointError(
            f"{constants.ENDPOINT} cannot be reached for {what} ({error}); pull again to resume"
        ) from None
    except OSError as error:
        full = "the disk is full: " if error.errno in FULL else ""
        raise CheckpointError(f"{full}{what} cannot be downloaded: {error}") from None
