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
_MAX_ROUNDS = 5  # answers from the beginning, of a hub that takes no notice of ranges
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
    transfer = _Transfer(url, f"{file.name} of {snapshot.model}", file.size, sink, report)
    while sink.seek(0, os.SEEK_END) < file.size:
        retrying(transfer.go_on, transfer.pace.sleep)


class _Transfer:
    """One file on its way, over as many answers as it takes."""

    def __init__(self, url: str, what: str, size: int, sink: BinaryIO, report: Report) -> None:
        self.pace = Pace(what)
        self._url, self._what, self._size = url, what, size
        self._sink, self._report = sink, report
        self._rounds = 0

    def go_on(self) -> None:
        """One answer, from where the file ends; a cut raises only if nothing had come."""
        begun = self._sink.seek(0, os.SEEK_END)
        headers = {"range": f"bytes={begun}-"} if begun else {}
        try:
            with ask(self._url, headers, self._what, self.pace) as answer:
                self._go_to_start(answer, begun)
                self._copy(answer)
        except httpx2.TransportError:
            if self._sink.seek(0, os.SEEK_END) == begun:
                raise

    def _go_to_start(self, answer: Answer, begun: int) -> None:
        """A hub may leave a range out and send the whole; another range is refused."""
        if answer.status == httpx2.codes.OK:
            self._rounds += 1
            if self._rounds > _MAX_ROUNDS:
                raise CheckpointError(f"the hub begins {self._what} anew again and again")
            self._sink.truncate(0)
            self._sink.seek(0)
        elif not re.match(rf"bytes {begun}-", answer.headers.get("content-range", "")):
            raise CheckpointError(f"the hub sent another part of {self._what} than was asked for")

    def _copy(self, answer: Answer) -> None:
        """Write what comes, and stop at the first byte too many."""
        done = self._sink.tell()
        for piece in answer.body():
            done += len(piece)
            if done > self._size:
                raise CheckpointError(
                    f"the hub sent more than the {self._size} bytes of {self._what} it announced"
                )
            self._sink.write(piece)
            self._report(done)
        if done < self._size:
            raise CheckpointError(
                f"{self._what} should be of size {self._size}, but what the hub sent ends at "
                f"{done}; pull again"
            )
