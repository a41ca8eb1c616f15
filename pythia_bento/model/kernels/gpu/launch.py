"""One method for each kernel: grid, tile and arguments. Outputs are given, nothing is allocated."""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu import tiles
from pythia_bento.model.kernels.gpu.launch_prefill import WideLauncher
from pythia_bento.model.kernels.gpu.packing import CHUNKS, TritonHead, TritonLayer, depth_at_once
from pythia_bento.model.kernels.gpu.triton import attention, products, sampling
from pythia_bento.model.kernels.gpu.triton.norm import norm
from pythia_bento.model.kernels.gpu.workspace import AttentionScratch
from pythia_bento.model.rotary import rotary_tables

NORM_WARPS = 8
SAMPLE_BLOCK = 1024


class Launcher(WideLauncher):
    """Launches on the current stream for one model shape and device."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.device = device
        self.fast = device.type == "cuda"  # else Triton's interpreter, which has no assembly
        # Programmatic dependent launch was slower in captured steps (docs/gpu.md).
        self.pdl = False
        self.overlap: dict[str, bool] = {}
        self.block_size = tiles.kv_tile(config.head_dim)
        self.sample_parts = triton.cdiv(config.vocab_size, SAMPLE_BLOCK)
        self.rotary_tables = tuple(table.to(device) for table in rotary_tables(config))
        depth = config.intermediate_size // CHUNKS
        self._out_depth = depth_at_once(config.hidden_size)
        if depth_at_once(depth) != self._out_depth:
            raise ValueError("hidden_size and intermediate_size need the same factors of two")
        self._shape = {
            "HEAD": config.head_dim,
            "BD": triton.next_power_of_2(max(config.head_dim, 16)),
            "HEADS": config.num_heads,
            "TILE": self.block_size,
        }

    def norm(
        self,
        norms: Tensor,
        x: Tensor,
        h: Tensor,
        *,
        table: Tensor | None = None,
        token_ids: Tensor | None = None,
        parts: Tensor | None = None,
        layer: TritonLayer | None = None,
    ) -> None:
        """h[i] = norm_i(x), after x = table[token_ids] or x += the parts of ``layer``.

        Without rows in ``norms`` only x changes.
        """
        hidden = self.config.hidden_size
        scales = (layer.dense_scale, layer.down_scale, layer.out_bias) if layer else (x, x, x)
        norm[(len(x),)](
            *(x, x if table is None else table, x if token_ids is None else token_ids),
            *(x if parts is None else parts, *scales, norms, h, len(x)),
            *(len(x) * hidden, self.config.norm_eps),
            H=hidden,
            BLOCK=triton.next_power_of_2(hidden),
            CHUNKS=0 if parts is None else CHUNKS,
            EMBED=table is not None,
            NORMS=len(norms),
            PDL=self.pdl,
            num_warps=NORM_WARPS,
            **self.overlap,
        )

    def in_product(
        self, layer: TritonLayer, h: Tensor, qkv: Tensor, up: Tensor, tile: tiles.Tile | None = None
    ) -> None:
        """Both branches' first products."""
        hidden, inner, count = self.config.hidden_size, self.config.intermediate_size, h.shape[1]
        rows = 3 * hidden + inner
        tile = (tile or tiles.choose(tiles.IN, count)).fit(math.gcd(3 * hidden, inner), hidden)
        products.in_product[tiles.grid(rows, count, tile)](
            *(layer.w_in, layer.in_scale, layer.in_bias, h, qkv, up),
            *(count, count * hidden, layer.gelu_scale, hidden, 3 * hidden, inner),
            *(tile.rows, tile.tokens, depth_at_once(hidden), tile.stages, self.fast, self.pdl),
            num_warps=tile.warps,
            **self.overlap,
        )

    def out_partial(
        self,
        layer: TritonLayer,
        attended: Tensor,
        up: Tensor,
        parts: Tensor,
        pieces: range = range(1 + CHUNKS),
        tile: tiles.Tile | None = None,
    ) -> None:
        """Unscaled pieces of both second products, for ``norm`` to add."""
        hidden, inner, count = self.config.hidden_size, self.config.intermediate_size, len(up)
        tile = (tile or tiles.choose(tiles.OUT_PARTIAL, count)).fit(hidden, hidden)
        grid = (*tiles.grid(hidden, count, tile), len(pieces))
        products.out_partial[grid](
            *(layer.dense, layer.down, attended, up, parts, count),
            *(hidden, inner, CHUNKS, pieces.start),
            *(tile.rows, tile.tokens, self._out_depth, tile.stages, self.fast, self.pdl),
            num_warps=tile.warps,
            **self.overlap,
        )

    def head_product(
        self, head: TritonHead, h: Tensor, logits: Tensor, tile: tiles.Tile | None = None
    ) -> None:
        """fp16 [1, R, H] -> fp32 [R, V]."""
        config, count = self.config, len(logits)
        tile = (tile or tiles.choose(tiles.HEAD, count)).fit(1 << 20, config.hidden_size)
        products.head_product[tiles.grid(config.vocab_size, count, tile)](
            *(head.weight, h, logits, count, head.scale),
            *(config.vocab_size, config.hidden_size),
            *(tile.rows, tile.tokens, tile.depth, tile.stages, self.pdl),
            num_warps=tile.warps,
            **self.overlap,
        )

    def prefill_attention(
        self,
        qkv: Tensor,
        keys: Tensor,
        values: Tensor,
        batch: ForwardBatch,
        out: Tensor,
        scale: float,
        *,
        rows: int | None = None,
    ) -> None:
        """Rotate, write to the cache, attend: any mix of chunks. Changes ``qkv``."""
        heads, count, seqs = self.config.num_heads, len(qkv), len(batch.context_lens)
        attention.rotate_and_write[(count, heads)](
            *(qkv, keys, values, *self.rotary_tables, batch.positions, batch.slots),
            ROTARY=self.config.rotary_dims,
            num_warps=1,
            **self._shape,
        )
        rows = rows or (64 if count >= 16 * seqs else 16)
        attention.prefill_attention[(count // rows + seqs, heads)](
            *(qkv, keys, values, out, batch.query_starts, batch.context_lens),
            *(batch.block_tables, batch.block_tables.stride(0), seqs, self.score_scale(scale)),
            BQ=rows,
            SEQS=triton.next_power_of_2(seqs + 1),
            STAGES=2,
            num_warps=4,
            **self._shape,
        )

    def decode_attention(
        self,
        qkv: Tensor,
        keys: Tensor,
        values: Tensor,
        context_lens: Tensor,
        tables: Tensor,
        scratch: AttentionScratch,
        out: Tensor,
        scale: float,
        *,
        splits: int | None = None,
        stages: int = 2,
        warps: int = 4,
    ) -> None:
        """One new token a sequence: rotate, write to the cache, attend."""
        heads, count = self.config.num_heads, len(qkv)
        splits = splits or tiles.splits(count * heads, scratch.max_tiles)
        attention.decode_attention[(heads, count, splits)](
            *(qkv, keys, values, out, *self.rotary_tables, context_lens),
            *(tables, tables.stride(0), scratch.acc, scratch.best, scratch.tickets),
            *(scratch.max_tiles, self.score_scale(scale)),
            ROTARY=self.config.rotary_dims,
            SPLIT=splits,
            STAGES=stages,
            PDL=self.pdl,
            num_warps=warps,
            **self._shape,
            **self.overlap,
        )

    def score_scale(self, scale: float) -> float:
        """1 / sqrt(head_dim) and the change to base 2, times a layer's power of two."""
        return scale * math.log2(math.e) / math.sqrt(self.config.head_dim)

    def choose(
        self,
        logits: Tensor,
        temperatures: Tensor,
        seeds: Tensor,
        positions: Tensor,
        keys: Tensor,
        tokens: Tensor,
        num_tokens: int,
        *,
        is_masked: bool = False,
        ring: Tensor | None = None,
    ) -> None:
        """Pick ``tokens`` (int32 [R]).

        With ``ring`` (int32 [R, a power of two]) ``positions`` are context lengths: they move on,
        ``tokens`` are the next inputs, and the token of position p is also put at p modulo the
        ring's width.
        """
        rows, parts = len(logits), self.sample_parts
        sampling.choose_partial[(rows, parts)](
            *(logits, temperatures, seeds, positions, keys, num_tokens),
            *(self.config.vocab_size, SAMPLE_BLOCK, parts, is_masked, self.pdl),
            num_warps=4,
            **self.overlap,
        )
        sampling.choose_final[(rows,)](
            *(keys, tokens, positions, tokens if ring is None else ring),
            *(parts, triton.next_power_of_2(parts), 1 if ring is None else ring.shape[1]),
            *(ring is not None, self.pdl),
            num_warps=1,
            **self.overlap,
        )

    def sample_keys(self, rows: int) -> Tensor:
        """Room that ``choose`` needs for so many rows."""
        return torch.empty(rows, self.sample_parts, dtype=torch.int64, device=self.device)

    def log_sum_exp(self, logits: Tensor, chosen: Tensor, norms: Tensor, values: Tensor) -> None:
        """``norms`` and the log-probabilities ``values`` of ``chosen``, fp32 [R]."""
        sampling.log_sum_exp[(len(logits),)](
            *(logits, chosen, norms, values, self.config.vocab_size, 4096), num_warps=8
        )
