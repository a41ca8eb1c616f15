"""Verified copies of the hub's files.

Downloads go through the library's own ``http_get``, which reconnects and resumes. A file is kept
as ``<name>.part`` until its hash is the one that the hub's metadata gives, so that a later process
goes on where this one was stopped; the library's cache forgets unfinished files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from pythia_bento import __version__
from pythia_bento.checkpoints.files import FileHash, RemoteFile, Snapshot, sha256
from pythia_bento.checkpoints.hub_errors import retrying, translated
from pythia_bento.errors import CheckpointError

Report = Callable[[int], None]
_log = logging.getLogger(__name__)


def fetch(
    snapshot: Snapshot, file: RemoteFile, directory: Path, report: Report | None = None
) -> FileHash:
    """Bring one file into ``directory`` and hash it; ``report`` gets the bytes so far.

    A file of the library's cache is linked rather than downloaded. Whatever is there already is
    used if its hash is right. Raises CheckpointError, and leaves no file whose hash is wrong.
    """
    target = directory / file.name
    if target.is_file() and (found := file.verified(target)):
        return found
    target.unlink(missing_ok=True)
    cached = try_to_load_from_cache(
        snapshot.model.repository, file.name, revision=snapshot.model.revision
    )
    if isinstance(cached, str) and (found := file.verified(Path(cached))):
        target.symlink_to(Path(cached).resolve())
        return found
    return _download(snapshot, file, target, report or (lambda done: None))


def _download(snapshot: Snapshot, file: RemoteFile, target: Path, report: Report) -> FileHash:
    """Download with resume; a wrong file that was begun by another process is begun anew once."""
    part = target.with_name(f"{target.name}.part")
    while True:
        was_begun = part.exists()
        if was_begun and part.stat().st_size > file.size:
            part.unlink()
        with translated(snapshot.model, file):
            retrying(lambda: _get(snapshot, file, part, report))
        if found := file.verified(part):
            part.rename(target)
            return found
        actual = sha256(part)
        part.unlink()
        if not was_begun:
            raise CheckpointError(
                f"{file.name} of {snapshot.model} arrived with sha256 {actual}, which is not "
                "what the hub's metadata says; it was deleted, pull again"
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
    url = hf_hub_url(snapshot.model.repository, file.name, revision=snapshot.model.revision)
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
