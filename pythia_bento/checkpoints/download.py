"""Verified copies of the hub's files.

A file is kept as ``<name>.part`` until its hash is the one that the hub's metadata gives, so that a
later process goes on where this one was stopped; the library's cache forgets unfinished files.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub import hf_hub_url, try_to_load_from_cache

from pythia_bento.checkpoints.files import FileHash, RemoteFile, Snapshot, sha256
from pythia_bento.checkpoints.hub_client import Answer, Pace, ask
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
        with translated(snapshot.model, file), _part(part) as sink:
            was_begun = sink.seek(0, os.SEEK_END) > 0
            if sink.tell() > file.size:
                sink.truncate(0)
            _complete(snapshot, file, sink, report)
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


@contextmanager
def _part(path: Path) -> Iterator[BinaryIO]:
    """The unfinished file, opened to go on with.

    It is opened by its name alone in its directory, held open, and neither may be a link: HF_HOME
    may be shared, and nobody else's link shall lead what a hub sends to another file of ours.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path.name, flags, 0o644, dir_fd=directory), "r+b") as file:
            yield file
    finally:
        os.close(directory)


def _complete(snapshot: Snapshot, file: RemoteFile, sink: BinaryIO, report: Report) -> None:
    """Append until all is there. A cut connection that brought something is no failed try."""
    url = hf_hub_url(snapshot.model.repository, file.name, revision=snapshot.model.revision)
    what = f"{file.name} of {snapshot.model}"
    pace = Pace(what)
    while sink.seek(0, os.SEEK_END) < file.size:
        retrying(lambda: _more(url, what, file.size, sink, pace, report))


def _more(url: str, what: str, size: int, sink: BinaryIO, pace: Pace, report: Report) -> None:
    """One answer, from where ``sink`` ends; a cut raises only if nothing had come."""
    begun = sink.seek(0, os.SEEK_END)
    headers = {"range": f"bytes={begun}-"} if begun else {}
    try:
        with ask(url, headers, what, pace) as answer:
            _go_to_its_start(answer, begun, what, sink)
            _copy(answer, what, size, sink, report)
    except httpx2.TransportError:
        if sink.seek(0, os.SEEK_END) == begun:
            raise


def _go_to_its_start(answer: Answer, begun: int, what: str, sink: BinaryIO) -> None:
    """A hub may leave a range out and send the whole; another range is refused."""
    if answer.status == httpx2.codes.OK:
        sink.truncate(0)
        sink.seek(0)
    elif not re.match(rf"bytes {begun}-", answer.headers.get("content-range", "")):
        raise CheckpointError(f"the hub sent another part of {what} than it was asked for")


def _copy(answer: Answer, what: str, size: int, sink: BinaryIO, report: Report) -> None:
    """Write what comes, and stop at the first byte too many."""
    done = sink.tell()
    for piece in answer.body():
        done += len(piece)
        if done > size:
            raise CheckpointError(f"the hub sent more than the {size} bytes of {what} it announced")
        sink.write(piece)
        report(done)
    if done < size:
        raise CheckpointError(
            f"{what} should be of size {size}, but what the hub sent ends at {done}; pull again"
        )
