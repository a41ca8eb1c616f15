"""Weights as the kernels receive them: int8 linears by row, everything else fp16.

The 8-bit format is bitsandbytes' (see ``docs/numerics.md``): ``w = weight * SCB / 127`` by row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pythia_bento.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """``y = x @ (weight * scb / 127).T + bias``."""

    weight: Tensor  # int8 [out, in], row-major
    scb: Tensor  # fp32 [out], absmax of each row
    bias: Tensor  # fp16 or fp32 [out]


@dataclass(frozen=True, slots=True)
class Norm:
    """LayerNorm parameters."""

    weight: Tensor  # fp16 or fp32 [hidden]
    bias: Tensor  # fp16 or fp32 [hidden]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One block: ``x + dense(attention(qkv(ln1(x)))) + down(gelu(up(ln2(x))))``."""

    input_norm: Norm
    post_attention_norm: Norm
    qkv: Int8Linear  # [3 * hidden, hidden], rows interleaved [head][q, k, v][head_dim]
    dense: Int8Linear  # [hidden, hidden]
    up: Int8Linear  # dense_h_to_4h, [intermediate, hidden]
    down: Int8Linear  # dense_4h_to_h, [hidden, intermediate]


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """Final LayerNorm and the LM head, which stays in fp16."""

    norm: Norm
    weight: Tensor  # fp16 [vocab, hidden]


Part = Literal["embedding", "head"] | int
"""What of a model is packed at a time; a number is a layer's."""


def parts(config: ModelConfig) -> list[Part]:
    """All of a model, the largest first: their temporaries set the peak of memory."""
    return ["embedding", "head", *range(config.num_layers)]


class WeightSource(Protocol):
    """Where a model's weights come from; tensors may be dropped as soon as they were packed."""

    @property
    def config(self) -> ModelConfig: ...

    def order(self) -> Iterable[Part]:
        """All parts, each when it can be had."""
        ...

    def embedding(self) -> Tensor:
        """fp16 [vocab, hidden]."""
        ...

    def layer(self, index: int) -> LayerWeights: ...

    def head(self) -> HeadWeights: ...
