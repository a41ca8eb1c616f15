"""Weights as the kernels read them, with exponents that rule out overflow of fp16.

Activations travel as fp16 between kernels. A LayerNorm's output n * w + b has |n|_2 <= sqrt(H), so
by Cauchy and Schwarz every value that follows has a bound that the weights alone decide. Where the
bound passes 2^14, all values of that kind are scaled by a power of two, undone in the next scale.
With the weights of real checkpoints the exponents are 0; no input can make any of them overflow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pythia_bento.model.weights import HeadWeights, Int8Linear, LayerWeights, Norm

AT_ONCE = 128  # inputs that the kernels take at a time
SEGMENT = 16  # pairs that stay together in storage
CHUNKS = 4  # pieces of K of the MLP's second product; part of the bits
_LARGEST = 2.0**14  # leaves room for a rotation, and for rounding


@dataclass(frozen=True, slots=True)
class TritonLayer:
    """One block on the device; H hidden, U intermediate."""

    norms: Tensor  # fp32 [2, 2, H]
    w_in: Tensor  # int16 pairs [3H + U, H / 2], qkv then up
    in_scale: Tensor  # fp32 [3H + U]
    in_bias: Tensor
    dense: Tensor  # int16 pairs [H, H / 2]
    dense_scale: Tensor  # fp32 [H]
    down: Tensor  # int16 pairs [CHUNKS, H, U / CHUNKS / 2]
    down_scale: Tensor
    out_bias: Tensor
    dense_bias: Tensor  # a part of ``out_bias``, for who wants to see what attention adds
    gelu_scale: float
    qk_scale: float  # of the scores, for powers of two

    @property
    def qkv_exponent(self) -> int:
        """q, k, v and what attention makes of them are as many powers of two larger."""
        return round(math.log2(self.qk_scale) / 2)

    @property
    def up_exponent(self) -> int:
        """The same of the MLP's activations."""
        return -round(math.log2(self.gelu_scale))


@dataclass(frozen=True, slots=True)
class TritonHead:
    """Final norm fp32 [1, 2, H] and head fp16 [V, H]."""

    norms: Tensor
    weight: Tensor
    scale: float


def depth_at_once(depth: int) -> int:
    """Inputs that the kernels take at a time: part of the storage, so one for each matrix."""
    return min(AT_ONCE, depth & -depth)


def paired(weight: Tensor) -> Tensor:
    """int8 [R, K] as int16 of the same bytes: the two halves of every ``depth_at_once``, + 128.

    The pairs [R, K / 2] are stored in blocks of 16 rows and half ``depth_at_once`` pairs: inputs
    of 16 rows are then one piece of memory, and those of one row a line of it. In row r of a block
    the segments of 16 pairs change places, segment s is at s ^ (r % segments): the same segment of
    neighbouring rows is in different banks of shared memory. The result is shaped like the pairs
    all the same.
    """
    rows, depth = weight.shape
    at_once = depth_at_once(depth)
    halves = (weight.to(torch.int16) + 128).view(rows, depth // at_once, 2, at_once // 2)
    segments = at_once // 2 // SEGMENT
    pairs = (halves[:, :, 0] | (halves[:, :, 1] << 8)).view(
        rows // 16, 16, depth // at_once, segments, SEGMENT
    )
    places = torch.arange(segments, device=weight.device)
    source = places ^ (torch.arange(16, device=weight.device) % segments)[:, None]
    swapped = pairs.gather(3, source[None, :, None, :, None].expand_as(pairs))
    return swapped.transpose(1, 2).reshape(rows, depth // 2)


def pack_layer(layer: LayerWeights, device: torch.device) -> TritonLayer:
    """Move a block to ``device`` and fold all scales."""
    first, first_exponent = _norm(layer.input_norm, device)
    second, second_exponent = _norm(layer.post_attention_norm, device)
    qkv, up = _Linear(layer.qkv, device), _Linear(layer.up, device)
    dense, down = _Linear(layer.dense, device), _Linear(layer.down, device)
    qkv_exponent = _exponent(qkv.bound(layer.input_norm))
    up_exponent = _exponent(up.bound(layer.post_attention_norm))
    hidden, inner = down.weight.shape
    pieces = down.weight.view(hidden, CHUNKS, inner // CHUNKS).transpose(0, 1)
    return TritonLayer(
        norms=torch.stack([first, second]),
        w_in=torch.cat([paired(qkv.weight), paired(up.weight)]),
        in_scale=torch.cat(
            [qkv.scale * 2.0 ** (first_exponent - qkv_exponent), up.scale * 2.0**second_exponent]
        ),
        in_bias=torch.cat([qkv.bias * 2.0**-qkv_exponent, up.bias]),
        dense=paired(dense.weight),
        dense_scale=dense.scale * 2.0**qkv_exponent,
        down=torch.stack([paired(piece) for piece in pieces]),
        down_scale=down.scale * 2.0**up_exponent,
        out_bias=dense.bias + down.bias,
        dense_bias=dense.bias,
        gelu_scale=2.0**-up_exponent,
        qk_scale=4.0**qkv_exponent,
    )


def pack_head(head: HeadWeights, device: torch.device) -> TritonHead:
    """Move the final norm and the head to ``device``."""
    norm, exponent = _norm(head.norm, device)
    weight = kept(head.weight, device, torch.float16)
    return TritonHead(norm[None].contiguous(), weight, 2.0**exponent)


def kept(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """On the device, and no view of a file; what is there already has nobody else who holds it."""
    return tensor.to(device, dtype, copy=not tensor.is_cuda).contiguous()


class _Linear:
    """An int8 linear on the device, and how large its outputs can get."""

    def __init__(self, linear: Int8Linear, device: torch.device) -> None:
        self.weight = kept(linear.weight, device, torch.int8)
        self.scale = linear.scb.to(device, torch.float32) / 127
        self.bias = linear.bias.to(device, torch.float32)

    def bound(self, norm: Norm, rows: int = 4096) -> float:
        """Largest possible |y| of any row, after LayerNorm ``norm``."""
        device = self.weight.device
        w = norm.weight.to(device, torch.float32)
        b = norm.bias.to(device, torch.float32)
        largest = 0.0
        for start in range(0, len(self.weight), rows):
            part = slice(start, start + rows)
            real = self.weight[part].float() * self.scale[part, None]
            spread = (real * w).norm(dim=1) * math.sqrt(len(w))
            largest = max(largest, float((spread + (real @ b + self.bias[part]).abs()).max()))
        return largest


def _norm(norm: Norm, device: torch.device) -> tuple[Tensor, int]:
    """fp32 [2, H] scaled by 2^-exponent, and the exponent."""
    both = torch.stack([norm.weight, norm.bias]).to(device, torch.float32)
    largest = float((both[0].abs() * math.sqrt(both.shape[1]) + both[1].abs()).max())
    exponent = _exponent(largest)
    return both * 2.0**-exponent, exponent


def _exponent(bound: float) -> int:
    """How many powers of two bring ``bound`` under the largest value."""
    if not math.isfinite(bound) or bound <= _LARGEST:
        return 0
    return math.ceil(math.log2(bound / _LARGEST))
