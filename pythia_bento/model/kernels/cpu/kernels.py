"""The CPU backend: int8 weights times 15-bit activations, exact integer sums, fp32 elsewhere.

Every product accumulates in integers, every other reduction has an order fixed by the row itself,
so the backend is batch-invariant. See ``src/matmul.h`` and ``src/attention.h`` for the layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pythia_bento.hardware import usable_cores
from pythia_bento.model.batch import ForwardBatch, Logprobs
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.by_layer import LayerKernels
from pythia_bento.model.kernels.cpu import build
from pythia_bento.model.kernels.cpu.choices import fill_choice
from pythia_bento.model.kernels.cpu.library import (
    BLOCK,
    CHOICE,
    PANEL,
    CBatch,
    CHead,
    CLayer,
    CLinear,
    CNorm,
    CShape,
    address,
    load,
)
from pythia_bento.model.kernels.cpu.memory import CpuKVCache, room_for
from pythia_bento.model.rotary import rotary_tables
from pythia_bento.model.sampling import masked
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights, Norm

# Models below this hidden size get activations of 31 bits instead of 15: they have fewer terms to
# average rounding out, and too little arithmetic for the second pass to be felt.
FINE = 512
RANGE = 32639.0  # largest 15-bit value, as in src/matmul.h


class Loaded(NamedTuple):
    """A C struct and the tensors it points into, which must outlive it."""

    struct: Any
    tensors: list[Tensor]


class CpuKernels(LayerKernels):
    """``Kernels`` on the CPU. ``isa`` is one of ``build.supported()``, by default the best."""

    name = "cpu"
    matmul = "w8a16"
    block_size = BLOCK
    batch_invariant = True
    has_own_threads = True

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device | None = None,
        *,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        if config.hidden_size % 16 or config.head_dim % 16 or config.intermediate_size % 16:
            raise ValueError("the cpu backend needs hidden, head and MLP sizes in multiples of 16")
        self.config = config
        self.device = device or torch.device("cpu")
        self.isa = isa or build.supported()[0]
        self._library = load(self.isa)
        self._state = self._library.pythia_open(
            threads or usable_cores(), config.hidden_size < FINE
        )
        self._cosine, self._sine = rotary_tables(config)
        self._shape = CShape(
            config.num_heads,
            config.head_dim,
            config.rotary_dims,
            config.max_positions,
            address(self._cosine),
            address(self._sine),
        )

    def __del__(self) -> None:
        if state := getattr(self, "_state", None):
            self._library.pythia_close(state)

    @property
    def threads(self) -> int:
        """Threads that share a forward pass."""
        return int(self._library.pythia_threads(self._state))

    def load_embedding(self, weight: Tensor) -> Tensor:
        """Keep a copy, so that a mapped file can be closed."""
        return weight.to(torch.float16, copy=True)

    def load_layer(self, layer: LayerWeights) -> Loaded:
        """Pack the four linears of a block."""
        linears = (layer.qkv, layer.up, layer.dense, layer.down)  # in the order of their use
        sizes = [_panels(len(linear.weight)) * PANEL * linear.weight.shape[1] for linear in linears]
        packed = room_for(sum(sizes))
        keep = [packed]
        qkv, up, dense, down = (
            self._linear(linear, space, keep)
            for linear, space in zip(linears, torch.split(packed, sizes), strict=True)
        )
        norms = (layer.input_norm, layer.post_attention_norm)
        return Loaded(CLayer(*(self._norm(n, keep) for n in norms), qkv, dense, up, down), keep)

    def load_head(self, head: HeadWeights) -> Loaded:
        """Pack the fp16 head as 15-bit integers by row, high and low bytes in separate panels."""
        keep: list[Tensor] = []
        out, depth = head.weight.shape
        panels = _panels(out)
        packed = room_for(panels * 2 * PANEL * depth)
        scale = torch.zeros(panels * PANEL)
        step = 8  # panels at a time: the temporaries are several times as large as the weights
        for first in range(0, panels, step):
            rows = head.weight[first * PANEL : (first + step) * PANEL].float()
            largest = rows.abs().amax(1)
            q = (rows * (RANGE / largest.clamp_min(1e-30))[:, None]).round().to(torch.int32)
            scale[first * PANEL : first * PANEL + len(rows)] = largest / RANGE
            high = (q + 128) >> 8
            start = packed[first * 2 * PANEL * depth :]
            self._pack(high.to(torch.int8), start, 2)
            self._pack((q - (high << 8)).to(torch.int8), start[PANEL * depth :], 2)
        keep += [packed, scale]
        norm = self._norm(head.norm, keep)
        return Loaded(CHead(norm, address(packed), address(scale), out, depth), keep)

    def kv_bytes_per_block(self) -> int:
        """Keys and values of all layers."""
        return 2 * 4 * BLOCK * self.config.num_layers * self.config.hidden_size

    def allocate_cache(self, num_blocks: int) -> CpuKVCache:
        """Reserve address space; memory follows as blocks are first used."""
        return CpuKVCache(self.config, num_blocks)

    def embed(self, table: Tensor, token_ids: Tensor) -> Tensor:
        """See ``LayerKernels.embed``."""
        return table[token_ids].float()

    def project_in(self, layer: Loaded, x: Tensor) -> tuple[Tensor, Tensor]:
        """See ``LayerKernels.project_in``."""
        tokens = len(x)
        qkv = torch.empty(tokens, layer.struct.qkv.out)
        up = torch.empty(tokens, layer.struct.up.out)
        self._library.pythia_project_in(
            self._state,
            layer.struct,
            address(x),
            tokens,
            self.config.norm_eps,
            address(qkv),
            address(up),
        )
        return qkv, up

    def attend(self, index: int, qkv: Tensor, cache: CpuKVCache, batch: ForwardBatch) -> Tensor:
        """See ``LayerKernels.attend``; changes ``qkv``."""
        out = torch.empty(len(qkv), self.config.hidden_size)
        sequences, width = batch.block_tables.shape
        pointers = (
            batch.positions,
            batch.slots,
            batch.query_starts,
            batch.context_lens,
            batch.block_tables,
        )
        struct = CBatch(len(qkv), sequences, width, *(address(p) for p in pointers))
        self._library.pythia_attend(
            self._state,
            self._shape,
            cache.layers[index],
            struct,
            address(qkv),
            address(out),
        )
        return out

    def project_out(self, layer: Loaded, x: Tensor, attended: Tensor, up: Tensor) -> Tensor:
        """See ``LayerKernels.project_out``; changes ``x``."""
        self._library.pythia_project_out(
            self._state,
            layer.struct,
            address(x),
            len(x),
            address(attended),
            address(up),
        )
        return x

    def logits(self, head: Loaded, x: Tensor) -> Tensor:
        """See ``Kernels.logits``."""
        x = x.contiguous()
        logits = torch.empty(len(x), head.struct.out)
        self._library.pythia_logits(
            self._state,
            head.struct,
            address(x),
            len(x),
            self.config.norm_eps,
            address(logits),
        )
        return logits

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow], num_tokens: int) -> Tensor:
        """See ``Kernels.sample``."""
        logits = masked(logits, rows)
        choices = np.zeros(len(rows), CHOICE)
        keep = [fill_choice(choices[i], row) for i, row in enumerate(rows)]
        tokens = torch.empty(len(rows), dtype=torch.int32)
        self._library.pythia_sample(
            self._state,
            address(logits),
            len(rows),
            logits.shape[1],
            num_tokens,
            choices.ctypes.data,
            address(tokens),
        )
        del keep
        return tokens

    def logprobs(self, logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.logprobs``."""
        rows, vocab = logits.shape
        chosen = chosen.to(torch.int32).contiguous()
        values = torch.empty(rows)
        ranks = torch.empty(rows, dtype=torch.int32)
        top_ids = torch.empty(rows, num_top, dtype=torch.int32)
        top = torch.empty(rows, num_top)
        self._library.pythia_logprobs(
            self._state,
            address(logits),
            rows,
            vocab,
            address(chosen),
            num_top,
            address(values),
            address(ranks),
            address(top_ids),
            address(top),
        )
        return Logprobs(values, ranks, top_ids, top)

    def _pack(self, weight: Tensor, to: Tensor, every: int = 1) -> None:
        weight = weight.contiguous()
        out, depth = weight.shape
        stride = every * PANEL * depth
        self._library.pythia_pack(self._state, address(weight), out, depth, stride, address(to))

    def _linear(self, linear: Int8Linear, packed: Tensor, keep: list[Tensor]) -> CLinear:
        out, depth = linear.weight.shape
        self._pack(linear.weight, packed)
        padded = _panels(out) * PANEL
        scale, bias = torch.zeros(padded), torch.zeros(padded)
        scale[:out] = linear.scb.float() / 127
        bias[:out] = linear.bias.float()
        keep += [scale, bias]
        return CLinear(address(packed), address(scale), address(bias), out, depth)

    def _norm(self, norm: Norm, keep: list[Tensor]) -> CNorm:
        weight = norm.weight.to(torch.float32, copy=True)
        bias = norm.bias.to(torch.float32, copy=True)
        keep += [weight, bias]
        return CNorm(address(weight), address(bias))


def _panels(out: int) -> int:
    return -(-out // PANEL)
