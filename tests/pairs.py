"""A model here and in transformers, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from pythia_bento.checkpoints.checkpoint import load_checkpoint
from tests.later import transformers
from tests.models import dequantized_model, random_checkpoint

VOCAB = 300  # of random ones


class Pair(NamedTuple):
    """The same weights here and in transformers."""

    path: Path
    theirs: transformers.GPTNeoXForCausalLM


def pair_of(shape: tuple[int, int, int] | None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Random ones of a shape (layers, heads, width of a head); None is the bundled model."""
    if shape is None:
        path = load_checkpoint("bundled").path
    else:
        layers, heads, head_dim = shape
        path = tmp_path_factory.mktemp("model")
        random_checkpoint(path, layers=layers, heads=heads, head_dim=head_dim, vocab=VOCAB)
    return Pair(path, dequantized_model(path, load_checkpoint(str(path)).source))
