"""Launches of the products of many tokens: weights are widened to fp16 once a layer."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu import tiles
from pythia_bento.model.kernels.gpu.packing import CHUNKS, TritonLayer, depth_at_once
from pythia_bento.model.kernels.gpu.tiled import has_tma, tiled
from pythia_bento.model.kernels.gpu.triton import prefill

if TYPE_CHECKING:
    from pythia_bento.model.kernels.gpu.prefill_product import PrefillProducts

logger = logging.getLogger(__name__)


class WideLauncher:
    """Launches on the current stream for one model shape and device."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.config = config
        self.tma = has_tma(device)
        is_cuda = device.type == "cuda"  # else Triton's interpreter
        self.wide_products = _wide_products(config, device) if is_cuda else None

    def prefill_in(
        self,
        layer: TritonLayer,
        h: Tensor,
        qkv: Tensor,
        up: Tensor,
        scratch: Tensor,
        tile: tiles.Tile | None = None,
        *,
        is_wide: bool = False,
    ) -> None:
        """``in_product`` for many tokens; ``scratch`` holds the weights as fp16.

        It has them already where it ``is_wide``. With a ``tile`` by Triton's kernel, where there is
        another one.
        """
        hidden, inner, count = self.config.hidden_size, self.config.intermediate_size, len(qkv)
        rows = 3 * hidden + inner
        if not is_wide:
            self.widen_in(layer, scratch)
        wide = scratch[: rows * hidden].view(rows, hidden)
        if self.wide_products and not tile:
            self.wide_products.first(layer, wide, h, qkv, up)
            return
        tile = (tile or tiles.WIDE_IN).fit(math.gcd(3 * hidden, inner), hidden)
        prefill.prefill_in[tiles.grid(rows, count, tile)](
            w=tiled(wide, tile.rows, tile.depth, tma=self.tma),
            scale_ptr=layer.in_scale,
            bias_ptr=layer.in_bias,
            h=tiled(h.view(-1, hidden), tile.tokens, tile.depth, tma=self.tma),
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
        *,
        is_wide: bool = False,
    ) -> None:
        """x += both second products, for many tokens; ``scratch`` and ``tile`` as above."""
        hidden, inner, count = self.config.hidden_size, self.config.intermediate_size, len(x)
        depth = inner // CHUNKS
        if not is_wide:
            self.widen_out(layer, scratch)
        if self.wide_products and not tile:
            wide = scratch[: (1 + CHUNKS) * hidden * hidden].view(-1, hidden)
            self.wide_products.second(layer, wide, attended, up, x)
            return
        tile = (tile or tiles.WIDE_OUT).fit(hidden, math.gcd(hidden, depth))
        dense, downs = scratch[: hidden * hidden], scratch[hidden * hidden :]
        pieces = [(dense.view(hidden, hidden), layer.dense_scale, attended, 0)]
        for i, down in enumerate(downs[: hidden * inner].view(CHUNKS, hidden, depth)):
            pieces.append((down, layer.down_scale, up, i * depth))
        for i, (wide, scale, source, column) in enumerate(pieces):
            prefill.prefill_add[tiles.grid(hidden, count, tile)](
                w=tiled(wide, tile.rows, tile.depth, tma=self.tma),
                scale_ptr=scale,
                bias_ptr=layer.out_bias,
                a=tiled(source, tile.tokens, tile.depth, tma=self.tma),
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

    def widen_in(self, layer: TritonLayer, out: Tensor) -> None:
        """Weights of the first products as fp16 to the start of ``out``."""
        self._widen(layer.w_in, out)

    def widen_out(self, layer: TritonLayer, out: Tensor) -> None:
        """Those of the second products: dense, then the pieces of down."""
        self._widen(layer.dense, out)
        down = layer.down.view(CHUNKS * len(layer.dense), -1)
        self._widen(down, out[2 * layer.dense.numel() :])

    def _widen(self, pairs: Tensor, scratch: Tensor) -> None:
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
