"""The forward pass of backends that compute it in three calls a layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from pythia_bento.model import sites
from pythia_bento.model.batch import ForwardBatch, Logprobs
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.base import Capturable, PackedWeights
from pythia_bento.model.kernels.tapped import Shown
from pythia_bento.model.taps import Taps


class LayerKernels(ABC):
    """``Kernels.forward`` in pieces.

    H hidden, U intermediate: ``qkv`` is [T, 3 H], each row [heads, 3, head_dim], ``up`` [T, U] and
    ``attended`` [T, H].
    """

    config: ModelConfig
    block_size: int
    has_own_threads = False
    scored_at_once = 64
    kept_bytes = 0

    def capturable(self) -> Capturable | None:
        """See ``Kernels.capturable``."""
        return None

    def contiguous(self, weights: PackedWeights, tag: bytes) -> PackedWeights:
        """See ``Kernels.contiguous``: nothing is bound to where they are."""
        return weights

    def forward(
        self, weights: PackedWeights, batch: ForwardBatch, cache: Any, taps: Taps | None = None
    ) -> Tensor:
        """See ``Kernels.forward``."""
        if taps is not None:
            return self._tapped(weights, batch, cache, Shown(taps, self.config))
        x = self.embed(weights.table, batch.token_ids)
        for index, layer in enumerate(weights.layers):
            qkv, up = self.project_in(layer, x)
            attended = self.attend(index, qkv, cache, batch)
            x = self.project_out(layer, x, attended, up)
        return x

    def _tapped(
        self, weights: PackedWeights, batch: ForwardBatch, cache: Any, shown: Shown
    ) -> Tensor:
        """The same, shown on its way."""
        x = self.embed(weights.table, batch.token_ids)
        shown.at(sites.EMBED, 0, x)
        for index, layer in enumerate(weights.layers):
            shown.at(sites.RESID_PRE, index, x)
            qkv, up = self.project_in(layer, x)
            shown.qkv(index, qkv)
            shown.at(sites.POST, index, up)
            attended = self.attend(index, qkv, cache, batch)
            self._show_patterns(index, qkv, cache, batch, shown)
            shown.z(index, attended)
            x = self._tapped_out(index, layer, x, attended, up, shown)
            shown.at(sites.RESID_POST, index, x)
        shown.final(lambda: self.normalised(weights.head, x))
        return x

    def _show_patterns(
        self, index: int, qkv: Tensor, cache: Any, batch: ForwardBatch, shown: Shown
    ) -> None:
        def weigh(rows: Tensor, keys: int) -> Tensor:
            return self.patterns(index, qkv, cache, batch, rows, keys)

        shown.patterns(index, batch, self.block_size, weigh)

    def _tapped_out(
        self, index: int, layer: Any, x: Tensor, attended: Tensor, up: Tensor, shown: Shown
    ) -> Tensor:
        """In two parts, which have the same bits, only where one of them is wanted."""
        if not shown.wants_parts(index):
            return self.project_out(layer, x, attended, up)
        parts = self.project_out_parts(layer, attended, up)
        shown.parts(index, *parts)
        return self.join(x, *parts)

    @abstractmethod
    def embed(self, table: Any, token_ids: Tensor) -> Tensor:
        """int32 [T] -> [T, H]."""

    @abstractmethod
    def project_in(self, layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """[T, H] -> qkv(ln1(x)) and gelu(up(ln2(x)))."""

    @abstractmethod
    def attend(self, index: int, qkv: Tensor, cache: Any, batch: ForwardBatch) -> Tensor:
        """Rotate q and k, write k and v of layer ``index`` to their slots, attend causally."""

    @abstractmethod
    def patterns(
        self, index: int, qkv: Tensor, cache: Any, batch: ForwardBatch, rows: Tensor, keys: int
    ) -> Tensor:
        """The weights with which ``rows`` (int64 [R]) attend: fp32 [R, heads, keys].

        After ``attend``, with ``qkv`` as that left it. ``keys`` is what block tables have room for.
        """

    @abstractmethod
    def project_out(self, layer: Any, x: Tensor, attended: Tensor, up: Tensor) -> Tensor:
        """x + dense(attended) + down(up); may write into ``x``. Returns [T, H]."""

    @abstractmethod
    def project_out_parts(self, layer: Any, attended: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """dense(attended) and down(up), whose ``join`` has the bits of ``project_out``."""

    def join(self, x: Tensor, attn_out: Tensor, mlp_out: Tensor) -> Tensor:
        """The residual stream after a layer."""
        return x + attn_out + mlp_out

    @abstractmethod
    def normalised(self, head: Any, x: Tensor) -> Tensor:
        """See ``Kernels.normalised``."""

    @abstractmethod
    def logits(self, head: Any, x: Tensor) -> Tensor:
        """See ``Kernels.logits``."""

    @abstractmethod
    def logprobs(self, logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.logprobs``."""

    def scores(self, head: Any, x: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.scores``."""
        return self.logprobs(self.logits(head, x), chosen, num_top)
