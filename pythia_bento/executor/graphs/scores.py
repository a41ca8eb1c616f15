"""Log-probabilities of prompts as captured graphs: one a number of rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.logprobs import HEAD
from pythia_bento.executor.graphs.buffers import capture
from pythia_bento.executor.prompt_scores import Found
from pythia_bento.model.kernels.base import Capturable, PackedWeights

# Buckets of rows, as far as a step may have so many; more rows are several graphs.
ROWS = (64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
ASKED, FOUND = 2, 4  # numbers of a row that go to the device, and that come back


class CapturedScores:
    """``Slices`` of captured passes, by graphs with one place for what goes in and comes out."""

    most_top = 1

    def __init__(
        self,
        kernels: Capturable,
        weights: PackedWeights,
        hidden: Tensor,
        max_tokens: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """``hidden``, fp32 [T, H], is where the passes leave their hidden states."""
        started = time.perf_counter()
        fewer = [count for count in ROWS if count < max_tokens]
        self._buckets = fewer + [count for count in ROWS if count >= max_tokens][:1]
        self.most_rows = self._buckets[-1]
        self._rows = kernels.scored_rows(weights, hidden, self.most_rows)
        self._free: list[HostRows] = []
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        pool = torch.cuda.graph_pool_handle()
        for done, count in enumerate(reversed(self._buckets), start=1):
            self._graphs[count] = capture(partial(self._rows.run, count), pool)
            if on_progress:
                on_progress(done, len(self._buckets))
        self.capture_seconds = time.perf_counter() - started

    def score(
        self, hidden: Tensor, rows: np.ndarray, targets: np.ndarray, num_top: int
    ) -> list[Found]:
        """See ``Slices``; ``hidden`` is a beginning of where the graphs look."""
        starts = range(0, len(rows), self.most_rows)
        parts = [slice(start, start + self.most_rows) for start in starts]
        return [self._queue(rows[part], targets[part], num_top) for part in parts]

    def _queue(self, rows: np.ndarray, targets: np.ndarray, num_top: int) -> Found:
        """Of one graph; rows that are left over are computed for nobody."""
        count, places = len(rows), self._rows
        bucket = next(bucket for bucket in self._buckets if bucket >= count)
        host = self._free.pop() if self._free else HostRows(self._buckets[-1])
        host.put(rows, targets, bucket)
        asked, found = ASKED * bucket, (FOUND - 2 + 2 * num_top) * bucket
        places.asked[:asked].copy_(host.asked[:asked], non_blocking=True)
        self._graphs[bucket].replay()
        host.found[:found].copy_(places.found[:found], non_blocking=True)
        host.event.record()
        return CapturedFound(host, targets, bucket, num_top, self._free)


class HostRows:
    """Pinned memory for what goes to the device and for what comes back of one graph."""

    def __init__(self, rows: int) -> None:
        self.asked = torch.zeros(ASKED * rows, dtype=torch.int32, pin_memory=True)
        self.found = torch.zeros(FOUND * rows, dtype=torch.int32, pin_memory=True)
        self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def put(self, rows: np.ndarray, targets: np.ndarray, bucket: int) -> None:
        """What is asked, as ``ScoredRows`` has it."""
        asked, count = self.asked.numpy()[: ASKED * bucket].reshape(ASKED, bucket), len(rows)
        asked[0, :count], asked[1, :count] = rows, targets
        asked[:, count:] = 0


class CapturedFound:
    """``Found`` of one graph, in memory that others take again once it is read."""

    is_pending = True

    def __init__(
        self, host: HostRows, targets: np.ndarray, bucket: int, num_top: int, free: list[HostRows]
    ) -> None:
        self._host, self._targets, self._free = host, targets, free
        self._bucket, self._num_top = bucket, num_top

    def wait(self) -> np.ndarray:
        """See ``Found``; once only."""
        self._host.event.synchronize()
        count, kinds = len(self._targets), HEAD - 1 + 2 * self._num_top
        columns = np.empty((1 + kinds, count), np.int32)
        columns[0] = self._targets
        found = self._host.found.numpy()[: kinds * self._bucket].reshape(kinds, -1)
        columns[1:] = found[:, :count]
        self._free.append(self._host)
        return columns
