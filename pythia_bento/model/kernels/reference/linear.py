"""Two ways to multiply by an int8 weight."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pythia_bento.model.weights import Int8Linear

THRESHOLD = 6.0
"""Activation columns with a value this large are multiplied in fp16 (transformers' default)."""


class Linear(Protocol):
    """[T, in] -> [T, out], in the dtype that the kind of product works in."""

    def __init__(self, linear: Int8Linear, device: torch.device) -> None: ...

    def __call__(self, x: Tensor) -> Tensor: ...


class WeightOnly:
    """w8a16: the weight is dequantised to fp32 for each product with fp32."""

    def __init__(self, linear: Int8Linear, device: torch.device) -> None:
        self._weight = linear.weight.to(device, copy=True)
        self._scale = linear.scb.to(device, torch.float32)[:, None] / 127
        self._bias = linear.bias.to(device, torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight.float() * self._scale, self._bias)


class LLMInt8:
    """bitsandbytes' LLM.int8: activations are quantised too, by row, outlier columns apart.

    Which columns are outliers depends on all rows, so a row's result depends on its neighbours.
    ``Linear8bitLt`` keeps a state that its forward changes; here each call has its own, so threads
    may share the weights. The input must be fp16: bitsandbytes logs a warning at every other one.
    """

    def __init__(self, linear: Int8Linear, device: torch.device) -> None:
        self._weight = linear.weight.to(device, copy=True)
        self._scb = linear.scb.to(device, torch.float32, copy=True)
        self._bias = linear.bias.to(device, torch.float16, copy=True)

    def __call__(self, x: Tensor) -> Tensor:
        from bitsandbytes import MatmulLtState, matmul  # type: ignore[attr-defined]

        state = MatmulLtState()
        state.CB, state.SCB, state.threshold = self._weight, self._scb, THRESHOLD
        state.has_fp16_weights = state.is_training = False
        with torch.no_grad():
            y: Tensor = matmul(x, self._weight, bias=self._bias, state=state)
        return y
