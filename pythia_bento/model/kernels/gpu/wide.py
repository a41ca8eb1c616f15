"""int8 weights as fp16, which products of many tokens multiply: kept, or made anew for each pass.

Kept ones take two bytes a weight beside the one that decoding reads. So they are kept where that is
a small share of the device, and not where checkpoints take turns, each of which would need its own.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from pythia_bento.model.config import ModelConfig

if TYPE_CHECKING:
    from pythia_bento.model.kernels.gpu.launch_prefill import WideLauncher
    from pythia_bento.model.kernels.gpu.packing import TritonLayer

KEPT_SHARE = 16  # of the device's memory, kept weights take at most one part in so many


def layer_size(config: ModelConfig) -> int:
    """Weights of a layer's linears."""
    return config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size)


def kept_bytes(config: ModelConfig, device_bytes: int) -> int:
    """What all layers take on a device of that size; 0 where they are not kept."""
    wanted = 2 * layer_size(config) * config.num_layers
    return wanted if wanted <= device_bytes // KEPT_SHARE else 0


class WideWeights:
    """Of the layers of one model on one device."""

    def __init__(self, launch: WideLauncher, device: torch.device, *, keeps: bool) -> None:
        self._launch, self._device, self._keeps = launch, device, keeps
        self._size = layer_size(launch.config)
        self._first = self._size - launch.config.hidden_size * (
            launch.config.hidden_size + launch.config.intermediate_size
        )
        # By the int8 weights: gone when these are.
        self._kept: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()
        self._scratch: Tensor | None = None

    def of(self, layer: TritonLayer, *, may_keep: bool) -> tuple[Tensor, Tensor, bool]:
        """Those of the first products, those of the second, and whether they are there already.

        Where they are not, both are the same room for either.
        """
        if not (self._keeps and may_keep):
            if self._scratch is None:
                self._scratch = self._room()
            return self._scratch, self._scratch, False
        wide = self._kept.get(layer.w_in)
        if wide is None:
            wide = self._kept[layer.w_in] = self._room()
            self._launch.widen_in(layer, wide)
            self._launch.widen_out(layer, wide[self._first :])
        return wide[: self._first], wide[self._first :], True

    def _room(self) -> Tensor:
        return torch.empty(self._size, dtype=torch.float16, device=self._device)
