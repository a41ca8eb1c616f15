"""Weights on their way to the device through page-locked memory.

A copy from other memory goes at 3 GB/s, since the driver locks and copies page by page. Two pieces
that stay locked make it several times as fast: all cores fill one while the other is being sent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PIECE = 16 << 20  # bytes


class Uploads:
    """For one thread, which may copy in any stream."""

    def __init__(self, device: torch.device, piece: int = PIECE) -> None:
        """Raises RuntimeError where no memory can be locked."""
        self._device, self._is_cuda = device, device.type == "cuda"
        self._pieces = [
            torch.empty(piece, dtype=torch.uint8, pin_memory=self._is_cuda) for _ in range(2)
        ]
        self._sent: list[torch.cuda.Event | None] = [None, None]

    @torch.inference_mode()
    def upload(self, tensor: Tensor, until: Callable[[int], None] = lambda count: None) -> Tensor:
        """A copy on the device; ``tensor`` may be forgotten at once.

        Its bytes may still be on their way: ``until`` waits for so many of them.
        """
        found = torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)
        source, target = (one.reshape(-1).view(torch.uint8) for one in (tensor, found))
        size = len(self._pieces[0])
        for start in range(0, len(source), size):
            until(min(start + size, len(source)))
            self._send(source[start : start + size], target[start : start + size])
        return found

    def _send(self, source: Tensor, target: Tensor) -> None:
        if (sent := self._sent[0]) is not None:
            sent.synchronize()
        piece = self._pieces[0][: len(source)]
        piece.copy_(source)
        target.copy_(piece, non_blocking=True)
        if self._is_cuda:
            self._sent[0] = sent = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            sent.record()
        self._pieces.reverse()
        self._sent.reverse()
