"""Launches of the products of many tokens: weights are widened to fp16 once a layer."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu import tiles
from pythia_bento.model.kernels.gpu.packing import CHUNKS, TritonLayer, depth_at_once
from pythia_bento.model.kernels.gpu.triton import prefill

if TYPE_CHECKING:
    from pythia_bento.model.kernels.gpu.prefill_product import PrefillProducts

logger = logging.getLogger(__name__)


class WideLauncher:
    """Launches on the current stream for one model shape and device."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.config = config
        is_cuda = device.type == "cuda"  # else Triton's interpreter
        self.tma = is_cuda and torch.cuda.get_device_capability(device)[0] >= 9
        self.wide_products = _wide_products(config, device) if is_cuda else None

    def prefill_in(
        self,
        layer: TritonLayer,
        h: Tensor,
        qkv: Tensor,
        up: Tensor,
        scratch: Tensor,
        tile: tiles.Tile | None = None,
    ) -> None:
        """``in_product`` for many tokens; ``scratch`` holds the weights as fp16.

        With a ``tile`` by Triton's kernel, where there is another one.
        """
        hidden, inner, count = self.config.hidden_size, self.config.intermediate_size, len(qkv)
        rows = 3 * hidden + inner
        wide = self._widen(layer.w_in, scratch)
        if self.wide_products and not tile:
            self.wide_products.first(layer, wide, h, qkv, up)
            return
        tile = (tile or tiles.WIDE_IN).fit(math.gcd(3 * hidden, inner), hidden)
        prefill.prefill_in[tiles.grid(rows, count, tile)](
            w=self._tiled(wide, tile.rows, tile.depth),
            scale_ptr=layer.in_scale,
            bias_ptr=layer.in_bias,
            h=self._tiled(h.view(-1, hidden), tile.tokens, tile.depth),
            qkv_ptr=qkv,
            up_ptr=up,
            num_tokens=count,
            gelu_scale=layer.gelu_scale,
            H=hidden,
            QKV=3 * hidden,
            UP=inner,
            BT=tile.tokens,
            BR=tile.rows,
            BK=tile.depth,
            STAGES=tile.stages,
            TMA=self.tma,
            num_warps=tile.warps,
        )

    def prefill_out(
        self,
        layer: TritonLayer,
        attended: Tensor,
        up: Tensor,
        x: Tensor,
        scratch: Tensor,
        tile: tiles.Tile | None = None,
    ) -> None:
        """x += both second products, for many tokens; ``tile`` as above."""
        hidden, inner, count = self.config.hidden_size, self.config.intermediate_size, len(x)
        depth = inner // CHUNKS
        if self.wide_products and not tile:
            self._widen(layer.dense, scratch)
            self._widen(layer.down.view(CHUNKS * hidden, -1), scratch[hidden * hidden :])
            wide = scratch[: (1 + CHUNKS) * hidden * hidden].view(-1, hidden)
            self.wide_products.second(layer, wide, attended, up, x)
            return
        tile = (tile or tiles.WIDE_OUT).fit(hidden, math.gcd(hidden, depth))
        pieces = [(layer.dense, layer.dense_scale, attended, 0)]
        pieces += [(layer.down[i], layer.down_scale, up, i * depth) for i in range(CHUNKS)]
        for i, (weight, scale, source, column) in enumerate(pieces):
            wide = self._widen(weight, scratch)
            prefill.prefill_add[tiles.grid(hidden, count, tile)](
                w=self._tiled(wide, tile.rows, tile.depth),
                scale_ptr=scale,
                bias_ptr=layer.out_bias,
                a=self._tiled(source, tile.tokens, tile.depth),
                x_ptr=x,
                num_tokens=count,
                col=column,
                H=hidden,
                DEPTH=wide.shape[1],
                X_STRIDE=source.shape[1],
                BIAS=i == 0,
                BT=tile.tokens,
                BR=tile.rows,
                BK=tile.depth,
                STAGES=tile.stages,
                TMA=self.tma,
                num_warps=tile.warps,
            )

    def _widen(self, pairs: Tensor, scratch: Tensor) -> Tensor:
        """int16 pairs [R, K / 2] as fp16 [R, K] at the start of ``scratch``."""
        rows, depth = pairs.shape[0], 2 * pairs.shape[1]
        wide = scratch[: rows * depth].view(rows, depth)
        at_once = min(rows & -rows, 32)
        prefill.widen_weights[(rows // at_once, depth // depth_at_once(depth))](
            w_ptr=pairs,
            out_ptr=wide,
            DEPTH=depth,
            BK=depth_at_once(depth),
            ROWS_AT_ONCE=at_once,
            num_warps=4,
        )
        return wide

    def _tiled(self, matrix: Tensor, rows: int, cols: int) -> Tensor | TensorDescriptor:
        """A matrix as the kernel's loads want it."""
        if not self.tma:
            return matrix
        return TensorDescriptor.from_tensor(matrix, [rows, cols])


def _wide_products(config: ModelConfig, device: torch.device) -> PrefillProducts | None:
    """None where the device, its software or the model cannot have them: Triton's do the same."""
    if torch.cuda.get_device_capability(device)[0] != 9:
        return None
    try:
        from pythia_bento.model.kernels.gpu import prefill_product
        from pythia_bento.model.kernels.gpu.cuda import prefill_constants

        if prefill_constants.fits(config):
            return prefill_product.PrefillProducts(config, device)
    except (ImportError, OSError, RuntimeError) as error:
        logger.warning("products of prompts without wgmma kernels: %s", error)
    return None
