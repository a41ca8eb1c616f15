"""What the host tells the device before a pass: named numbers in one block, moved by one copy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

# Of the parts that are not int32, as the host and the device read them.
_FLOATS = (np.float32, torch.float32)
TYPES: dict[str, tuple[type[np.generic], torch.dtype]] = {
    "seeds": (np.uint64, torch.int64),
    "temperatures": _FLOATS,
    "top_p": (np.float64, torch.float64),
    "min_p": _FLOATS,
    "penalties": _FLOATS,
    "biases": _FLOATS,
}
ALIGNED = 64  # integers: each part starts at a multiple, as the kernels' loads like it


class Staging:
    """Arrays in pinned memory and on the device; what a pass may not need comes last."""

    def __init__(self, sizes: Mapping[str, int], device: torch.device) -> None:
        words = {name: size * _words(name) for name, size in sizes.items()}
        starts = np.cumsum([0, *(-(-size // ALIGNED) * ALIGNED for size in words.values())])
        self._pinned = torch.zeros(int(starts[-1]), dtype=torch.int32, pin_memory=True)
        self._block = torch.zeros(int(starts[-1]), dtype=torch.int32, device=device)
        self._starts = dict(zip(words, starts.tolist(), strict=False))
        self._sent = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._host, self.device = {}, {}
        for name, start in self._starts.items():
            span = slice(start, start + words[name])
            on_host, on_device = _type(name)
            self._host[name] = self._pinned.numpy()[span].view(on_host)
            self.device[name] = self._block[span].view(on_device)

    def host(self) -> dict[str, np.ndarray]:
        """The parts to write to, once the last copy no longer reads them."""
        if not self._sent.query():  # type: ignore[no-untyped-call]
            self._sent.synchronize()
        return self._host

    def send(self, last: str, count: int) -> None:
        """Queue the copy of all parts up to ``count`` integers of the part ``last``."""
        end = self._starts[last] + count
        self._block[:end].copy_(self._pinned[:end], non_blocking=True)
        self._sent.record()

    def clear(self) -> None:
        """Zeros on the device."""
        self._block.zero_()


def _type(name: str) -> tuple[type[np.generic], torch.dtype]:
    return TYPES.get(name, (np.int32, torch.int32))


def _words(name: str) -> int:
    """Of 4 bytes, that a value takes."""
    return np.dtype(_type(name)[0]).itemsize // 4
