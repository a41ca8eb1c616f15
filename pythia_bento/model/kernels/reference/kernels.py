"""The reference backend: the forward pass as one would write it down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pythia_bento.model.batch import ForwardBatch, Logprobs
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.by_layer import LayerKernels
from pythia_bento.model.kernels.reference.attention import BLOCK, Attention, ReferenceKVCache
from pythia_bento.model.kernels.reference.linear import Linear, WeightOnly
from pythia_bento.model.sampling import choose
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.weights import HeadWeights, LayerWeights, Norm

_HEAD_ROWS = 8192
"""Rows of the head that are converted to fp32 at once."""


class ReferenceLayer(NamedTuple):
    """One block on the device."""

    input_norm: Norm
    post_attention_norm: Norm
    qkv: Linear
    dense: Linear
    up: Linear
    down: Linear


class ReferenceKernels(LayerKernels):
    """``Kernels`` in plain torch on any device, fp32 around the int8 products.

    Not batch-invariant: torch picks its matrix product by the number of rows.
    """

    name = "reference"
    matmul = "w8a16"
    block_size = BLOCK
    batch_invariant = False
    dtype = torch.float32
    """Of activations, norms and the KV cache."""
    linear: ClassVar[type[Linear]] = WeightOnly
    attention: ClassVar[type[Attention]] = Attention

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self._attention = self.attention(config, device)

    def load_embedding(self, weight: Tensor) -> Tensor:
        """Copy to the device."""
        return weight.to(self.device, copy=True)

    def load_layer(self, layer: LayerWeights) -> ReferenceLayer:
        """Copy one block to the device."""
        linears = (layer.qkv, layer.dense, layer.up, layer.down)
        return ReferenceLayer(
            self._load_norm(layer.input_norm),
            self._load_norm(layer.post_attention_norm),
            *(self.linear(linear, self.device) for linear in linears),
        )

    def load_head(self, head: HeadWeights) -> HeadWeights:
        """Copy to the device."""
        return HeadWeights(self._load_norm(head.norm), head.weight.to(self.device, copy=True))

    def kv_bytes_per_block(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.config.num_layers * self.config.hidden_size * BLOCK * self.dtype.itemsize

    def allocate_cache(self, num_blocks: int) -> ReferenceKVCache:
        """See ``Kernels.allocate_cache``."""
        return ReferenceKVCache(self.config, num_blocks, self.device, self.dtype)

    def embed(self, table: Tensor, token_ids: Tensor) -> Tensor:
        """See ``LayerKernels.embed``."""
        return table[token_ids].to(self.dtype)

    def project_in(self, layer: ReferenceLayer, x: Tensor) -> tuple[Tensor, Tensor]:
        """See ``LayerKernels.project_in``."""
        qkv = layer.qkv(self._normalise(layer.input_norm, x))
        up = layer.up(self._normalise(layer.post_attention_norm, x))
        return qkv, F.gelu(up)

    def attend(
        self, index: int, qkv: Tensor, cache: ReferenceKVCache, batch: ForwardBatch
    ) -> Tensor:
        """See ``LayerKernels.attend``."""
        return self._attention(index, qkv, cache, batch)

    def patterns(
        self,
        index: int,
        qkv: Tensor,
        cache: ReferenceKVCache,
        batch: ForwardBatch,
        rows: Tensor,
        keys: int,
    ) -> Tensor:
        """See ``LayerKernels.patterns``."""
        return self._attention.patterns(index, qkv, cache, batch, rows, keys)

    def project_out(self, layer: ReferenceLayer, x: Tensor, attended: Tensor, up: Tensor) -> Tensor:
        """See ``LayerKernels.project_out``."""
        return self.join(x, *self.project_out_parts(layer, attended, up))

    def project_out_parts(
        self, layer: ReferenceLayer, attended: Tensor, up: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See ``LayerKernels.project_out_parts``."""
        return layer.dense(attended), layer.down(up)

    def normalised(self, head: HeadWeights, x: Tensor) -> Tensor:
        """See ``Kernels.normalised``."""
        return self._normalise(head.norm, x).float()

    def logits(self, head: HeadWeights, x: Tensor) -> Tensor:
        """See ``Kernels.logits``."""
        x = self._normalise(head.norm, x)
        parts = torch.split(head.weight, _HEAD_ROWS)
        return torch.cat([F.linear(x, rows.float()) for rows in parts], 1)

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow], num_tokens: int) -> Tensor:
        """See ``Kernels.sample``."""
        chosen = [choose(row, how, num_tokens) for row, how in zip(logits, rows, strict=True)]
        return torch.tensor(chosen, dtype=torch.int32, device=logits.device)

    def logprobs(self, logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.logprobs``; a row with a non-finite logit is all NaN, its ids -1."""
        vocab = logits.shape[1]
        values = logits.log_softmax(1)
        inside = (chosen >= 0) & (chosen < vocab)
        sound = logits.isfinite().all(1) & inside
        values = values.masked_fill(~sound[:, None], torch.nan)
        ids = logits.sort(dim=1, descending=True, stable=True).indices
        column = chosen.long().clamp(0, vocab - 1)[:, None]
        ranks = (ids == column).int().argmax(1) + 1
        ids = ids[:, :num_top]
        return Logprobs(
            values.gather(1, column)[:, 0],
            ranks.masked_fill(~sound, 0).int(),
            ids.masked_fill(~sound[:, None], -1).int(),
            values.gather(1, ids),
        )

    def _load_norm(self, norm: Norm) -> Norm:
        return Norm(
            norm.weight.to(self.device, self.dtype, copy=True),
            norm.bias.to(self.device, self.dtype, copy=True),
        )

    def _normalise(self, norm: Norm, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, self.config.norm_eps)
