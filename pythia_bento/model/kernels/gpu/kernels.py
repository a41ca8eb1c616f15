"""The CUDA backend: int8 weights times fp16 activations, fp32 sums and residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pythia_bento.model.batch import ForwardBatch, Logprobs
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu import filters
from pythia_bento.model.kernels.gpu.launch import Launcher
from pythia_bento.model.kernels.gpu.packing import (
    CHUNKS,
    TritonHead,
    TritonLayer,
    pack_head,
    pack_layer,
)
from pythia_bento.model.kernels.gpu.tiles import WIDE_FROM, kv_tile
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.weights import HeadWeights, LayerWeights


class Projected(NamedTuple):
    """qkv, fp16 [T, heads, 3, head_dim], and the power of two that its scores lack."""

    qkv: Tensor
    scale: float


class TritonKVCache:
    """Keys and values, fp16 [layers, blocks, heads, block_size, head_dim] each."""

    def __init__(self, config: ModelConfig, num_blocks: int, device: torch.device) -> None:
        self.num_blocks = num_blocks
        tile = kv_tile(config.head_dim)
        shape = (config.num_layers, num_blocks, config.num_heads, tile, config.head_dim)
        self.keys = torch.empty(shape, dtype=torch.float16, device=device)
        self.values = torch.empty(shape, dtype=torch.float16, device=device)
        self.nbytes = self.keys.nbytes + self.values.nbytes


class TritonKernels:
    """``Kernels`` on CUDA; ``launch`` has the pieces that ``executor.graphs.decode`` captures.

    On the CPU it runs in Triton's interpreter (TRITON_INTERPRET=1), for tests of the arithmetic.
    """

    name = "triton"
    matmul = "w8a16"
    batch_invariant = True

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        if config.hidden_size % 32 or config.intermediate_size % (32 * CHUNKS):
            raise ValueError(
                "the triton backend needs hidden_size in multiples of 32 "
                f"and intermediate_size in multiples of {32 * CHUNKS}"
            )
        self.config = config
        self.device = device
        self.block_size = kv_tile(config.head_dim)
        self.launch = Launcher(config, device)
        self._scratch: Tensor | None = None

    def load_embedding(self, weight: Tensor) -> Tensor:
        """fp16 [V, H] on the device."""
        return weight.to(self.device, torch.float16, copy=True).contiguous()

    def load_layer(self, layer: LayerWeights) -> TritonLayer:
        """Pack one block."""
        return pack_layer(layer, self.device)

    def load_head(self, head: HeadWeights) -> TritonHead:
        """Pack the final norm and the head."""
        return pack_head(head, self.device)

    def kv_bytes_per_block(self) -> int:
        """Keys and values of all layers, fp16."""
        return 2 * self.config.num_layers * self.config.hidden_size * self.block_size * 2

    def allocate_cache(self, num_blocks: int) -> TritonKVCache:
        """Reserve the pool."""
        return TritonKVCache(self.config, num_blocks, self.device)

    def embed(self, table: Tensor, token_ids: Tensor) -> Tensor:
        """See ``Kernels.embed``."""
        return table[token_ids.long()].float()

    def project_in(self, layer: TritonLayer, x: Tensor) -> tuple[Projected, Tensor]:
        """See ``Kernels.project_in``."""
        config, count, launch = self.config, len(x), self.launch
        h = self._empty(2, count, config.hidden_size)
        qkv = self._empty(count, 3 * config.hidden_size)
        up = self._empty(count, config.intermediate_size)
        is_wide = count >= WIDE_FROM
        launch.norm(layer.norms, x, h)
        if is_wide:
            launch.prefill_in(layer, h, qkv, up, self._wide_weights())
        else:
            launch.in_product(layer, h, qkv, up)
        return Projected(qkv, layer.qk_scale), up

    def attend(
        self, index: int, qkv: Projected, cache: TritonKVCache, batch: ForwardBatch
    ) -> Tensor:
        """See ``Kernels.attend``; changes ``qkv``."""
        out = self._empty(len(qkv.qkv), self.config.hidden_size)
        keys, values = cache.keys[index], cache.values[index]
        self.launch.prefill_attention(qkv.qkv, keys, values, batch, out, qkv.scale)
        return out

    def project_out(self, layer: TritonLayer, x: Tensor, attended: Tensor, up: Tensor) -> Tensor:
        """See ``Kernels.project_out``; changes ``x``."""
        count = len(x)
        if count >= WIDE_FROM:
            self.launch.prefill_out(layer, attended, up, x, self._wide_weights())
            return x
        parts = torch.empty(1 + CHUNKS, count, self.config.hidden_size, device=self.device)
        self.launch.out_partial(layer, attended, up, parts)
        self.launch.norm(layer.norms[:0], x, x, parts=parts, layer=layer)
        return x

    def logits(self, head: TritonHead, x: Tensor) -> Tensor:
        """See ``Kernels.logits``."""
        x = x.contiguous()
        h = self._empty(1, len(x), self.config.hidden_size)
        out = torch.empty(len(x), self.config.vocab_size, device=self.device)
        self.launch.norm(head.norms, x, h)
        self.launch.head_product(head, h, out)
        return out

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow], num_tokens: int) -> Tensor:
        """See ``Kernels.sample``."""
        device, count = self.device, len(rows)
        tokens = torch.empty(count, dtype=torch.int32, device=device)
        keys = torch.empty(count, self.launch.sample_parts, dtype=torch.int64, device=device)
        is_masked = filters.needed(rows)
        source = filters.masked(logits, rows, num_tokens) if is_masked else logits
        self.launch.choose(
            source,
            torch.tensor([row.temperature for row in rows], dtype=torch.float32, device=device),
            torch.tensor([_signed(row.seed) for row in rows], dtype=torch.int64, device=device),
            torch.tensor([row.position for row in rows], dtype=torch.int32, device=device),
            keys,
            tokens,
            num_tokens,
            is_masked=is_masked,
        )
        if is_masked:
            tokens = torch.where(logits.isfinite().all(1), tokens, -1)
        return tokens

    def logprobs(self, logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.logprobs``."""
        count = len(logits)
        norms = torch.empty(count, device=self.device)
        values = torch.empty(count, device=self.device)
        chosen = chosen.to(self.device, torch.int32).contiguous()
        self.launch.log_sum_exp(logits, chosen, norms, values)
        ids = _top_ids(logits, num_top)
        top = logits.gather(1, ids) - norms[:, None]
        return Logprobs(values, ids.to(torch.int32), top)

    def _wide_weights(self) -> Tensor:
        """fp16 room for one layer's linears, kept."""
        if self._scratch is None:
            hidden, inner = self.config.hidden_size, self.config.intermediate_size
            size = hidden * (4 * hidden + 2 * inner)
            self._scratch = torch.empty(size, dtype=torch.float16, device=self.device)
        return self._scratch

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.float16, device=self.device)


def _top_ids(logits: Tensor, count: int) -> Tensor:
    """int64 [R, count], by falling logit, then rising id: keys that no two ids share."""
    if count == 0:
        return torch.empty(len(logits), 0, dtype=torch.int64, device=logits.device)
    bits = (logits + 0.0).view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    ids = torch.arange(logits.shape[1], device=logits.device)
    keys = (ordered << 32) | (0x7FFFFFFF - ids)
    return 0x7FFFFFFF - (keys.topk(count, dim=1).values & 0x7FFFFFFF)


def _signed(seed: int) -> int:
    """The same 64 bits as a signed integer."""
    seed %= 1 << 64
    return seed - (1 << 64) if seed >> 63 else seed
