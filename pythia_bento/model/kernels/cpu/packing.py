"""Weights as ``src/matmul.h`` reads them: int8 in panels of channels."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pythia_bento.model.kernels.cpu.library import PANEL, CHead, CLayer, CLinear, CNorm, address
from pythia_bento.model.kernels.cpu.memory import room_for
from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights, Norm

RANGE = 32639.0  # largest 15-bit value, as in src/matmul.h


class Loaded(NamedTuple):
    """A C struct and the tensors it points into, which must outlive it."""

    struct: Any
    tensors: list[Tensor]


class Packer:
    """Packs with the threads of one ``pythia_open``."""

    def __init__(self, library: ctypes.CDLL, state: Any) -> None:
        self._library, self._state = library, state

    def layer(self, layer: LayerWeights) -> Loaded:
        """The four linears of a block."""
        linears = (layer.qkv, layer.up, layer.dense, layer.down)  # in the order of their use
        sizes = [_panels(len(linear.weight)) * PANEL * linear.weight.shape[1] for linear in linears]
        packed = room_for(sum(sizes))
        keep = [packed]
        qkv, up, dense, down = (
            self._linear(linear, space, keep)
            for linear, space in zip(linears, torch.split(packed, sizes), strict=True)
        )
        norms = (layer.input_norm, layer.post_attention_norm)
        return Loaded(CLayer(*(_norm(n, keep) for n in norms), qkv, dense, up, down), keep)

    def head(self, head: HeadWeights) -> Loaded:
        """The fp16 head as 15-bit integers by row, high and low bytes in separate panels."""
        keep: list[Tensor] = []
        out, depth = head.weight.shape
        panels = _panels(out)
        packed = room_for(panels * 2 * PANEL * depth)
        scale = torch.zeros(panels * PANEL)
        step = 8  # panels at a time: the temporaries are several times as large as the weights
        for first in range(0, panels, step):
            rows = head.weight[first * PANEL : (first + step) * PANEL].float()
            largest = rows.abs().amax(1)
            q = (rows * (RANGE / largest.clamp_min(1e-30))[:, None]).round().to(torch.int32)
            scale[first * PANEL : first * PANEL + len(rows)] = largest / RANGE
            high = (q + 128) >> 8
            start = packed[first * 2 * PANEL * depth :]
            self._pack(high.to(torch.int8), start, 2)
            self._pack((q - (high << 8)).to(torch.int8), start[PANEL * depth :], 2)
        keep += [packed, scale]
        norm = _norm(head.norm, keep)
        return Loaded(CHead(norm, address(packed), address(scale), out, depth), keep)

    def _pack(self, weight: Tensor, to: Tensor, every: int = 1) -> None:
        weight = weight.contiguous()
        out, depth = weight.shape
        stride = every * PANEL * depth
        self._library.pythia_pack(self._state, address(weight), out, depth, stride, address(to))

    def _linear(self, linear: Int8Linear, packed: Tensor, keep: list[Tensor]) -> CLinear:
        out, depth = linear.weight.shape
        self._pack(linear.weight, packed)
        padded = _panels(out) * PANEL
        scale, bias = torch.zeros(padded), torch.zeros(padded)
        scale[:out] = linear.scb.float() / 127
        bias[:out] = linear.bias.float()
        keep += [scale, bias]
        return CLinear(address(packed), address(scale), address(bias), out, depth)


def _norm(norm: Norm, keep: list[Tensor]) -> CNorm:
    weight = norm.weight.to(torch.float32, copy=True)
    bias = norm.bias.to(torch.float32, copy=True)
    keep += [weight, bias]
    return CNorm(address(weight), address(bias))


def _panels(out: int) -> int:
    return -(-out // PANEL)
