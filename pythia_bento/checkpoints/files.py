"""Checkpoint files by what is in them: hashes, and the comparison of hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from pythia_bento.catalog import ModelId, is_repository
from pythia_bento.checkpoints.strict import Strict
from pythia_bento.errors import shown


def _repository(text: str) -> str:
    if not is_repository(text):
        raise ValueError(f"must be <owner>/<name>, not {shown(text)}")
    return text


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
# No separator, no NUL, and neither "." nor "..": it is a file of the directory it is looked for in.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$")]
Repository = Annotated[str, AfterValidator(_repository)]
Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$")]
# A 12b in fp32 is 48 GB; the suite's largest file has 10.
Size = Annotated[int, Field(ge=0, le=64 << 30)]


class FileHash(Strict):
    """Content of one file. The size may be unknown, the hash may not."""

    sha256: Sha256
    size: Size | None = None  # bytes


Hashes = dict[FileName, FileHash]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub's metadata describes it."""

    name: str
    size: int
    hash: FileHash | None  # known for files in LFS
    blob_id: str | None  # git's sha1 of the content, for the others

    def verified(self, path: Path) -> FileHash | None:
        """What is in ``path`` if that is what the hub tells of, else None."""
        if path.stat().st_size != self.size:
            return None
        found = hash_file(path)
        if self.hash is not None:
            return found if found == self.hash else None
        blob_id = _digest(path, "sha1", b"blob %d\0" % self.size)  # as git names a blob
        return found if blob_id == self.blob_id else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one commit that are needed to serve it."""

    model: ModelId  # at the commit
    files: tuple[RemoteFile, ...]

    @property
    def commit(self) -> str:
        """40 hex digits."""
        return self.model.revision


def weights_sha256(files: Mapping[str, str]) -> str:
    """Over the names and hashes of a checkpoint's files: what answers, whatever it is called."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def is_weights(name: str) -> bool:
    """Whether a file holds tensors; the index of several does not."""
    return name.endswith(".safetensors")


def beside_weights(files: Hashes) -> Hashes:
    """The small files among them."""
    return {name: facts for name, facts in files.items() if not is_weights(name)}


def check(directory: Path, expected: Mapping[str, FileHash]) -> list[str]:
    """``differences`` to what lies in ``directory``, whose other files are not looked at."""
    return differences(expected, hash_files(directory, expected))


def differences(expected: Mapping[str, FileHash], found: Mapping[str, FileHash]) -> list[str]:
    """One line for each expected file that is absent or another; it begins with the name."""
    lines = []
    for name, wanted in expected.items():
        actual = found.get(name)
        if actual is None:
            lines.append(f"{name} is missing")
        elif None not in (wanted.size, actual.size) and wanted.size != actual.size:
            lines.append(f"{name} is {actual.size} bytes long, not {wanted.size}")
        elif actual.sha256 != wanted.sha256:
            lines.append(f"{name} has sha256 {actual.sha256}, not {wanted.sha256}")
    return lines


def hash_files(directory: Path, names: Iterable[str]) -> Hashes:
    """Those of the files that are there; a name with a path in it is none."""
    paths = {name: directory / name for name in names if Path(name).name == name}
    return {name: hash_file(path) for name, path in paths.items() if path.is_file()}


def hash_file(path: Path) -> FileHash:
    """Hash and size of a file."""
    return FileHash(sha256=sha256(path), size=path.stat().st_size)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    return _digest(path, "sha256")


def _digest(path: Path, algorithm: str, prefix: bytes = b"") -> str:
    state = hashlib.new(algorithm, prefix, usedforsecurity=False)
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            state.update(buffer[:count])
    return state.hexdigest()


def stamp(path: str | Path) -> tuple[int, int, int]:
    """Another one when a file or a directory was changed or replaced; all 0 where there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (facts.st_mtime_ns, facts.st_size, facts.st_ino)
