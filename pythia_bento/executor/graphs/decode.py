"""Decode steps as captured CUDA graphs: one a batch size, tokens fed back on the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from pythia_bento.engine.executor import ChunkResult
from pythia_bento.executor.flights import Inputs, Row, StepsInFlight
from pythia_bento.executor.graphs.buffers import capture
from pythia_bento.executor.graphs.options import OptionBuffers, wanted
from pythia_bento.executor.graphs.staging import Staging
from pythia_bento.executor.graphs.step_readback import StepReadback
from pythia_bento.executor.input_batch import write_tables
from pythia_bento.model.batch import MOST_TOP, DecodeRows
from pythia_bento.model.kernels.base import Capturable, KVCache, PackedWeights

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BURST = 4  # steps of a replay, where so many are wanted
RING = 64  # tokens a row may produce before the host reads them; a power of two


class CapturedDecode:
    """Graphs for every bucket up to the one that holds ``max_batch`` rows.

    All graphs share their buffers and one memory pool; the largest is captured first, so that the
    smaller ones fit into what it left. Nothing is allocated and the host is not asked for anything
    between ``start`` and ``StepsInFlight.results``.
    """

    def __init__(
        self,
        kernels: Capturable,
        weights: PackedWeights,
        cache: KVCache,
        num_tokens: int,
        max_batch: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        started = time.perf_counter()
        self._block_size = kernels.block_size
        buckets = [b for b in BUCKETS if b < max_batch]
        buckets.append(next((b for b in BUCKETS if b >= max_batch), max_batch))
        self.buffers = Buffers(kernels, buckets[-1])
        self.steps = kernels.decode_steps(weights, cache, self.buffers.rows, num_tokens)
        self.logits = self.steps.logits  # fp32 [rows, V] of the last step
        self._buckets = buckets
        self._has_options = False  # of the rows as they were described last
        self._graphs: dict[tuple[int, int, bool], torch.cuda.CUDAGraph] = {}  # by rows, steps, kind
        self.buffers.compile()
        pool = torch.cuda.graph_pool_handle()
        for done, bucket in enumerate(reversed(buckets), start=1):
            for has_options in (True, False):
                step = partial(self.steps.step, bucket, with_options=has_options)
                for times in (1, BURST):
                    self.buffers.clear()
                    self._graphs[bucket, times, has_options] = capture(step, pool, times)
            if on_progress:
                on_progress(done, len(buckets))
        self.capture_seconds = time.perf_counter() - started

    def start(self, rows: list[Row], steps: int, inputs: Inputs | None = None) -> StepsInFlight:
        """Queue ``steps`` decode steps of rows that are described anew."""
        self._has_options = wanted(rows)
        self.buffers.upload(rows, self._bucket(len(rows)), inputs, has_options=self._has_options)
        covered = [len(sequence.blocks) * self._block_size for sequence, _ in rows]
        return self._queue(rows, covered, steps)

    def extend(self, flight: StepsInFlight, steps: int) -> StepsInFlight:
        """Queue further steps of the same rows, whose inputs are on the device already."""
        rows = [(sequence, start + flight.steps) for sequence, start in flight.rows]
        return self._queue(rows, flight.covered, steps)

    def _queue(self, rows: list[Row], covered: list[int], steps: int) -> StepsInFlight:
        assert 2 * steps <= RING
        bucket, has_options = self._bucket(len(rows)), self._has_options
        for _ in range(steps // BURST):
            self._graphs[bucket, BURST, has_options].replay()
        for _ in range(steps % BURST):
            self._graphs[bucket, 1, has_options].replay()
        read = self.buffers.download(rows, steps)
        return StepsInFlight(rows, steps, read, self.buffers.rows.token_ids, covered)

    def _bucket(self, rows: int) -> int:
        return min(bucket for bucket in self._buckets if bucket >= rows)


class Buffers:
    """The rows on the device, and what the host says of every row when it describes them."""

    def __init__(self, kernels: Capturable, rows: int) -> None:
        self._options = OptionBuffers(kernels, rows)
        device = kernels.device
        self._width = -(-kernels.config.max_positions // kernels.block_size)
        each = ("seeds", "inputs", "entries", "context_lens", "temperatures")
        sizes = dict.fromkeys(each, rows) | {"tables": rows * self._width}
        self._staging = Staging(sizes, device)
        staged = self._staging.device
        self.rows = DecodeRows(
            token_ids=torch.zeros(rows, dtype=torch.int32, device=device),
            context_lens=staged["context_lens"],
            block_tables=staged["tables"].view(rows, self._width),
            temperatures=staged["temperatures"],
            seeds=staged["seeds"],
            ring=torch.zeros(rows, RING, dtype=torch.int32, device=device),
            options=self._options.options,
            limits=self._options.limits,
            found=torch.zeros(1 + 2 * MOST_TOP, rows, RING, dtype=torch.int32, device=device),
        )
        self._taken = torch.zeros(rows, dtype=torch.int32, device=device)
        # Tokens of some steps are read while others are under way.
        self._readbacks = [StepReadback(self.rows), StepReadback(self.rows)]

    def compile(self) -> None:
        """See ``OptionBuffers``."""
        self._options.compile()

    def clear(self) -> None:
        """No row in use."""
        self._staging.clear()
        self._options.clear()
        self.rows.token_ids.zero_()

    def upload(
        self, rows: list[Row], bucket: int, inputs: Inputs | None, *, has_options: bool
    ) -> None:
        """Describe the rows; those that are left over get an empty context."""
        count, host = len(rows), self._staging.host()
        tables = host["tables"].reshape(-1, self._width)
        write_tables((sequence for sequence, _ in rows), tables)
        host["context_lens"][:count] = [start + 1 for _, start in rows]
        host["context_lens"][count:bucket] = 0
        host["temperatures"][:count] = [s.params.temperature for s, _ in rows]
        host["seeds"][:count] = [s.seed & (1 << 64) - 1 for s, _ in rows]
        if inputs:
            host["entries"][:count] = inputs.entries
        else:
            host["inputs"][:count] = [sequence.token_ids[start] for sequence, start in rows]
        self._staging.send("tables", bucket * self._width)
        if has_options:
            self._options.upload(rows, bucket)
            if inputs and inputs.tokens is self.rows.token_ids:
                self._options.keep(rows, self._staging.device["entries"][:count])
            else:
                self._options.recall(rows)
        self._take(inputs, count)

    def _take(self, inputs: Inputs | None, count: int) -> None:
        """Bring the inputs to their rows, from the host's or from where the device left them."""
        staged, token_ids = self._staging.device, self.rows.token_ids[:count]
        if inputs is None:
            token_ids.copy_(staged["inputs"][:count])
            return
        taken = self._taken[:count]
        torch.index_select(inputs.tokens, 0, staged["entries"][:count], out=taken)
        # A row that failed has -1, which is no row of the embedding; the host ends it.
        torch.clamp(taken, min=0, out=token_ids)

    def download(self, rows: list[Row], steps: int) -> Callable[[], list[ChunkResult]]:
        """Queue the copy of what the last steps found to the host; how to wait for it."""
        self._readbacks.reverse()
        return self._readbacks[0].copy(rows, steps)
