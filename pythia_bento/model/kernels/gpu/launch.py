"""One method for each kernel: grid, tile and arguments. Outputs are given, nothing is allocated."""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu import tiles
from pythia_bento.model.kernels.gpu.launch_options import OptionsLauncher
from pythia_bento.model.kernels.gpu.launch_patterns import PatternLauncher
from pythia_bento.model.kernels.gpu.launch_prefill import WideLauncher
from pythia_bento.model.kernels.gpu.launch_sampling import SamplingLauncher
from pythia_bento.model.kernels.gpu.packing import CHUNKS, TritonHead, TritonLayer, depth_at_once
from pythia_bento.model.kernels.gpu.triton import attention, attention_prefill, products
from pythia_bento.model.kernels.gpu.triton.norm import norm
from pythia_bento.model.kernels.gpu.workspace import AttentionScratch, shared_bytes
from pythia_bento.model.rotary import rotary_tables

NORM_WARPS = 8  # for few tokens, where all of them wait for one row
ROTATED = 1024  # values of q, and as many of k, that one program rotates


class Launcher(WideLauncher):
    """Launches on the current stream for one model shape and device."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.device = device
        self.fast = device.type == "cuda"  # else Triton's interpreter, which has no assembly
        self._shared_bytes = shared_bytes(device)
        self.block_size = tiles.kv_tile(config.head_dim)
        self.sampling = SamplingLauncher(config, device)
        self.options = OptionsLauncher(config, device)
        self.cosine, self.sine = (table.to(device) for table in rotary_tables(config))
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
        self.patterns = PatternLauncher(self._shape)

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
        norm[(len(x),)](
            x_ptr=x,
            table_ptr=x if table is None else table,
            token_ids_ptr=x if token_ids is None else token_ids,
            part_ptr=x if parts is None else parts,
            dense_scale_ptr=layer.dense_scale if layer else x,
            down_scale_ptr=layer.down_scale if layer else x,
            bias_ptr=layer.out_bias if layer else x,
            norms_ptr=norms,
            h_ptr=h,
            num_tokens=len(x),
            h_stride=len(x) * hidden,
            eps=self.config.norm_eps,
            H=hidden,
            BLOCK=triton.next_power_of_2(hidden),
            CHUNKS=0 if parts is None else CHUNKS,
            EMBED=table is not None,
            NORMS=len(norms),
            num_warps=_norm_warps(hidden, len(x)),
        )

    def in_product(
        self, layer: TritonLayer, h: Tensor, qkv: Tensor, up: Tensor, tile: tiles.Tile | None = None
    ) -> None:
        """Both branches' first products."""
        hidden, inner, count = self.config.hidden_size, self.config.intermediate_size, h.shape[1]
        rows = 3 * hidden + inner
        tile = (tile or tiles.choose(tiles.IN, count)).fit(math.gcd(3 * hidden, inner), hidden)
        products.in_product[tiles.grid(rows, count, tile)](
            w_ptr=layer.w_in,
            scale_ptr=layer.in_scale,
            bias_ptr=layer.in_bias,
            h_ptr=h,
            qkv_ptr=qkv,
            up_ptr=up,
            num_tokens=count,
            h_stride=count * hidden,
            gelu_scale=layer.gelu_scale,
            H=hidden,
            QKV=3 * hidden,
            UP=inner,
            BM=tile.rows,
            BN=tile.tokens,
            BK=depth_at_once(hidden),
            STAGES=tile.stages,
            FAST=self.fast,
            num_warps=tile.warps,
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
            dense_ptr=layer.dense,
            down_ptr=layer.down,
            attended_ptr=attended,
            up_ptr=up,
            part_ptr=parts,
            num_tokens=count,
            H=hidden,
            UP=inner,
            CHUNKS=CHUNKS,
            FIRST=pieces.start,
            BM=tile.rows,
            BN=tile.tokens,
            BK=self._out_depth,
            STAGES=tile.stages,
            FAST=self.fast,
            num_warps=tile.warps,
        )

    def head_product(
        self, head: TritonHead, h: Tensor, logits: Tensor, tile: tiles.Tile | None = None
    ) -> None:
        """fp16 [1, R, H] -> fp32 [R, V]."""
        config, count = self.config, len(logits)
        tile = (tile or tiles.choose(tiles.HEAD, count)).fit(1 << 20, config.hidden_size)
        products.head_product[tiles.grid(config.vocab_size, count, tile)](
            w_ptr=head.weight,
            h_ptr=h,
            logits_ptr=logits,
            num_tokens=count,
            h_scale=head.scale,
            VOCAB=config.vocab_size,
            H=config.hidden_size,
            BM=tile.rows,
            BN=tile.tokens,
            BK=tile.depth,
            STAGES=tile.stages,
            num_warps=tile.warps,
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
        tile: tiles.AttentionTile | None = None,
    ) -> None:
        """Rotate, write to the cache, attend: any mix of chunks. Changes ``qkv``.

        ``tile`` is for sequences of many rows.
        """
        heads, count, seqs = self.config.num_heads, len(qkv), len(batch.context_lens)
        at_once = max(1, ROTATED // self._shape["BD"])
        attention_prefill.rotate_and_write[(-(-count // at_once), heads)](
            qkv_ptr=qkv,
            k_cache=keys,
            v_cache=values,
            cos_ptr=self.cosine,
            sin_ptr=self.sine,
            positions_ptr=batch.positions,
            slots_ptr=batch.slots,
            num_tokens=count,
            ROTARY=self.config.rotary_dims,
            TOKENS=at_once,
            num_warps=4,
            **self._shape,
        )
        few = tiles.attention_few(seqs * heads, self.config.head_dim)
        self._attend(qkv, keys, values, batch, out, scale, few, is_short=True)
        # Not by the number of sequences: a graph's are padded, and may be more than its tokens.
        if count > tiles.FEW_ROWS:
            tile = tile or tiles.ATTENTION_MANY
            self._attend(qkv, keys, values, batch, out, scale, tile)

    def _attend(
        self,
        qkv: Tensor,
        keys: Tensor,
        values: Tensor,
        batch: ForwardBatch,
        out: Tensor,
        scale: float,
        tile: tiles.AttentionTile,
        *,
        is_short: bool = False,
    ) -> None:
        """Of sequences with few rows, or of all others."""
        seqs = len(batch.context_lens)
        dims = min(tile.dims, self._shape["BD"])
        blocks = seqs if is_short else len(qkv) // tile.rows + seqs
        grid = blocks, self.config.num_heads, self._shape["BD"] // dims
        attention_prefill.prefill_attention[grid](
            qkv_ptr=qkv,
            k_cache=keys,
            v_cache=values,
            out_ptr=out,
            query_starts_ptr=batch.query_starts,
            context_lens_ptr=batch.context_lens,
            tables_ptr=batch.block_tables,
            table_stride=batch.block_tables.stride(0),
            num_seqs=seqs,
            qk_scale=self.score_scale(scale),
            BQ=tile.rows,
            SEQS=triton.next_power_of_2(seqs + 1),
            FEW=tiles.FEW_ROWS,
            SHORT=is_short,
            BV=dims,
            STAGES=tile.stages,
            num_warps=tile.warps,
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
        stages: int | None = None,
        warps: int = 4,
    ) -> None:
        """One new token a sequence: rotate, write to the cache, attend."""
        heads, count, head_dim = self.config.num_heads, len(qkv), self.config.head_dim
        splits = splits or tiles.splits(count * heads, scratch.max_tiles, head_dim)
        stages = stages or tiles.decode_stages(count * heads, head_dim, self._shared_bytes)
        attention.decode_attention[(heads, count, splits)](
            qkv_ptr=qkv,
            k_cache=keys,
            v_cache=values,
            out_ptr=out,
            cos_ptr=self.cosine,
            sin_ptr=self.sine,
            context_lens_ptr=context_lens,
            tables_ptr=tables,
            table_stride=tables.stride(0),
            acc_ptr=scratch.acc,
            best_ptr=scratch.best,
            ticket_ptr=scratch.tickets,
            max_tiles=scratch.max_tiles,
            qk_scale=self.score_scale(scale),
            ROTARY=self.config.rotary_dims,
            SPLIT=splits,
            STAGES=stages,
            num_warps=warps,
            **self._shape,
        )

    def score_scale(self, scale: float) -> float:
        """1 / sqrt(head_dim) and the change to base 2, times a layer's power of two."""
        return scale * math.log2(math.e) / math.sqrt(self.config.head_dim)


def _norm_warps(hidden: int, tokens: int) -> int:
    """A row's sums are exact, so that any number of threads finds the same."""
    return NORM_WARPS if tokens < tiles.WIDE_FROM else max(1, min(NORM_WARPS, hidden // 256))
