"""Random models in the shapes of the suite, made on the device that measures them."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from bench.common import shapes
from pythia_bento import catalog
from pythia_bento.checkpoints.save import save_int8
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights, Norm, Part, parts

SUITE = tuple(f"pythia-{size}" for size in catalog.SIZES)  # a model of each size


class RandomModel:
    """A ``WeightSource``: normal weights of standard deviation 0.02, as at initialisation.

    ``outliers`` columns of every LayerNorm's output are five times as large as the others, as some
    are in trained models: at that size LLM.int8 takes them out of the product for some inputs.
    """

    def __init__(
        self, config: ModelConfig, device: torch.device, seed: int = 0, outliers: int = 0
    ) -> None:
        self.config = config
        self._device = device
        self._seed = seed
        self._outliers = outliers

    def order(self) -> list[Part]:
        """See ``WeightSource``."""
        return parts(self.config)

    def embedding(self) -> Tensor:
        """See ``WeightSource``."""
        return 0.02 * _normal(self._random(-1), self.config.vocab_size, self.config.hidden_size)

    def layer(self, index: int) -> LayerWeights:
        """See ``WeightSource``."""
        hidden, inner = self.config.hidden_size, self.config.intermediate_size
        random = self._random(index)
        return LayerWeights(
            input_norm=self._norm(random),
            post_attention_norm=self._norm(random),
            qkv=_linear(random, 3 * hidden, hidden),
            dense=_linear(random, hidden, hidden),
            up=_linear(random, inner, hidden),
            down=_linear(random, hidden, inner),
        )

    def head(self) -> HeadWeights:
        """See ``WeightSource``."""
        random = self._random(-2)
        weight = 0.02 * _normal(random, self.config.vocab_size, self.config.hidden_size)
        return HeadWeights(_norm(random, self.config.hidden_size), weight)

    def _norm(self, random: torch.Generator) -> Norm:
        norm = _norm(random, self.config.hidden_size)
        norm.weight[: self._outliers] *= 5
        return norm

    def _random(self, index: int) -> torch.Generator:
        return torch.Generator(self._device).manual_seed(1000 * self._seed + index + 10)


def random_layer(config: ModelConfig, index: int, device: torch.device) -> LayerWeights:
    """One block of a ``RandomModel``."""
    return RandomModel(config, device).layer(index)


def write_int8(
    name: str, directory: Path, device: torch.device, outliers: int = 0, seed: int = 0
) -> None:
    """Write a random checkpoint in bitsandbytes' 8-bit format; keep one that exists."""
    if directory.exists():
        return
    config = catalog.config(name)
    origin = Path(tempfile.mkdtemp(prefix="pythia-bento-"))
    try:
        (origin / "config.json").write_text(json.dumps(shapes.raw_config(config)))
        shapes.tokenizer().save(str(origin / "tokenizer.json"))
        with torch.inference_mode():
            save_int8(RandomModel(config, device, seed, outliers), origin, directory)
    finally:
        shutil.rmtree(origin)


def _normal(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=random, device=random.device).half()


def _norm(random: torch.Generator, size: int) -> Norm:
    return Norm(1 + 0.1 * _normal(random, size), 0.1 * _normal(random, size))


def _linear(random: torch.Generator, out: int, into: int) -> Int8Linear:
    """Quantised by row to the largest magnitude, as bitsandbytes does."""
    real = 0.02 * torch.randn(out, into, generator=random, device=random.device)
    scb = real.abs().amax(1)
    weight = (real * (127 / scb)[:, None]).round().to(torch.int8)
    return Int8Linear(weight, scb, 0.02 * _normal(random, out))
