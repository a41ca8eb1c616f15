"""Copies of tensors to the host that nobody waits for until their values are needed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Download:
    """Of tensors on one device, as they are when the work queued so far is done."""

    def __init__(self, *tensors: Tensor) -> None:
        self._host: list[Tensor] = list(tensors)
        self._event: torch.cuda.Event | None = None
        if tensors[0].is_cuda:
            self._host = [_pinned(tensor) for tensor in tensors]
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    @property
    def is_pending(self) -> bool:
        """Whether there is a device to wait for."""
        return self._event is not None

    def wait(self) -> list[np.ndarray]:
        """Their values."""
        if self._event is not None:
            self._event.synchronize()
        return [tensor.numpy() for tensor in self._host]


def _pinned(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
