"""From what a setting names to a checkpoint whose files were hashed and can be loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pythia_bento.catalog import BUNDLED, ModelId
from pythia_bento.checkpoints import bundle, files
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.locations import parse_location, path_hint
from pythia_bento.checkpoints.patterns import ids_of
from pythia_bento.checkpoints.reader import COPIED, INDEX, Reader
from pythia_bento.checkpoints.tokenizer_file import check_tokenizer
from pythia_bento.errors import CheckpointError, NotInStore
from pythia_bento.model.config import ModelConfig

if TYPE_CHECKING:
    from pythia_bento.model.weights import WeightSource

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
AS_STORED = "int8 by row, as stored"
AT_LOAD = "int8 by row, quantised at load as bitsandbytes does it"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk whose files were hashed and whose tensors have the right shapes."""

    model_id: str  # "bundled", or the name of a local directory
    revision: str | None  # "step3000"; None for a local directory
    commit: str | None  # 40 hex digits; None for a local directory
    path: Path
    config: ModelConfig
    tokenizer_path: Path
    files: dict[str, str]  # name -> sha256
    quantization: str  # how the 8-bit weights came about, in words
    same_weights: tuple[str, ...] = ()  # other branches of the model that hold these weights
    asked: ModelId | None = None  # None for a local directory

    @property
    def names(self) -> list[str]:
        """All ids that mean this checkpoint, the canonical one first."""
        asked = self.asked
        if asked is None:
            return [self.model_id]
        revisions = (self.revision, self.commit, asked.revision)
        return list(ids_of(asked, revisions, is_main=True))

    @property
    def source(self) -> WeightSource:
        """Its weights, read part by part when they are asked for."""
        # Imported here: it brings torch, which takes seconds, and a look at the files does not.
        from pythia_bento.checkpoints.quantize import CheckpointWeights

        return CheckpointWeights(self.path, self.config)


def load_checkpoint(model: str, bundled_root: Path = bundle.BUNDLED_ROOT) -> Checkpoint:
    """Open ``bundled``, ``bundled@<revision>``, a model that was pulled, or a local directory.

    A directory is written as a path, ``./name``; see ``locations``.

    The files of a bundled checkpoint are compared with the manifest first, those of a pulled one
    with what was recorded then and with ``pythia.lock`` in the working directory.

    Raises ModelNotFound for a name or revision that does not exist, and CheckpointError for
    anything missing, damaged, or not a Pythia.
    """
    location = parse_location(model)
    if isinstance(location, Path):
        return _open(location.name, None, None, location, None)
    try:
        opened = (
            _open_bundled(location, bundled_root) if location.is_bundled else _open_stored(location)
        )
    except NotInStore as error:
        raise NotInStore(error.message + path_hint(model)) from None
    return replace(opened, asked=location)


def _open_bundled(model: ModelId, root: Path) -> Checkpoint:
    step = bundle.find_bundled(model.revision, root)
    if problems := files.check(step.directory, step.files):
        raise CheckpointError(f"{step.directory}/{problems[0]}: it was changed")
    hashes = {name: file.sha256 for name, file in step.files.items()}
    return _open(BUNDLED, step.step, step.commit, step.directory, hashes)


def _open_stored(model: ModelId) -> Checkpoint:
    # Imported here: these bring bentoml and the hub's client, which nothing else needs.
    from pythia_bento.checkpoints.lock import Lock
    from pythia_bento.checkpoints.resolve import locate

    stored = locate(model, Lock.read())
    origin = stored.origin
    hashes = {file: facts.sha256 for file, facts in origin.files.items()}
    opened = _open(model.name, model.revision, origin.commit, stored.path, hashes)
    return replace(
        opened, quantization=origin.quantization, same_weights=tuple(origin.same_weights)
    )


def _open(
    model_id: str,
    revision: str | None,
    commit: str | None,
    path: Path,
    hashes: dict[str, str] | None,
) -> Checkpoint:
    config = read_config(path / CONFIG)
    reader = Reader(path, config)
    check_tokenizer(path / TOKENIZER, config)
    return Checkpoint(
        model_id=model_id,
        revision=revision,
        commit=commit,
        path=path,
        config=config,
        tokenizer_path=path / TOKENIZER,
        files=hashes if hashes is not None else _hash_all(path, reader),
        quantization=AS_STORED if reader.quantized else AT_LOAD,
    )


def _hash_all(path: Path, reader: Reader) -> dict[str, str]:
    """Hashes of the files that make up a checkpoint, whatever else lies beside them."""
    names = [CONFIG, *COPIED, *(file.name for file in reader.files)]
    if len(reader.files) > 1:
        names.append(INDEX)
    return {name: files.sha256(path / name) for name in names if (path / name).is_file()}
