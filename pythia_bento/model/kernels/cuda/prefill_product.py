"""Products for many tokens on sm_90: see ``prefill_in.cu`` and ``prefill_out.cu``."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cuda.prefill_source import (
    ROWS,
    SOURCES,
    WIDTHS,
    cluster_of,
    constants_for,
    multiply_header,
    parts,
)
from pythia_bento.model.kernels.cuda.program import Kernel
from pythia_bento.model.kernels.cuda.tensor_map import tensor_map
from pythia_bento.model.kernels.triton.packing import TritonLayer

THREADS = 3 * 128
_TILE_COST = 16  # tokens that a tile costs besides its own


class PrefillProducts:
    """Launches both kernels, in tiles as wide as the number of tokens wants them."""

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        *,
        widths: Mapping[str, Sequence[int]] = WIDTHS,
        cluster: int | None = None,
        checked: bool = False,
    ) -> None:
        """Compile; raises RuntimeError where that is impossible.

        Waits of ``checked`` kernels end in an error after two seconds.
        """
        properties = torch.cuda.get_device_properties(device)
        shared = int(properties.shared_memory_per_block_optin)  # type: ignore[attr-defined]
        self._hidden = config.hidden_size
        self._cluster = cluster or cluster_of(config)
        self._blocks = properties.multi_processor_count // self._cluster * self._cluster
        self._kernels = {
            (name, width): Kernel(
                SOURCES[name],
                name,
                constants_for(config, width, shared, self._cluster, checked=checked),
                shared,
                {"multiply.cuh": multiply_header(width)},
            )
            for name in SOURCES
            for width in widths[name]
        }

    def first(
        self,
        layer: TritonLayer,
        weights: Tensor,  # fp16 [7 H, H], ``layer.w_in`` widened
        h: Tensor,  # fp16 [2, T, H]
        qkv: Tensor,  # fp16 [T, 3 H]
        up: Tensor,  # fp16 [T, 4 H]
    ) -> None:
        """Both branches' first products: writes ``qkv`` and ``up``."""
        width = self.width("prefill_in", len(qkv))
        pointers = (layer.in_scale, layer.in_bias, qkv, up)
        self._launch("prefill_in", width, weights, [h[0], h[1]], pointers, layer.gelu_scale)

    def second(
        self,
        layer: TritonLayer,
        weights: Tensor,  # fp16 [5 H, H]: dense and the pieces of down, widened
        attended: Tensor,  # fp16 [T, H]
        up: Tensor,  # fp16 [T, 4 H]
        x: Tensor,  # fp32 [T, H]
    ) -> None:
        """Both second products: adds to ``x``."""
        width = self.width("prefill_out", len(x))
        pointers = (layer.dense_scale, layer.down_scale, layer.out_bias, x)
        self._launch("prefill_out", width, weights, [attended, up], pointers, 0.0)

    def width(self, name: str, tokens: int) -> int:
        """Tokens of a tile with which the busiest multiprocessor is done first."""
        widths = [width for kernel, width in self._kernels if kernel == name]
        return min(
            widths, key=lambda width: self.rounds(name, tokens, width) * (width + _TILE_COST)
        )

    def rounds(self, name: str, tokens: int, width: int) -> int:
        """Tiles of the busiest multiprocessor."""
        tiles = self._tiles(name, tokens, width) * self._cluster
        return -(-tiles // self._blocks)

    def _tiles(self, name: str, tokens: int, width: int) -> int:
        """Tiles of each block of a cluster, in all clusters together."""
        across = (7 if name == "prefill_in" else 1) * self._hidden // ROWS // self._cluster
        return -(-tokens // width) * across

    def _launch(
        self,
        name: str,
        width: int,
        weights: Tensor,
        sources: Sequence[Tensor],
        pointers: Sequence[Tensor],
        factor: float,
    ) -> None:
        count = len(pointers[-1])
        maps = [tensor_map(weights, ROWS)]
        maps += [
            tensor_map(source, rows) for source in sources for rows in parts(width, self._cluster)
        ]
        addresses = (tensor.data_ptr() for tensor in pointers)
        data = b"".join(maps) + struct.pack("4Pif24x", *addresses, count, factor)
        parameter = ctypes.create_string_buffer(data, len(data))
        blocks = min(self._blocks, self._tiles(name, count, width) * self._cluster)
        self._kernels[name, width].launch(blocks, THREADS, parameter)
