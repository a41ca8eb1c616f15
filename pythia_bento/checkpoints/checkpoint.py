"""From what a setting names to a checkpoint whose files were hashed and can be loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pythia_bento.catalog import BUNDLED, ModelId
from pythia_bento.checkpoints import bundle, files
from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.locations import parse_location, path_hint
from pythia_bento.checkpoints.patterns import ids_of
from pythia_bento.checkpoints.reader import COPIED, INDEX, Reader
from pythia_bento.checkpoints.strict import read_bytes
from pythia_bento.checkpoints.tokenizer_file import check_tokenizer_bytes
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
    """A checkpoint on disk whose tensors have the right shapes, and what its files should be."""

    model_id: str  # "bundled", or the name of a local directory
    revision: str | None  # "step3000"; None for a local directory
    commit: str | None  # 40 hex digits; None for a local directory
    path: Path
    config: ModelConfig
    tokenizer_path: Path
    tokenizer: bytes = field(repr=False)  # what was hashed of that file
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
        """Its weights, to be asked for part by part.

        Of a bundled or a pulled checkpoint all files are read from now on, once, and compared with
        what was recorded before the last part is handed out; see ``ReadOnce``, also for the memory
        that takes. A local directory has nothing to be
        compared with and may hold floats four times as large as what is kept of them: its files are
        mapped as they are asked for.
        """
        # Imported here: they bring torch, which takes seconds, and a look at the files does not.
        from pythia_bento.checkpoints.held_files import ReadOnce
        from pythia_bento.checkpoints.quantize import CheckpointWeights

        if self.commit is None:
            return CheckpointWeights(self.path, self.config)
        return ReadOnce(self.names[0], self.path, self.files, self.config)


def load_checkpoint(model: str, bundled_root: Path = bundle.BUNDLED_ROOT) -> Checkpoint:
    """Open ``bundled``, ``bundled@<revision>``, a model that was pulled, or a local directory.

    A directory is written as a path, ``./name``; see ``locations``.

    The files of a bundled checkpoint are compared with the manifest first, those of a pulled one
    with what was recorded then and with ``pythia.lock`` in the working directory.

    Raises ModelNotFound for a name or revision that does not exist, and CheckpointError for
    anything missing, damaged, or not a Pythia.
    """
    return _load(model, bundled_root, with_weights=True)


def find_checkpoint(model: str, bundled_root: Path = bundle.BUNDLED_ROOT) -> Checkpoint:
    """``load_checkpoint`` for who asks for ``source`` next, which reads and compares the weights.

    So they are not read here, except of a local directory, whose hashes nobody recorded.
    """
    return _load(model, bundled_root, with_weights=False)


def _load(model: str, bundled_root: Path, with_weights: bool) -> Checkpoint:
    location = parse_location(model)
    if isinstance(location, Path):
        return _open(location.name, None, None, location, None)
    try:
        if location.is_bundled:
            opened = _open_bundled(location, bundled_root, with_weights)
        else:
            opened = _open_stored(location, with_weights)
    except NotInStore as error:
        raise NotInStore(error.message + path_hint(model)) from None
    return replace(opened, asked=location)


def _open_bundled(model: ModelId, root: Path, with_weights: bool) -> Checkpoint:
    step = bundle.find_bundled(model.revision, root)
    expected = step.files if with_weights else files.beside_weights(step.files)
    if problems := files.check(step.directory, expected):
        raise CheckpointError(f"{step.directory}/{problems[0]}: it was changed")
    hashes = {name: file.sha256 for name, file in step.files.items()}
    return _open(BUNDLED, step.step, step.commit, step.directory, hashes)


def _open_stored(model: ModelId, with_weights: bool) -> Checkpoint:
    # Imported here: these bring bentoml and the hub's client, which nothing else needs.
    from pythia_bento.checkpoints.lock import Lock
    from pythia_bento.checkpoints.resolve import locate

    stored = locate(model, Lock.read(), with_weights)
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
    tokenizer = read_bytes(path / TOKENIZER)
    check_tokenizer_bytes(tokenizer, path / TOKENIZER, config)
    known = hashes if hashes is not None else _hash_all(path, reader)
    if hashlib.sha256(tokenizer).hexdigest() != known[TOKENIZER]:
        raise CheckpointError(f"{path / TOKENIZER} was changed while it was read")
    return Checkpoint(
        model_id=model_id,
        revision=revision,
        commit=commit,
        path=path,
        config=config,
        tokenizer_path=path / TOKENIZER,
        tokenizer=tokenizer,
        files=known,
        quantization=AS_STORED if reader.quantized else AT_LOAD,
    )


def _hash_all(path: Path, reader: Reader) -> dict[str, str]:
    """Hashes of the files that make up a checkpoint, whatever else lies beside them."""
    names = [CONFIG, *COPIED, *(file.name for file in reader.files)]
    if len(reader.files) > 1:
        names.append(INDEX)
    return {name: files.sha256(path / name) for name in names if (path / name).is_file()}
