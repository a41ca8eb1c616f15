"""Rotary position embedding: the angles are one function, so that all backends turn alike."""

from __future__ import annotations

import torch
from torch import Tensor

from pythia_bento.model.config import ModelConfig


def rotary_angles(config: ModelConfig) -> Tensor:
    """position * base^(-2i / rotary_dims) in radians: fp32 [positions, rotary_dims / 2].

    On the CPU. Dimension i of a head turns together with i + rotary_dims / 2.
    """
    even = torch.arange(0, config.rotary_dims, 2, dtype=torch.int64).float()
    frequencies = 1.0 / config.rotary_base ** (even / config.rotary_dims)
    return torch.arange(config.max_positions).float()[:, None] * frequencies


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``rotary_angles``."""
    angles = rotary_angles(config)
    return angles.cos().contiguous(), angles.sin().contiguous()
