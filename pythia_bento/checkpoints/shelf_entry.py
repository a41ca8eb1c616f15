"""One set of weights that a server can answer with, before anything of it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pythia_bento.catalog import LAST_STEP, MAIN, MODELS, ModelId, int8_bytes
from pythia_bento.checkpoints.checkpoint import Checkpoint
from pythia_bento.checkpoints.files import weights_sha256
from pythia_bento.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class ShelfEntry:
    """What is known of a checkpoint from its metadata; the hashes were recorded, not computed."""

    name: str  # the canonical id: "bundled@step256"
    names: tuple[str, ...]  # all ids that mean it, the canonical one first
    step: int | None
    commit: str | None  # 40 hex digits; None for a local directory
    path: Path
    files: dict[str, str]  # name -> sha256
    weights: str  # over the names and hashes of ``files``: equal ones answer alike
    config: ModelConfig
    nbytes: int  # in the 8-bit format
    quantization: str  # how the 8-bit weights came about, in words
    same_weights: tuple[str, ...]  # other branches that hold these weights
    created: int  # Unix time

    def named(self, names: tuple[str, ...]) -> ShelfEntry:
        """The same under these names."""
        return replace(self, name=names[0], names=names)


def make_entry(
    names: tuple[str, ...],
    step: int | None,
    commit: str | None,
    path: Path,
    files: dict[str, str],
    config: ModelConfig,
    quantization: str,
    same_weights: tuple[str, ...],
) -> ShelfEntry:
    """With what follows from the rest; raises OSError where there is no tokenizer."""
    return ShelfEntry(
        name=names[0],
        names=names,
        step=step,
        commit=commit,
        path=path,
        files=files,
        weights=weights_sha256(files),
        config=config,
        nbytes=int8_bytes(config),
        quantization=quantization,
        same_weights=same_weights,
        created=int((path / "tokenizer.json").stat().st_mtime),
    )


def entry_of(checkpoint: Checkpoint) -> ShelfEntry:
    """A checkpoint that was found by its name, or a local directory, as an entry."""
    asked, revision = checkpoint.asked, checkpoint.revision
    step = None if asked is None or revision is None else step_of(asked, [revision])
    return make_entry(
        names=tuple(checkpoint.names),
        step=step,
        commit=checkpoint.commit,
        path=checkpoint.path,
        files=checkpoint.files,
        config=checkpoint.config,
        quantization=checkpoint.quantization,
        same_weights=checkpoint.same_weights,
    )


def step_of(model: ModelId, revisions: list[str]) -> int | None:
    """The training step of one and the same weights, by the first revision that names one.

    The suite's main is said to be the last step; what other people's is they alone know.
    """
    steps = [step for revision in revisions if (step := model.at(revision).step) is not None]
    if not steps and MAIN in revisions and model.name in MODELS:
        return LAST_STEP
    return steps[0] if steps else None
