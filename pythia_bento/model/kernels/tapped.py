"""What forward passes with taps have in common, whatever computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pythia_bento.model import sites
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.sites import Place, Site
from pythia_bento.model.taps import Taps

PIECE_BYTES = 8 << 20  # of attention weights that are there at a time

Weigh = Callable[[Tensor, int], Tensor]
"""Rows int64 [R] and a number of keys K to attention weights fp32 [R, heads, K]."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The taps of one pass of one model."""

    taps: Taps
    config: ModelConfig

    def wants(self, site: Site, layer: int) -> bool:
        """See ``Taps``."""
        return self.taps.wants(Place(site, layer))

    def at(self, site: Site, layer: int, rows: Tensor, exponent: int = 0) -> None:
        """Rows of a site, [T, ...]."""
        place = Place(site, layer)
        if self.taps.wants(place):
            self.taps.at(place, rows, exponent)

    def qkv(self, layer: int, qkv: Tensor, exponent: int = 0) -> None:
        """Of rows [heads, 3, head_dim], before anything is rotated."""
        heads = qkv.view(len(qkv), self.config.num_heads, 3, self.config.head_dim)
        for index, site in enumerate((sites.Q, sites.K, sites.V)):
            self.at(site, layer, heads[:, :, index], exponent)

    def z(self, layer: int, attended: Tensor, exponent: int = 0) -> None:
        """Of rows [H]."""
        heads = attended.view(len(attended), self.config.num_heads, self.config.head_dim)
        self.at(sites.Z, layer, heads, exponent)

    def patterns(self, layer: int, batch: ForwardBatch, block_size: int, weigh: Weigh) -> None:
        """Attention weights, a piece after the other: those of all rows can be very many."""
        if not self.wants(sites.PATTERN, layer):
            return
        rows, keys = self.taps.pattern_rows(layer), batch.block_tables.shape[1] * block_size
        step = max(1, PIECE_BYTES // (4 * self.config.num_heads * keys))
        for first in range(0, len(rows), step):
            self.taps.patterns(layer, first, weigh(rows[first : first + step], keys))

    def wants_parts(self, layer: int) -> bool:
        """Whether what attention and MLP add is wanted, each by itself."""
        return self.wants(sites.ATTN_OUT, layer) or self.wants(sites.MLP_OUT, layer)

    def parts(self, layer: int, attn_out: Tensor, mlp_out: Tensor) -> None:
        """Of rows [H]."""
        self.at(sites.ATTN_OUT, layer, attn_out)
        self.at(sites.MLP_OUT, layer, mlp_out)

    def final(self, normalise: Callable[[], Tensor]) -> None:
        """What the head multiplies, where that is wanted."""
        place = Place(sites.NORMALIZED)
        if self.taps.wants(place):
            self.taps.at(place, normalise())
