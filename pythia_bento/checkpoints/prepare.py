"""The 8-bit files of a model, of its own weights or beside those that the store has already."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from pythia_bento.checkpoints.config_file import read_config
from pythia_bento.checkpoints.files import Hashes, check
from pythia_bento.checkpoints.hub import SAFETENSORS
from pythia_bento.checkpoints.reader import INDEX, Reader
from pythia_bento.checkpoints.stored_model import StoredModel
from pythia_bento.checkpoints.twins import take_weights
from pythia_bento.errors import CheckpointError

AS_IT_IS = "int8 by row, as in the repository"
QUANTISED = "int8 by row, quantised as bitsandbytes does it"


def prepare(
    sources: Path, files: Hashes, target: Path, on_progress: Callable[[str, int, int], None]
) -> str:
    """Write the 8-bit files to ``target``; says in words how they came about."""
    # Imported here: these bring torch, which takes seconds, and a name is resolved without.
    from pythia_bento.checkpoints.quantize import CheckpointWeights
    from pythia_bento.checkpoints.save import save_int8

    weights = CheckpointWeights(sources, read_config(sources / "config.json"))
    if not weights.reader.quantized:
        save_int8(
            weights, sources, target, lambda done, total: on_progress("quantising", done, total)
        )
        return QUANTISED
    _copy(sources, files, target)
    return AS_IT_IS


def prepare_beside(sources: Path, files: Hashes, target: Path, twin: StoredModel) -> bool:
    """Write them to ``target`` with the weights of ``twin``, which are of the same origin.

    False, without a ``target``, if those are damaged.
    """
    from pythia_bento.checkpoints.save import copy_beside

    weights = [name for name in twin.origin.files if SAFETENSORS.fullmatch(name)]
    if twin.origin.quantization == AS_IT_IS:
        others = {name: facts for name, facts in files.items() if not SAFETENSORS.fullmatch(name)}
        _copy(sources, others, target)
    else:
        target.mkdir(parents=True)
        copy_beside(sources, target)
        weights += [name for name in twin.origin.files if name == INDEX]
    if not take_weights(twin, weights, target):
        shutil.rmtree(target)
        return False
    Reader(target, read_config(target / "config.json"))  # whether they fit this model's shape
    return True


def _copy(sources: Path, files: Hashes, target: Path) -> None:
    target.mkdir(parents=True)
    for name in files:
        shutil.copyfile(sources / name, target / name)  # maybe out of the library's cache
    if problems := check(target, files):
        raise CheckpointError(f"{target}: {problems[0]}")
