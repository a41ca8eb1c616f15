"""A pass with taps on a GPU: eager, never captured, with the bits of all others.

Norms are kernels of their own here, so that the residual stream can change before each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pythia_bento.model import sites
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.kernels.gpu.forward import Forward, PromptAttention
from pythia_bento.model.kernels.gpu.launch import Launcher
from pythia_bento.model.kernels.gpu.packing import CHUNKS, TritonLayer
from pythia_bento.model.kernels.gpu.tiles import WIDE_FROM
from pythia_bento.model.kernels.gpu.workspace import Activations, TritonKVCache
from pythia_bento.model.kernels.tapped import Shown


@dataclass(frozen=True, slots=True)
class TappedPass:
    """One pass, up to ``a.x``."""

    launch: Launcher
    forward: Forward
    weights: PackedWeights
    batch: ForwardBatch
    cache: TritonKVCache
    shown: Shown

    def __call__(self, a: Activations) -> None:
        """Through all layers, from the embedding on."""
        shown, table, ids = self.shown, self.weights.table, self.batch.token_ids
        nothing = self.weights.head.norms[:0]
        self.launch.norm(nothing, a.x, a.h, table=table, token_ids=ids)
        shown.at(sites.EMBED, 0, a.x)
        for index, layer in enumerate(self.weights.layers):
            shown.at(sites.RESID_PRE, index, a.x)
            self._layer(index, layer, a)
            shown.at(sites.RESID_POST, index, a.x)

    def _layer(self, index: int, layer: TritonLayer, a: Activations) -> None:
        shown, is_own = self.shown, self.weights.slab is None
        self.launch.norm(layer.norms, a.x, a.h)
        self.forward.first(layer, a, is_own=is_own)
        shown.qkv(index, a.qkv, layer.qkv_exponent)
        shown.at(sites.POST, index, a.up, layer.up_exponent)
        PromptAttention(self.launch, self.cache, self.batch)(index, layer, a)
        self._show_patterns(index, layer, a)
        shown.z(index, a.attended, layer.qkv_exponent)
        before = a.x.clone() if shown.wants_parts(index) else None
        self.forward.second(layer, a, is_own=is_own)
        if before is not None:
            self._show_parts(index, layer, a, before)

    def _show_patterns(self, index: int, layer: TritonLayer, a: Activations) -> None:
        """From the queries that attention rotated, and the keys that it cached."""

        def weigh(rows: Tensor, keys: int) -> Tensor:
            out = torch.zeros(len(rows), self.shown.config.num_heads, keys, device=rows.device)
            cached = self.cache.keys[index]
            scale = self.launch.score_scale(layer.qk_scale)
            self.launch.patterns(a.qkv, cached, self.batch, rows, out, scale)
            return out

        self.shown.patterns(index, self.batch, self.launch.block_size, weigh)

    def _show_parts(self, index: int, layer: TritonLayer, a: Activations, before: Tensor) -> None:
        """The stream is their sum only where one was changed: it has the bits of one kernel."""
        parts = self._parts(layer, a)
        kept = parts.clone()
        self.shown.parts(index, *parts)
        changed = (parts != kept).any(0)
        a.x.copy_(torch.where(changed, before + parts[0] + parts[1], a.x))

    def _parts(self, layer: TritonLayer, a: Activations) -> Tensor:
        """What attention and MLP add, fp32 [2, T, H]; within rounding of what was added."""
        found = torch.empty(2, *a.x.shape, device=a.x.device)
        found[0], found[1] = layer.dense_bias, layer.out_bias - layer.dense_bias
        for rows, pieces in self._pieces(layer, a):
            found[0, rows].addcmul_(pieces[0], layer.dense_scale)
            for piece in pieces[1:]:
                found[1, rows].addcmul_(piece, layer.down_scale)
        return found

    def _pieces(self, layer: TritonLayer, a: Activations) -> Iterator[tuple[slice, Tensor]]:
        """Some rows at a time, and the unscaled pieces of their products: [1 + CHUNKS, rows, H]."""
        for first in range(0, len(a.x), WIDE_FROM - 1):
            rows = slice(first, first + WIDE_FROM - 1)
            attended, up = a.attended[rows], a.up[rows]
            pieces = torch.empty(1 + CHUNKS, *attended.shape, device=a.x.device)
            self.launch.out_partial(layer, attended, up, pieces)
            yield rows, pieces
