"""Copies of arrays to a device that nobody waits for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """On a CPU the same memory; on a GPU it is there for what is queued from now on."""
    host = torch.from_numpy(array)
    if device.type == "cuda":  # from other memory the copy would wait for the device
        host = host.pin_memory()
    return host.to(device, non_blocking=True)
