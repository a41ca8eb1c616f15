"""Matrices as kernels load them: by the copy engine where the device has one for tiles."""

from __future__ import annotations

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


def has_tma(device: torch.device) -> bool:
    """Whether tiles are loaded by descriptors; never in Triton's interpreter."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9


def tiled(matrix: Tensor, rows: int, cols: int, *, tma: bool) -> Tensor | TensorDescriptor:
    """A matrix as a kernel's loads of ``rows`` x ``cols`` want it."""
    return TensorDescriptor.from_tensor(matrix, [rows, cols]) if tma else matrix
