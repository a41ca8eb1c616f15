"""One pulled model: what ``model.yaml`` says of it, and whether its files are that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from pythia_bento.checkpoints import strict
from pythia_bento.checkpoints.files import (
    Commit,
    Hashes,
    Repository,
    Revision,
    beside_weights,
    check,
)
from pythia_bento.checkpoints.yaml_file import read_yaml
from pythia_bento.errors import CheckpointError

YAML = "model.yaml"  # BentoML's own file in a model


class Origin(strict.Open):
    """The metadata of a pulled model in ``model.yaml``."""

    repository: Repository
    revision: Revision  # what was asked for at the first pull
    commit: Commit
    quantization: str  # how the 8-bit files came about, in words
    source_files: Hashes  # as the hub serves them
    files: Hashes  # as they lie in the store
    versions: dict[str, str]  # of the packages that made the files
    same_weights: list[str] = Field(default_factory=list)  # other branches with some of the weights


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A pulled model; nothing is known about its files until ``check``."""

    tag: str
    path: Path
    origin: Origin

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """Bytes of its files by (device, inode): models share files."""
        paths = (self.path / name for name in self.origin.files)
        stats = [path.stat() for path in paths if path.is_file()]
        return {(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}

    def check(self, with_weights: bool = True) -> list[str]:
        """Hash every file: one line for each that is damaged, missing, or does not belong.

        Without weights those are only there or not.
        """
        expected = self.origin.files
        hashed = expected if with_weights else beside_weights(expected)
        present = {path.name for path in self.path.iterdir()} - {YAML}
        absent = expected.keys() - present - hashed.keys()
        lines = [f"{name} is missing" for name in sorted(absent)]
        lines += [f"{name} is not part of the model" for name in sorted(present - expected.keys())]
        return [f"{self.tag}: {line}" for line in [*check(self.path, hashed), *lines]]


def open_stored(path: Path) -> StoredModel:
    """Read its metadata; raises CheckpointError where ``pull`` did not write it."""
    tag = tag_of(path)
    try:
        raw = read_yaml(path / YAML)
        metadata = raw.get("metadata") if isinstance(raw, dict) else None
        origin = strict.check(Origin, metadata, "metadata")
    except CheckpointError as error:
        raise CheckpointError(
            f"{tag} in BentoML's store was not put there by `pythia-bento pull`, or is damaged; "
            f"`bentoml models delete {tag}` removes it ({error.message})"
        ) from None
    return StoredModel(tag, path, origin)


def tag_of(path: Path) -> str:
    """What BentoML calls the model that lies there."""
    return f"{path.parent.name}:{path.name}"
