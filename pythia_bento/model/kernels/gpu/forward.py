"""The forward pass on a GPU: eager passes, captured ones and benchmarks all go through ``Forward``.

The end of a layer and the beginning of the next are one kernel: the pieces of a layer's second
products are added to the residual stream by the norm that follows them. ``decode_step`` has the
same pass as one persistent kernel, which is tested against this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pythia_bento.model.batch import DecodeRows, ForwardBatch
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.launch import Launcher
from pythia_bento.model.kernels.gpu.packing import TritonLayer
from pythia_bento.model.kernels.gpu.tiles import WIDE_FROM
from pythia_bento.model.kernels.gpu.wide import WideWeights
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
        stages: int | None = None,
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

    def __init__(self, launch: Launcher, *, keeps_wide: bool = False) -> None:
        """``keeps_wide``: widened weights stay, of models whose weights are in no slab."""
        self._launch = launch
        self._wide = WideWeights(launch, launch.device, keeps=keeps_wide)

    def __call__(
        self,
        weights: PackedWeights,
        token_ids: Tensor,  # int32 [T]
        a: Activations,
        attend: Attention,
        last_norms: Tensor,  # fp32 [0 or 1, 2, H]
    ) -> None:
        """Compute ``a.x`` from the embedding on; ``a.h`` is ``a.x`` under ``last_norms``."""
        layers, is_own = weights.layers, weights.slab is None
        self._launch.norm(layers[0].norms, a.x, a.h, table=weights.table, token_ids=token_ids)
        for index, layer in enumerate(layers):
            is_last = index + 1 == len(layers)
            norms = last_norms if is_last else layers[index + 1].norms
            self.first(layer, a, is_own=is_own)
            attend(index, layer, a)
            self.second(layer, a, norms, is_own=is_own)

    def first(self, layer: TritonLayer, a: Activations, *, is_own: bool) -> None:
        """The first products of any number of tokens.

        ``is_own`` if no other weights come in the layer's place.
        """
        if len(a.x) < WIDE_FROM:
            self.project_in(layer, a)
            return
        wide, _, is_wide = self._wide.of(layer, may_keep=is_own)
        self._launch.prefill_in(layer, a.h, a.qkv, a.up, wide, is_wide=is_wide)

    def second(self, layer: TritonLayer, a: Activations, norms: Tensor, *, is_own: bool) -> None:
        """Add the second ones to ``a.x``, likewise, and norm it for what follows."""
        if len(a.x) < WIDE_FROM:
            self.project_out(layer, a, norms)
            return
        _, wide, is_wide = self._wide.of(layer, may_keep=is_own)
        self._launch.prefill_out(layer, a.attended, a.up, a.x, wide, is_wide=is_wide)
        if len(norms):
            self._launch.norm(norms, a.x, a.h)

    def project_in(self, layer: TritonLayer, a: Activations) -> None:
        """Both branches' first products of few tokens: ``a.qkv`` and ``a.up`` from ``a.h``."""
        self._launch.in_product(layer, a.h, a.qkv, a.up)

    def project_out(self, layer: TritonLayer, a: Activations, norms: Tensor) -> None:
        """Add both second products to ``a.x``, then norm it for what follows."""
        self._launch.out_partial(layer, a.attended, a.up, a.parts)
        self._launch.norm(norms, a.x, a.h, parts=a.parts, layer=layer)
