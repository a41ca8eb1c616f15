"""Memory of forward passes on a GPU: activations, the KV cache, and tiles of the attention."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.gpu.packing import CHUNKS
from pythia_bento.model.kernels.gpu.tiles import WIDE_FROM, kv_tile


class TritonKVCache:
    """Keys and values, fp16 [layers, blocks, heads, block_size, head_dim] each."""

    def __init__(self, config: ModelConfig, num_blocks: int, device: torch.device) -> None:
        self.num_blocks = num_blocks
        tile = kv_tile(config.head_dim)
        shape = (config.num_layers, num_blocks, config.num_heads, tile, config.head_dim)
        self.keys = torch.empty(shape, dtype=torch.float16, device=device)
        self.values = torch.empty(shape, dtype=torch.float16, device=device)
        self.nbytes = self.keys.nbytes + self.values.nbytes


class Activations(NamedTuple):
    """What a pass over T tokens works on; H hidden, U intermediate."""

    x: Tensor  # fp32 [T, H], the residual stream
    h: Tensor  # fp16 [2, T, H]: normed for attention, normed for the MLP
    qkv: Tensor  # fp16 [T, 3 H]
    up: Tensor  # fp16 [T, U]
    attended: Tensor  # fp16 [T, H]
    parts: Tensor  # fp32 [1 + CHUNKS, T, H]; without content where T is WIDE_FROM or more


class Workspace:
    """Room for the activations of passes over up to ``rows`` tokens."""

    def __init__(self, config: ModelConfig, rows: int, device: torch.device) -> None:
        self._hidden = hidden = config.hidden_size
        half = partial(torch.empty, dtype=torch.float16, device=device)
        self._x = torch.empty(rows, hidden, device=device)
        self._h = half(2 * rows * hidden)
        self._qkv = half(rows, 3 * hidden)
        self._up = half(rows, config.intermediate_size)
        self._attended = half(rows, hidden)
        narrow = min(rows, WIDE_FROM - 1)
        self._parts = torch.empty((1 + CHUNKS) * narrow * hidden, device=device)

    def first(self, count: int) -> Activations:
        """The room of ``count`` tokens, each part contiguous."""
        narrow = count if count < WIDE_FROM else 0
        return Activations(
            x=self._x[:count],
            h=_planes(self._h, 2, count, self._hidden),
            qkv=self._qkv[:count],
            up=self._up[:count],
            attended=self._attended[:count],
            parts=_planes(self._parts, 1 + CHUNKS, narrow, self._hidden),
        )

    def fill(self, value: float) -> None:
        """Write ``value`` everywhere."""
        for part in (self._x, self._h, self._qkv, self._up, self._attended, self._parts):
            part.fill_(value)


def _planes(flat: Tensor, planes: int, rows: int, width: int) -> Tensor:
    """[planes, rows, width] at the start of a buffer without shape."""
    return flat[: planes * rows * width].view(planes, rows, width)


class AttentionScratch:
    """Room for the tiles' own results where several programs share a context."""

    def __init__(self, config: ModelConfig, rows: int, device: torch.device) -> None:
        self.max_tiles = -(-config.max_positions // kv_tile(config.head_dim))
        shape = (rows, config.num_heads, self.max_tiles)
        self.acc = torch.empty(*shape, config.head_dim, device=device)
        self.best = torch.empty(*shape, 2, device=device)
        self.tickets = torch.zeros(rows, config.num_heads, dtype=torch.int32, device=device)


def shared_bytes(device: torch.device) -> int:
    """Of a program, at most; 0 for Triton's interpreter, where it makes no difference."""
    if device.type != "cuda":
        return 0
    properties = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)  # type: ignore[attr-defined]
