"""Memory of the CPU backend: the KV cache, and room for packed weights."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from pythia_bento.model.config import ModelConfig
from pythia_bento.model.kernels.cpu.library import BLOCK, CCache, address

HUGE = 1 << 21  # bytes in a huge page
MADV_HUGEPAGE = 14


class CpuKVCache:
    """fp32 keys and values of all layers; layouts in ``src/attention.h``.

    fp16 would halve the memory, but its rounding would be by far the largest error of the backend.
    """

    def __init__(self, config: ModelConfig, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        # Not cleared: the operating system maps pages as they are first written.
        layers, size = config.num_layers, num_blocks * config.hidden_size * BLOCK
        self.keys = torch.empty(layers, size)
        self.values = torch.empty(layers, size)
        self.nbytes = self.keys.nbytes + self.values.nbytes
        self.layers = [
            CCache(address(self.keys[i]), address(self.values[i]), num_blocks)
            for i in range(layers)
        ]


def room_for(size: int) -> Tensor:
    """Uninitialised bytes on huge pages where the system grants them: fewer TLB misses."""
    if size < 2 * HUGE or not hasattr(libc := ctypes.CDLL(None), "madvise"):
        return torch.empty(size, dtype=torch.uint8)
    space = torch.empty(size + HUGE, dtype=torch.uint8)
    start = -space.data_ptr() % HUGE
    place, length = space.data_ptr() + start, size // HUGE * HUGE
    libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(length), MADV_HUGEPAGE)
    return space[start : start + size]
