"""What both kinds of captured passes have: their capture, and the way of tokens to the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pythia_bento.executor.graphs.active import ActiveWeights


def capture(launches: Callable[[], None], pool: Any, times: int = 1) -> torch.cuda.CUDAGraph:
    """A graph of ``launches``, so many times; they are made once before, which compiles them."""
    launches()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # Of this thread alone: others lock memory meanwhile, which would invalidate a capture that
    # looks at what every thread does.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        for _ in range(times):
            launches()
    return graph


class TokenReadback:
    """Pinned memory that tokens are copied to, and the event that says they are there.

    With ``active`` the tag of the weights that found them comes along.
    """

    def __init__(self, *shape: int, active: ActiveWeights | None = None) -> None:
        self._host = torch.zeros(shape, dtype=torch.int32, pin_memory=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._proof = active.proof() if active else None

    @property
    def proves(self) -> bool:
        """Whether there are other weights that might have computed something."""
        return self._proof is not None

    def copy(self, tokens: Tensor, rows: int) -> None:
        """Queue the copy of the first ``rows`` of ``tokens``."""
        self._host[:rows].copy_(tokens[:rows], non_blocking=True)
        if self._proof:
            self._proof.copy()
        self._event.record()

    def wait(self) -> np.ndarray:
        """All of the memory, once the last copy is done; raises RuntimeError as ``Proof`` does."""
        self._event.synchronize()
        if self._proof:
            self._proof.check()
        return self._host.numpy()
