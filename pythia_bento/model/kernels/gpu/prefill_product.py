"""Products for many tokens on sm_90: see ``prefill_in.cu`` and ``prefill_out.cu``."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu.cuda.nvrtc import Kernel, Source, build
from pythia_bento.model.kernels.gpu.cuda.prefill_constants import (
    ROWS,
    SOURCES,
    TILES,
    constants_for,
    largest_cluster,
    multiply_header,
    parts,
)
from pythia_bento.model.kernels.gpu.cuda.tensor_map import tensor_map
from pythia_bento.model.kernels.gpu.packing import TritonLayer

THREADS = 3 * 128
_TILE_COST = 24  # tokens that a tile costs besides its own


class PrefillProducts:
    """Launches both kernels, in tiles as wide as the number of tokens wants them."""

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        *,
        tiles: Mapping[str, Mapping[int, int]] = TILES,
        checked: bool = False,
    ) -> None:
        """Compile for the widths of ``tiles``; raises RuntimeError where that is impossible.

        Waits of ``checked`` kernels end in an error after two seconds.
        """
        properties = torch.cuda.get_device_properties(device)
        shared = int(properties.shared_memory_per_block_optin)  # type: ignore[attr-defined]
        self._hidden = config.hidden_size
        self._blocks = properties.multi_processor_count
        most = largest_cluster(config)
        self._clusters = {
            (name, width): min(cluster, most)
            for name, widths in tiles.items()
            for width, cluster in widths.items()
        }
        sources = [
            Source(
                SOURCES[name],
                constants_for(config, width, shared, cluster, checked=checked),
                {"multiply.cuh": multiply_header(width)},
            )
            for (name, width), cluster in self._clusters.items()
        ]
        self._kernels = {
            (name, width): Kernel(binary, name, shared)
            for (name, width), binary in zip(self._clusters, build(sources), strict=True)
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
        clusters = self._blocks // self._clusters[name, width]
        return -(-self._tiles(name, tokens, width) // clusters)

    def _tiles(self, name: str, tokens: int, width: int) -> int:
        """Tiles of each block of a cluster, in all clusters together."""
        rows = (7 if name == "prefill_in" else 1) * self._hidden // ROWS
        return -(-tokens // width) * (rows // self._clusters[name, width])

    def _launch(
        self,
        name: str,
        width: int,
        weights: Tensor,
        sources: Sequence[Tensor],
        pointers: Sequence[Tensor],
        factor: float,
    ) -> None:
        count, cluster = len(pointers[-1]), self._clusters[name, width]
        maps = [tensor_map(weights, ROWS)]
        maps += [tensor_map(source, rows) for source in sources for rows in parts(width, cluster)]
        addresses = (tensor.data_ptr() for tensor in pointers)
        data = b"".join(maps) + struct.pack("4Pif24x", *addresses, count, factor)
        parameter = ctypes.create_string_buffer(data, len(data))
        clusters = min(self._blocks // cluster, self._tiles(name, count, width))
        self._kernels[name, width].launch(clusters * cluster, THREADS, parameter)
