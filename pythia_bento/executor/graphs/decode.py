"""Decode steps as captured CUDA graphs: one a batch size, tokens fed back on the device."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pythia_bento.executor.graphs.staging import Staging
from pythia_bento.executor.input_batch import write_tables
from pythia_bento.executor.lookahead import Flight, Inputs, Row
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.gpu.kernels import TritonKernels, TritonKVCache
from pythia_bento.model.kernels.gpu.launch import AttentionScratch
from pythia_bento.model.kernels.gpu.packing import CHUNKS
from pythia_bento.model.kernels.gpu.tiles import splits

if TYPE_CHECKING:
    from pythia_bento.model.kernels.gpu.decode_step import DecodeStep

logger = logging.getLogger(__name__)

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BURST = 4  # steps of a replay, where so many are wanted
RING = 64  # tokens a row may produce before the host reads them; a power of two


class CapturedDecode:
    """Graphs for every bucket up to the one that holds ``max_batch`` rows.

    All graphs share their buffers and one memory pool; the largest is captured first, so that the
    smaller ones fit into what it left. Nothing is allocated and the host is not asked for anything
    between ``start`` and ``Flight.tokens``.
    """

    def __init__(
        self,
        model: GPTNeoX,
        cache: TritonKVCache,
        num_tokens: int,
        max_batch: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        kernels = model.kernels
        assert isinstance(kernels, TritonKernels)
        started = time.perf_counter()
        self._kernels, self._model, self._cache = kernels, model, cache
        self._num_tokens = num_tokens
        buckets = [b for b in BUCKETS if b < max_batch]
        buckets.append(next((b for b in BUCKETS if b >= max_batch), max_batch))
        self.buffers = Buffers(model, buckets[-1])
        self.persistent = _persistent(model, cache, max_batch)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._bursts: dict[int, torch.cuda.CUDAGraph] = {}  # the same of BURST steps
        pool = torch.cuda.graph_pool_handle()
        for done, bucket in enumerate(reversed(buckets), start=1):
            self._graphs[bucket] = self._capture(bucket, 1, pool)
            self._bursts[bucket] = self._capture(bucket, BURST, pool)
            if on_progress:
                on_progress(done, len(buckets))
        self.capture_seconds = time.perf_counter() - started

    @property
    def max_batch(self) -> int:
        """Most rows of a step."""
        return max(self._graphs)

    def start(self, rows: list[Row], steps: int, inputs: Inputs | None = None) -> Flight:
        """Queue ``steps`` decode steps of rows that are described anew."""
        self.buffers.upload(rows, self._bucket(len(rows)), inputs)
        room = [len(sequence.blocks) * self._kernels.block_size for sequence, _ in rows]
        return self._fly(rows, room, steps)

    def extend(self, flight: Flight, steps: int) -> Flight:
        """Queue further steps of the same rows, whose inputs are on the device already."""
        rows = [(sequence, start + flight.steps) for sequence, start in flight.rows]
        return self._fly(rows, flight.room, steps)

    def _fly(self, rows: list[Row], room: list[int], steps: int) -> Flight:
        assert 2 * steps <= RING
        bucket = self._bucket(len(rows))
        for _ in range(steps // BURST):
            self._bursts[bucket].replay()
        for _ in range(steps % BURST):
            self._graphs[bucket].replay()
        first = np.array([start + 1 for _, start in rows])
        landing = self.buffers.download(len(rows))
        wait = partial(landing.tokens, first, steps)
        return Flight(rows, room, steps, wait, self.buffers.token_ids)

    def _bucket(self, rows: int) -> int:
        return min(bucket for bucket in self._graphs if bucket >= rows)

    def logits(self, rows: int) -> Tensor:
        """fp32 [rows, V] of the last step."""
        return self.buffers.rows("logits", rows)

    def _capture(self, bucket: int, steps: int, pool: Any) -> torch.cuda.CUDAGraph:
        self.buffers.clear()
        self._step(bucket)  # compiles
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            for _ in range(steps):
                self._step(bucket)
        return graph

    def _step(self, bucket: int) -> None:
        """One token of every row, from the embedding to the next input."""
        b, launch, head = self.buffers, self._kernels.launch, self._model.head
        if self.persistent and bucket in self.persistent.batches:
            self.launch_whole(self.persistent, bucket)
        else:
            self.launch_by_layer(bucket)
        launch.head_product(head, b.flat("h", 1, bucket, -1), b.rows("logits", bucket))
        launch.choose(
            *(b.rows("logits", bucket), b.temperatures, b.seeds, b.context_lens),
            *(b.keys, b.token_ids, self._num_tokens),
            ring=b.ring,
        )

    def launch_whole(self, step: DecodeStep, bucket: int) -> None:
        """All layers in one kernel."""
        b = self.buffers
        step.launch(
            *(b.token_ids[:bucket], b.context_lens[:bucket], b.tables[:bucket]),
            *(b.rows("x", bucket), b.flat("h", 2, bucket, -1), b.rows("qkv", bucket)),
            *(b.rows("up", bucket), b.rows("attended", bucket)),
            b.flat("parts", 1 + CHUNKS, bucket, -1),
        )

    def launch_by_layer(self, bucket: int) -> None:
        """Four kernels a layer, and the same bits."""
        b, launch, model = self.buffers, self._kernels.launch, self._model
        x, h = b.rows("x", bucket), b.flat("h", 2, bucket, -1)
        qkv, up = b.rows("qkv", bucket), b.rows("up", bucket)
        parts = b.flat("parts", 1 + CHUNKS, bucket, -1)
        layers, head = model.layers, model.head
        launch.norm(layers[0].norms, x, h, table=model.table, token_ids=b.token_ids)
        for index, layer in enumerate(layers):
            launch.in_product(layer, h, qkv, up)
            self._attend(index, bucket)
            launch.out_partial(layer, b.rows("attended", bucket), up, parts)
            is_last = index + 1 == len(layers)
            norms = head.norms if is_last else layers[index + 1].norms
            launch.norm(norms, x, h[: len(norms)], parts=parts, layer=layer)

    def _attend(self, index: int, bucket: int) -> None:
        b, cache = self.buffers, self._cache
        self._kernels.launch.decode_attention(
            b.rows("qkv", bucket),
            cache.keys[index],
            cache.values[index],
            b.context_lens,
            b.tables,
            b.scratch,
            b.rows("attended", bucket),
            self._model.layers[index].qk_scale,
        )


def _persistent(model: GPTNeoX, cache: TritonKVCache, max_batch: int) -> DecodeStep | None:
    """None where the device or its software cannot have it: the same bits take longer then."""
    if torch.cuda.get_device_capability(model.kernels.device) < (9, 0):
        return None
    try:
        from pythia_bento.model.kernels.gpu.decode_step import DecodeStep

        assert isinstance(model.kernels, TritonKernels)
        parts = (model.table, model.layers, model.head)
        return DecodeStep(model.kernels, *parts, cache, max_batch)
    except (ImportError, RuntimeError) as error:
        logger.warning("decoding without the persistent kernel: %s", error)
        return None


class Landing:
    """Pinned memory that tokens are copied to, and the event that says they are there."""

    def __init__(self, rows: int) -> None:
        self.ring = torch.zeros(rows, RING, dtype=torch.int32, pin_memory=True)
        self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def tokens(self, first: np.ndarray, steps: int) -> list[list[int]]:
        """Wait; the tokens of ``steps`` positions from ``first`` on of each row."""
        self.event.synchronize()
        at = (first[:, None] + np.arange(steps)) % RING
        tokens: list[list[int]] = np.take_along_axis(self.ring.numpy()[: len(at)], at, 1).tolist()
        return tokens


class Buffers:
    """Device memory of the steps, and what the host says of every row when it describes them."""

    def __init__(self, model: GPTNeoX, rows: int) -> None:
        kernels, config = model.kernels, model.config
        assert isinstance(kernels, TritonKernels)
        device, hidden = kernels.device, config.hidden_size
        self._width = -(-config.max_positions // kernels.block_size)
        half = partial(torch.zeros, dtype=torch.float16, device=device)
        self._tensors: dict[str, Tensor] = {
            "x": torch.zeros(rows, hidden, device=device),
            "h": half(2 * rows * hidden),
            "qkv": half(rows, 3 * hidden),
            "up": half(rows, config.intermediate_size),
            "attended": half(rows, hidden),
            "parts": torch.zeros((1 + CHUNKS) * rows * hidden, device=device),
            "logits": torch.zeros(rows, config.vocab_size, device=device),
        }
        self.keys = torch.zeros(rows, kernels.launch.sample_parts, dtype=torch.int64, device=device)
        shared = max(
            (b for b in range(1, rows + 1) if splits(b * config.num_heads, 1 << 20) > 1), default=1
        )
        self.scratch = AttentionScratch(config, shared, device)
        each = ("seeds", "inputs", "entries", "context_lens", "temperatures")
        sizes = dict.fromkeys(each, rows) | {"tables": rows * self._width}
        self._staging = Staging(sizes, device)
        staged = self._staging.device
        self.seeds, self.temperatures = staged["seeds"], staged["temperatures"]
        self.context_lens = staged["context_lens"]
        self.tables = staged["tables"].view(rows, self._width)
        self.token_ids = torch.zeros(rows, dtype=torch.int32, device=device)
        self._taken = torch.zeros(rows, dtype=torch.int32, device=device)
        self.ring = torch.zeros(rows, RING, dtype=torch.int32, device=device)
        self._landings = [Landing(rows), Landing(rows)]  # one flight is read, one is under way

    def rows(self, name: str, count: int | None) -> Tensor:
        """The first ``count`` rows of a buffer; all of it without a count."""
        return self._tensors[name][:count]

    def flat(self, name: str, planes: int, count: int, width: int) -> Tensor:
        """[planes, count, H] at the start of a buffer without shape."""
        hidden = self._tensors["x"].shape[1]
        return self._tensors[name][: planes * count * hidden].view(planes, count, width)

    def clear(self) -> None:
        """No row in use."""
        self._staging.clear()
        self.token_ids.zero_()

    def upload(self, rows: list[Row], bucket: int, inputs: Inputs | None = None) -> None:
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
        self._take(inputs, count)

    def _take(self, inputs: Inputs | None, count: int) -> None:
        """Bring the inputs to their rows, from the host's or from where the device left them."""
        staged = self._staging.device
        if inputs is None:
            self.token_ids[:count].copy_(staged["inputs"][:count])
            return
        taken = self._taken[:count]
        torch.index_select(inputs.tokens, 0, staged["entries"][:count], out=taken)
        # A row that failed has -1, which is no row of the embedding; the host ends it.
        torch.clamp(taken, min=0, out=self.token_ids[:count])

    def download(self, rows: int) -> Landing:
        """Queue the copy of the tokens to the host."""
        self._landings.reverse()
        landing = self._landings[0]
        landing.ring[:rows].copy_(self.ring[:rows], non_blocking=True)
        landing.event.record()
        return landing
