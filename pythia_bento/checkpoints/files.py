"""Checkpoint files by what is in them: hashes, and whether a file has the one it should have."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pythia_bento.catalog import ModelId
from pythia_bento.errors import CheckpointError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class Strict(BaseModel):
    """Neither unknown fields nor later changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PinnedFile(Strict):
    """Content of one file. The size may be unknown, the hash may not."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)] | None = None


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

    model: ModelId  # at a commit
    files: tuple[RemoteFile, ...]

    @property
    def commit(self) -> str:
        """40 hex digits."""
        return self.model.revision


def verify(directory: Path, files: dict[str, tuple[str, int]]) -> None:
    """Raise CheckpointError unless every file has its size and sha256."""
    for name, (expected, size) in files.items():
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        if (actual_size := path.stat().st_size) != size:
            raise CheckpointError(f"{path} is {actual_size} bytes long, not {size}")
        if (actual := sha256(path)) != expected:
            raise CheckpointError(f"{path} has sha256 {actual}, not {expected}: it was changed")


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def differences(pinned: dict[str, PinnedFile], actual: dict[str, PinnedFile]) -> list[str]:
    """One line for each pinned file that is absent or another; other files are not looked at."""
    lines = []
    for name, pin in pinned.items():
        found = actual.get(name)
        if found is None:
            lines.append(f"{name} is missing")
        elif found.sha256 != pin.sha256:
            lines.append(f"{name} has sha256 {found.sha256}, not {pin.sha256}")
        elif None not in (pin.size, found.size) and pin.size != found.size:
            lines.append(f"{name} is {found.size} bytes long, not {pin.size}")
    return lines


def describe(path: Path) -> PinnedFile:
    """Hash and size of a file."""
    return PinnedFile(sha256=sha256(path), size=path.stat().st_size)
