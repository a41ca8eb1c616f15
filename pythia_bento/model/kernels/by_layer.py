"""The forward pass of backends that compute it in three calls a layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.kernels.base import Capturable, PackedWeights


class LayerKernels(ABC):
    """``Kernels.forward`` in pieces. ``qkv``, ``up`` and ``attended`` may have any layout."""

    has_own_threads = False
    kept_bytes = 0

    def capturable(self) -> Capturable | None:
        """See ``Kernels.capturable``."""
        return None

    def contiguous(self, weights: PackedWeights, tag: bytes) -> PackedWeights:
        """See ``Kernels.contiguous``: nothing is bound to where they are."""
        return weights

    def forward(self, weights: PackedWeights, batch: ForwardBatch, cache: Any) -> Tensor:
        """See ``Kernels.forward``."""
        x = self.embed(weights.table, batch.token_ids)
        for index, layer in enumerate(weights.layers):
            qkv, up = self.project_in(layer, x)
            attended = self.attend(index, qkv, cache, batch)
            x = self.project_out(layer, x, attended, up)
        return x

    @abstractmethod
    def embed(self, table: Any, token_ids: Tensor) -> Tensor:
        """int32 [T] -> [T, H]."""

    @abstractmethod
    def project_in(self, layer: Any, x: Tensor) -> tuple[Any, Any]:
        """[T, H] -> qkv(ln1(x)) and gelu(up(ln2(x)))."""

    @abstractmethod
    def attend(self, index: int, qkv: Any, cache: Any, batch: ForwardBatch) -> Any:
        """Rotate q and k, write k and v of layer ``index`` to their slots, attend causally."""

    @abstractmethod
    def project_out(self, layer: Any, x: Tensor, attended: Any, up: Any) -> Tensor:
        """x + dense(attended) + down(up); may write into ``x``. Returns [T, H]."""
