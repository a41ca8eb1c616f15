"""Launches of what shows attention weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.kernels.gpu.triton.patterns import patterns


class PatternLauncher:
    """Launches on the current stream for one model shape."""

    def __init__(self, shape: dict[str, Any]) -> None:
        self._shape = shape

    def __call__(
        self,
        qkv: Tensor,  # fp16 [T, 3 H], q rotated
        keys: Tensor,  # of the layer's cache
        batch: ForwardBatch,
        rows: Tensor,  # int64 [R]
        out: Tensor,  # fp32 [R, heads, K], zeros; K is what the block tables have room for
        scale: float,  # see ``Launcher.score_scale``
    ) -> None:
        """Weights of some rows, after their attention."""
        owners = torch.searchsorted(batch.query_starts, rows.int(), right=True) - 1
        patterns[(len(rows), self._shape["HEADS"])](
            qkv_ptr=qkv,
            k_cache=keys,
            out_ptr=out,
            rows_ptr=rows.contiguous(),
            owners_ptr=owners,
            positions_ptr=batch.positions,
            tables_ptr=batch.block_tables,
            table_stride=batch.block_tables.stride(0),
            keys=out.shape[-1],
            qk_scale=scale,
            num_warps=4,
            **self._shape,
        )
