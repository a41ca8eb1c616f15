"""Log-probabilities of prompts as captured graphs: one a number of rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pythia_bento.executor.graphs.buffers import capture
from pythia_bento.model.kernels.base import SCORED_ROWS, Capturable, PackedWeights

# Whole slices of logits, and parts of one; more rows are several graphs.
ROWS = (64, 128, 256, *(count * SCORED_ROWS for count in range(1, 5)))


class CapturedScores:
    """``Slices`` of a pass, which are copied to the graphs' own buffers and back."""

    most_rows = ROWS[-1]
    most_top = 1

    def __init__(
        self,
        kernels: Capturable,
        weights: PackedWeights,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        started = time.perf_counter()
        self._rows = kernels.scored_rows(weights, ROWS[-1])
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        pool = torch.cuda.graph_pool_handle()
        for done, count in enumerate(reversed(ROWS), start=1):
            self._graphs[count] = capture(partial(self._rows.run, count), pool)
            if on_progress:
                on_progress(done, len(ROWS))
        self.capture_seconds = time.perf_counter() - started

    def score(self, hidden: Tensor, asked: Tensor, columns: Tensor) -> None:
        """See ``Slices``; rows that are left over are computed for nobody."""
        rows, count = self._rows, asked.shape[1]
        torch.index_select(hidden, 0, asked[0], out=rows.hidden[:count])
        rows.targets[:count].copy_(asked[1])
        self._graphs[next(bucket for bucket in ROWS if bucket >= count)].replay()
        columns[1:].copy_(rows.found[: len(columns) - 1, :count])
