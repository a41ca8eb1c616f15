"""The CUDA backend: int8 weights times fp16 activations, fp32 sums and residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pythia_bento.model.batch import DecodeRows, ForwardBatch, Logprobs, RowOptions
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.base import SCORED_ROWS, Capturable, PackedWeights
from pythia_bento.model.kernels.gpu import slab
from pythia_bento.model.kernels.gpu.captured import (
    TritonDecodeSteps,
    TritonPromptPasses,
    TritonScoredRows,
)
from pythia_bento.model.kernels.gpu.forward import Forward, PromptAttention
from pythia_bento.model.kernels.gpu.inside import TappedPass, normalised
from pythia_bento.model.kernels.gpu.launch import Launcher
from pythia_bento.model.kernels.gpu.packing import (
    CHUNKS,
    TritonHead,
    TritonLayer,
    kept,
    pack_head,
    pack_layer,
)
from pythia_bento.model.kernels.gpu.row_options import row_options
from pythia_bento.model.kernels.gpu.tiles import kv_tile
from pythia_bento.model.kernels.gpu.wide import kept_bytes
from pythia_bento.model.kernels.gpu.workspace import TritonKVCache, Workspace
from pythia_bento.model.kernels.tapped import Shown
from pythia_bento.model.sampling import masked
from pythia_bento.model.sampling_row import SamplingRow
from pythia_bento.model.taps import Taps
from pythia_bento.model.weights import HeadWeights, LayerWeights


class TritonKernels:
    """``Kernels`` and ``Capturable`` on CUDA; ``launch`` has a method for each kernel.

    On the CPU it runs in Triton's interpreter (TRITON_INTERPRET=1), for tests of the arithmetic.
    """

    name = "triton"
    matmul = "w8a16"
    batch_invariant = True
    has_own_threads = False
    scored_at_once = SCORED_ROWS

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
        is_cuda = device.type == "cuda"
        device_bytes = torch.cuda.mem_get_info(device)[1] if is_cuda else 0
        self.kept_bytes = kept_bytes(config, device_bytes)
        self._forward = Forward(self.launch, keeps_wide=self.kept_bytes > 0)

    def load_embedding(self, weight: Tensor) -> Tensor:
        """fp16 [V, H] on the device."""
        return kept(weight, self.device, torch.float16)

    def load_layer(self, layer: LayerWeights) -> TritonLayer:
        """Pack one block."""
        return pack_layer(layer, self.device)

    def load_head(self, head: HeadWeights) -> TritonHead:
        """Pack the final norm and the head."""
        return pack_head(head, self.device)

    def contiguous(self, weights: PackedWeights, tag: bytes) -> PackedWeights:
        """See ``Kernels.contiguous``."""
        return slab.contiguous(weights, tag)

    def kv_bytes_per_block(self) -> int:
        """Keys and values of all layers, fp16."""
        return 2 * self.config.num_layers * self.config.hidden_size * self.block_size * 2

    def allocate_cache(self, num_blocks: int) -> TritonKVCache:
        """Reserve the pool."""
        return TritonKVCache(self.config, num_blocks, self.device)

    def forward(
        self,
        weights: PackedWeights,
        batch: ForwardBatch,
        cache: TritonKVCache,
        taps: Taps | None = None,
    ) -> Tensor:
        """See ``Kernels.forward``."""
        count = len(batch.token_ids)
        a = Workspace(self.config, count, self.device).first(count)
        if taps is not None:
            shown, width = Shown(taps, self.config), batch.block_tables.shape[1]
            parts = self.launch, self._forward, weights, batch, cache, shown
            TappedPass(*parts, a, count, width)()
            return a.x
        attend = PromptAttention(self.launch, cache, batch)
        self._forward(weights, batch.token_ids, a, attend, last_norms=weights.head.norms[:0])
        return a.x

    def capturable(self) -> Capturable | None:
        """See ``Kernels.capturable``."""
        return self if self.device.type == "cuda" else None

    def decode_steps(
        self, weights: PackedWeights, cache: TritonKVCache, rows: DecodeRows, num_tokens: int
    ) -> TritonDecodeSteps:
        """See ``Capturable.decode_steps``."""
        return TritonDecodeSteps(self.launch, self._forward, weights, cache, rows, num_tokens)

    def recall(self, told: Tensor, rows: Tensor, lengths: Tensor, options: RowOptions) -> None:
        """See ``Capturable.recall``."""
        self.launch.options.recall(told, rows, lengths, options)

    def prompt_passes(
        self,
        weights: PackedWeights,
        cache: TritonKVCache,
        sequences: int,
        tokens: int,
        num_tokens: int,
    ) -> TritonPromptPasses:
        """See ``Capturable.prompt_passes``."""
        sizes = (sequences, tokens, num_tokens)
        return TritonPromptPasses(self.launch, self._forward, weights, cache, *sizes)

    def scored_rows(self, weights: PackedWeights, hidden: Tensor, rows: int) -> TritonScoredRows:
        """See ``Capturable.scored_rows``."""
        return TritonScoredRows(self.launch, weights, hidden, rows)

    def normalised(self, head: TritonHead, x: Tensor) -> Tensor:
        """See ``Kernels.normalised``."""
        return normalised(self.launch, head, x)

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
        logits = masked(logits, rows)
        device, count, launch = self.device, len(rows), self.launch
        tokens = torch.empty(count, dtype=torch.int32, device=device)
        seeds = [_signed(row.seed) for row in rows]
        temperatures = torch.tensor([row.temperature for row in rows], device=device)
        positions = torch.tensor([row.position for row in rows], dtype=torch.int32, device=device)
        prepared = None
        if (options := row_options(rows, device)) is not None:
            prepared = launch.options.room(options)
            launch.options.prepare(logits, options, prepared, positions, temperatures, num_tokens)
        launch.sampling.choose(
            logits,
            temperatures,
            torch.tensor(seeds, dtype=torch.int64, device=device),
            positions,
            launch.sampling.keys(count),
            tokens,
            num_tokens,
            prepared=prepared,
        )
        return tokens

    def logprobs(self, logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.logprobs``."""
        found = self.launch.sampling.scores(len(logits), num_top)
        chosen = chosen.to(self.device, torch.int32).contiguous()
        self.launch.sampling.score(logits, chosen, found)
        return Logprobs(found.values, found.ranks, found.best_ids, found.best)

    def scores(self, head: TritonHead, x: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
        """See ``Kernels.scores``."""
        return self.logprobs(self.logits(head, x), chosen, num_top)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.float16, device=self.device)


def _signed(seed: int) -> int:
    """The same 64 bits as a signed integer."""
    seed %= 1 << 64
    return seed - (1 << 64) if seed >> 63 else seed
