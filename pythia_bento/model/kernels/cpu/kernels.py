"""The CPU backend: int8 weights times 15-bit activations, exact integer sums, fp32 elsewhere.

Every product accumulates in integers, every other reduction has an order fixed by the row itself,
so the backend is batch-invariant. See ``src/matmul.h`` and ``src/attention.h`` for the layouts.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    CBatch,
    CShape,
    address,
    load,
)
from pythia_bento.model.kernels.cpu.memory import CpuKVCache
from pythia_bento.model.kernels.cpu.packing import Loaded, Packer
from pythia_bento.model.rotary import rotary_tables
from pythia_bento.model.sampling import masked
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.weights import HeadWeights, LayerWeights

# Models below this hidden size get activations of 31 bits instead of 15: they have fewer terms to
# average rounding out, and too little arithmetic for the second pass to be felt.
FINE = 512


class CpuKernels(LayerKernels):
    """``Kernels`` on the CPU. ``isa`` is one of ``build.supported()``, by default the best."""

    name = "cpu"
    matmul = "w8a16"
    block_size = BLOCK
    batch_invariant = True
    has_own_threads = True
    scored_at_once = 1 << 30  # all: the library takes them in slices itself

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
        self._packer = Packer(self._library, self._state)
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
        return self._packer.layer(layer)

    def load_head(self, head: HeadWeights) -> Loaded:
        """Pack the final norm and the head."""
        return self._packer.head(head)

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
        self._library.pythia_attend(
            self._state,
            self._shape,
            cache.layers[index],
            _struct(batch),
            address(qkv),
            address(out),
        )
        return out

    def patterns(
        self,
        index: int,
        qkv: Tensor,
        cache: CpuKVCache,
        batch: ForwardBatch,
        rows: Tensor,
        keys: int,
    ) -> Tensor:
        """See ``LayerKernels.patterns``: the weights that were used, to the bit."""
        out = torch.empty(len(rows), self.config.num_heads, keys)
        rows = rows.to(torch.int64).contiguous()
        self._library.pythia_patterns(
            self._state,
            self._shape,
            cache.layers[index],
            _struct(batch),
            address(qkv),
            address(rows),
            len(rows),
            keys,
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

    def project_out_parts(
        self, layer: Loaded, attended: Tensor, up: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See ``LayerKernels.project_out_parts``."""
        attn_out, mlp_out = torch.empty_like(attended), torch.empty_like(attended)
        self._library.pythia_project_out_parts(
            self._state,
            layer.struct,
            len(attended),
            address(attended),
            address(up),
            address(attn_out),
            address(mlp_out),
        )
        return attn_out, mlp_out

    def normalised(self, head: Loaded, x: Tensor) -> Tensor:
        """See ``Kernels.normalised``."""
        x = x.contiguous()
        out = torch.empty_like(x)
        self._library.pythia_normalise(
            self._state,
            head.struct,
            address(x),
            len(x),
            self.config.norm_eps,
            address(out),
        )
        return out

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
        chosen, found = _asked(chosen, num_top)
        self._library.pythia_logprobs(
            self._state,
            address(logits),
            rows,
            vocab,
            address(chosen),
            num_top,
            *map(address, (found.chosen, found.ranks, found.top_ids, found.top)),
        )
        return found

    def scores(self, head: Loaded, x: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.scores``: the bits of ``logprobs``, and never all logits in memory."""
        x = x.contiguous()
        chosen, found = _asked(chosen, num_top)
        self._library.pythia_scores(
            self._state,
            head.struct,
            address(x),
            len(x),
            self.config.norm_eps,
            address(chosen),
            num_top,
            *map(address, (found.chosen, found.ranks, found.top_ids, found.top)),
        )
        return found


def _asked(chosen: Tensor, num_top: int) -> tuple[Tensor, Logprobs]:
    """What is looked for, and room for what is found."""
    rows = len(chosen)
    ids, values = torch.empty(rows, num_top, dtype=torch.int32), torch.empty(rows, num_top)
    ranks = torch.empty(rows, dtype=torch.int32)
    found = Logprobs(torch.empty(rows), ranks, ids, values)
    return chosen.to(torch.int32).contiguous(), found


def _struct(batch: ForwardBatch) -> CBatch:
    """Points into the batch's tensors, which must outlive it."""
    sequences, width = batch.block_tables.shape
    pointers = (
        batch.positions,
        batch.slots,
        batch.query_starts,
        batch.context_lens,
        batch.block_tables,
    )
    return CBatch(len(batch.positions), sequences, width, *(address(p) for p in pointers))
