"""Small weights as the GPU's kernels have them, on the CPU."""

from __future__ import annotations

import torch

from bench.common.random_model import RandomModel
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.packing import pack_head, pack_layer

CPU = torch.device("cpu")
CONFIG = ModelConfig(2, 64, 4, 256, 300, 64, 4)


def packed(seed: int, config: ModelConfig = CONFIG) -> PackedWeights:
    """Random ones."""
    source = RandomModel(config, CPU, seed)
    layers = [pack_layer(source.layer(index), CPU) for index in range(config.num_layers)]
    return PackedWeights(source.embedding(), layers, pack_head(source.head(), CPU))
