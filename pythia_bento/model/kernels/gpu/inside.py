"""A pass with taps on a GPU, with the bits of all others.

It is cut where somebody looks at it or changes it, and computed like any other in between, in
*stretches*, which graphs can hold. Over L layers it has 3 L + 1 points where that may be: 0 is
behind the embedding, and of layer i 3 i + 1 is behind the first products, 3 i + 2 behind attention
and 3 i + 3 behind the second products.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pythia_bento.model import sites
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.kernels.base import PackedWeights, Stretch
from pythia_bento.model.kernels.gpu.forward import Forward, PromptAttention
from pythia_bento.model.kernels.gpu.launch import Launcher
from pythia_bento.model.kernels.gpu.packing import CHUNKS, TritonHead, TritonLayer
from pythia_bento.model.kernels.gpu.tiles import WIDE_FROM
from pythia_bento.model.kernels.gpu.workspace import Activations, TritonKVCache
from pythia_bento.model.kernels.tapped import Shown

START = -1  # before the embedding
POINTS = {  # that show a site, from the one behind the layer before on
    sites.EMBED: (0,),
    sites.RESID_PRE: (0,),
    **dict.fromkeys((sites.Q, sites.K, sites.V, sites.POST), (1,)),
    **dict.fromkeys((sites.PATTERN, sites.Z), (2,)),
    **dict.fromkeys((sites.ATTN_OUT, sites.MLP_OUT), (2, 3)),  # from what is kept ahead of them
    sites.RESID_POST: (3,),
    sites.NORMALIZED: (),
}


def at_once(key: Hashable, launches: Callable[[], None]) -> None:
    """A ``Stretch`` that is no graph."""
    launches()


@dataclass(slots=True)
class TappedPass:
    """One pass, up to ``a.x``. Of ``a`` the first ``count`` rows are of tokens that count."""

    launch: Launcher
    forward: Forward
    weights: PackedWeights
    batch: ForwardBatch
    cache: TritonKVCache
    shown: Shown
    a: Activations
    count: int
    width: int  # blocks of the longest context
    _before: Tensor | None = None  # fp32 [count, H], of a layer whose parts are wanted

    def __call__(self, stretch: Stretch = at_once) -> None:
        """Through all layers, from the embedding on; see ``TappedStretches``."""
        begin = START
        for stop in self._stops():
            stretch((begin, stop), partial(self._run, begin, stop))
            self._show(stop)
            begin = stop

    def _stops(self) -> list[int]:
        """Points at which somebody has to be called, and the last one."""
        layers = len(self.weights.layers)
        places = self.shown.taps.places(layers)
        found = {3 * place.layer + point for place in places for point in POINTS[place.site]}
        return sorted(found | {3 * layers})

    def _run(self, begin: int, end: int) -> None:
        """Launch what lies between two points; nothing is allocated, and nobody is called."""
        for point in range(begin + 1, end + 1):
            self._reach(point, is_first=point == begin + 1, is_last=point == end)

    def _reach(self, point: int, *, is_first: bool, is_last: bool) -> None:
        """One of the points; the norm behind a layer waits for those who change what it norms."""
        layers, a, is_own = self.weights.layers, self.a, self.weights.slab is None
        index, place = divmod(point - 1, 3)
        norms = self.weights.head.norms[:0]
        if not is_last and index + 1 < len(layers):
            norms = layers[index + 1].norms
        if point == 0:
            table, ids = self.weights.table, self.batch.token_ids
            self.launch.norm(norms, a.x, a.h, table=table, token_ids=ids)
            return
        layer = layers[index]
        if place == 0:
            if is_first:
                self.launch.norm(layer.norms, a.x, a.h)
            self.forward.first(layer, a, is_own=is_own)
        elif place == 1:
            PromptAttention(self.launch, self.cache, self.batch)(index, layer, a)
        else:
            self.forward.second(layer, a, norms, is_own=is_own)

    def _show(self, point: int) -> None:
        """Call whoever wants something at a point that the pass has come to."""
        index, place = divmod(point - 1, 3)
        shown, count, x = self.shown, self.count, self.a.x[: self.count]
        if point == 0:
            shown.at(sites.EMBED, 0, x)
            shown.at(sites.RESID_PRE, 0, x)
            return
        layer = self.weights.layers[index]
        if place == 0:
            shown.qkv(index, self.a.qkv[:count], layer.qkv_exponent)
            shown.at(sites.POST, index, self.a.up[:count], layer.up_exponent)
        elif place == 1:
            self._show_patterns(index, layer)
            shown.z(index, self.a.attended[:count], layer.qkv_exponent)
            self._before = x.clone() if shown.wants_parts(index) else None
        else:
            self._show_parts(index, layer, x)
            shown.at(sites.RESID_POST, index, x)
            if index + 1 < len(self.weights.layers):
                shown.at(sites.RESID_PRE, index + 1, x)
            else:
                shown.final(lambda: normalised(self.launch, self.weights.head, x))

    def _show_patterns(self, index: int, layer: TritonLayer) -> None:
        """From the queries that attention rotated, and the keys that it cached."""
        batch = replace(self.batch, block_tables=self.batch.block_tables[:, : self.width])

        def weigh(rows: Tensor, keys: int) -> Tensor:
            out = torch.zeros(len(rows), self.shown.config.num_heads, keys, device=rows.device)
            cached = self.cache.keys[index]
            scale = self.launch.score_scale(layer.qk_scale)
            self.launch.patterns(self.a.qkv, cached, batch, rows, out, scale)
            return out

        self.shown.patterns(index, batch, self.launch.block_size, weigh)

    def _show_parts(self, index: int, layer: TritonLayer, x: Tensor) -> None:
        """The stream is their sum only where one was changed: it has the bits of one kernel."""
        before, self._before = self._before, None
        if before is None:
            return
        parts = self._parts(layer)
        kept = parts.clone()
        self.shown.parts(index, *parts)
        changed = (parts != kept).any(0)
        x.copy_(torch.where(changed, before + parts[0] + parts[1], x))

    def _parts(self, layer: TritonLayer) -> Tensor:
        """What attention and MLP add, fp32 [2, count, H]; within rounding of what was added."""
        x = self.a.x[: self.count]
        found = torch.empty(2, *x.shape, device=x.device)
        found[0], found[1] = layer.dense_bias, layer.out_bias - layer.dense_bias
        for rows, pieces in self._pieces(layer):
            found[0, rows].addcmul_(pieces[0], layer.dense_scale)
            for piece in pieces[1:]:
                found[1, rows].addcmul_(piece, layer.down_scale)
        return found

    def _pieces(self, layer: TritonLayer) -> Iterator[tuple[slice, Tensor]]:
        """Some rows at a time, and the unscaled pieces of their products: [1 + CHUNKS, rows, H]."""
        for first in range(0, self.count, WIDE_FROM - 1):
            rows = slice(first, min(first + WIDE_FROM - 1, self.count))
            attended, up = self.a.attended[rows], self.a.up[rows]
            pieces = torch.empty(1 + CHUNKS, *attended.shape, device=attended.device)
            self.launch.out_partial(layer, attended, up, pieces)
            yield rows, pieces


def normalised(launch: Launcher, head: TritonHead, x: Tensor) -> Tensor:
    """See ``Kernels.normalised``: the head multiplies these numbers in fp16."""
    h = torch.empty(1, *x.shape, dtype=torch.float16, device=x.device)
    launch.norm(head.norms, x.contiguous(), h)
    return h[0].float() * head.scale
