"""The forward pass on a GPU: eager passes, captured ones and benchmarks all go through ``Forward``.

The end of a layer and the beginning of the next are one kernel: the pieces of a layer's second
products are added to the residual stream by the norm that follows them. ``decode_step`` has the
same pass as one persistent kernel, which is tested against this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pythia_bento.model.batch import DecodeRows, ForwardBatch
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.launch import Launcher
from pythia_bento.model.kernels.gpu.packing import TritonLayer
from pythia_bento.model.kernels.gpu.tiles import WIDE_FROM
from pythia_bento.model.kernels.gpu.workspace import Activations, AttentionScratch, TritonKVCache


class Attention(Protocol):
    """Writes the attention of a layer, and its new keys and values."""

    def __call__(self, index: int, layer: TritonLayer, a: Activations) -> None:
        """From ``a.qkv`` to ``a.attended``; may change ``a.qkv``."""
        ...


@dataclass(frozen=True, slots=True)
class PromptAttention:
    """Of any mix of chunks."""

    launch: Launcher
    cache: TritonKVCache
    batch: ForwardBatch

    def __call__(self, index: int, layer: TritonLayer, a: Activations) -> None:
        """See ``Attention``."""
        keys, values = self.cache.keys[index], self.cache.values[index]
        self.launch.prefill_attention(a.qkv, keys, values, self.batch, a.attended, layer.qk_scale)


@dataclass(frozen=True, slots=True)
class DecodeAttention:
    """Of one new token a sequence."""

    launch: Launcher
    cache: TritonKVCache
    rows: DecodeRows
    scratch: AttentionScratch

    def __call__(
        self,
        index: int,
        layer: TritonLayer,
        a: Activations,
        *,
        splits: int | None = None,
        stages: int = 2,
        warps: int = 4,
    ) -> None:
        """See ``Attention``; the options change the speed, never the bits."""
        self.launch.decode_attention(
            a.qkv,
            self.cache.keys[index],
            self.cache.values[index],
            self.rows.context_lens,
            self.rows.block_tables,
            self.scratch,
            a.attended,
            layer.qk_scale,
            splits=splits,
            stages=stages,
            warps=warps,
        )


class Forward:
    """The loop over a model's layers."""

    def __init__(self, launch: Launcher) -> None:
        self._launch = launch
        self._wide: Tensor | None = None

    def __call__(
        self,
        weights: PackedWeights,
        token_ids: Tensor,  # int32 [T]
        a: Activations,
        attend: Attention,
        last_norms: Tensor,  # fp32 [0 or 1, 2, H]
    ) -> None:
        """Compute ``a.x`` from the embedding on; ``a.h`` is ``a.x`` under ``last_norms``."""
        layers = weights.layers
        self._launch.norm(layers[0].norms, a.x, a.h, table=weights.table, token_ids=token_ids)
        for index, layer in enumerate(layers):
            is_last = index + 1 == len(layers)
            self.project_in(layer, a)
            attend(index, layer, a)
            self.project_out(layer, a, last_norms if is_last else layers[index + 1].norms)

    def project_in(self, layer: TritonLayer, a: Activations) -> None:
        """Both branches' first products: ``a.qkv`` and ``a.up`` from ``a.h``."""
        if len(a.x) >= WIDE_FROM:
            self._launch.prefill_in(layer, a.h, a.qkv, a.up, self._wide_weights())
        else:
            self._launch.in_product(layer, a.h, a.qkv, a.up)

    def project_out(self, layer: TritonLayer, a: Activations, norms: Tensor) -> None:
        """Add both second products to ``a.x``, then norm it for what follows."""
        launch = self._launch
        if len(a.x) < WIDE_FROM:
            launch.out_partial(layer, a.attended, a.up, a.parts)
            launch.norm(norms, a.x, a.h, parts=a.parts, layer=layer)
            return
        launch.prefill_out(layer, a.attended, a.up, a.x, self._wide_weights())
        if len(norms):
            launch.norm(norms, a.x, a.h)

    def _wide_weights(self) -> Tensor:
        """fp16 room for one layer's linears, kept."""
        if self._wide is None:
            config = self._launch.config
            hidden, inner = config.hidden_size, config.intermediate_size
            size = hidden * (4 * hidden + 2 * inner)
            self._wide = torch.empty(size, dtype=torch.float16, device=self._launch.device)
        return self._wide
