"""Small forward passes with prompts as captured graphs: what a first token waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.scheduler import Chunk
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.triton.kernels import TritonKernels, TritonKVCache

TOKENS = (32, 64, 128, 256)  # buckets; longer passes keep the device busy without a graph
SEQUENCES = 8


class CapturedPrefill:
    """Graphs for passes of up to 256 tokens of up to 8 sequences, decode steps among them."""

    def __init__(self, model: GPTNeoX, cache: TritonKVCache, num_tokens: int) -> None:
        kernels = model.kernels
        assert isinstance(kernels, TritonKernels)
        self._model, self._kernels, self._cache = model, kernels, cache
        self._num_tokens = num_tokens
        self._width = -(-model.config.max_positions // kernels.block_size)
        self._block_size = kernels.block_size
        self._graphs: dict[int, tuple[Pass, torch.cuda.CUDAGraph]] = {}
        pool = torch.cuda.graph_pool_handle()
        for tokens in sorted(TOKENS, reverse=True):
            self._graphs[tokens] = self._capture(tokens, pool)

    def fits(self, chunks: Sequence[Chunk]) -> bool:
        """Whether a graph can compute the chunks."""
        count = sum(chunk.count for chunk in chunks)
        return len(chunks) <= SEQUENCES and count <= max(TOKENS)

    def run(self, chunks: Sequence[Chunk]) -> Pass:
        """Queue a pass; its ``logits`` and ``tokens`` have a row for each chunk."""
        count = sum(chunk.count for chunk in chunks)
        bucket = min(tokens for tokens in TOKENS if tokens >= count)
        buffers, graph = self._graphs[bucket]
        buffers.upload(chunks, self._block_size)
        graph.replay()
        return buffers

    def _capture(self, tokens: int, pool: Any) -> tuple[Pass, torch.cuda.CUDAGraph]:
        buffers = Pass(tokens, self._width, self._kernels)
        self._compute(buffers)  # compiles
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            self._compute(buffers)
        return buffers, graph

    def _compute(self, buffers: Pass) -> None:
        hidden = self._model.forward(buffers.batch, self._cache)
        logits = self._model.logits(hidden.index_select(0, buffers.last_rows))
        buffers.logits.copy_(logits)
        self._kernels.launch.choose(
            *(buffers.logits, buffers.temperatures, buffers.seeds, buffers.batch.context_lens),
            *(buffers.keys, buffers.tokens, self._num_tokens),
        )


class Pass:
    """Inputs and outputs of one graph. The host fills one block of integers for each run."""

    def __init__(self, tokens: int, width: int, kernels: TritonKernels) -> None:
        device, rows = kernels.device, SEQUENCES
        sizes = {
            "seeds": 2 * rows,
            "token_ids": tokens,
            "positions": tokens,
            "slots": tokens,
            "query_starts": rows + 1,
            "context_lens": rows,
            "last_rows": rows,
            "temperatures": rows,
            "tables": rows * width,
        }
        # Each part starts at a multiple of 64 integers, as the kernels' loads like it.
        starts = np.cumsum([0, *(-(-size // 64) * 64 for size in sizes.values())])
        self._staged = torch.zeros(int(starts[-1]), dtype=torch.int32, pin_memory=True)
        self._device_block = torch.zeros(int(starts[-1]), dtype=torch.int32, device=device)
        spans = {
            name: slice(int(start), int(start) + size)
            for (name, size), start in zip(sizes.items(), starts[:-1], strict=True)
        }
        self._host = {name: self._staged.numpy()[span] for name, span in spans.items()}
        part = {name: self._device_block[span] for name, span in spans.items()}
        self._device_block[spans["slots"]] = -1
        self.batch = ForwardBatch(
            token_ids=part["token_ids"],
            positions=part["positions"],
            slots=part["slots"],
            query_starts=part["query_starts"],
            context_lens=part["context_lens"],
            block_tables=part["tables"].view(rows, width),
        )
        self.last_rows = part["last_rows"]
        self.temperatures = part["temperatures"].view(torch.float32)
        self.seeds = part["seeds"].view(torch.int64)
        parts = kernels.launch.sample_parts
        self.keys = torch.zeros(rows, parts, dtype=torch.int64, device=device)
        self.tokens = torch.zeros(rows, dtype=torch.int32, device=device)
        self.logits = torch.zeros(rows, kernels.config.vocab_size, device=device)

    def upload(self, chunks: Sequence[Chunk], block_size: int) -> None:
        """Lay the chunks end to end; what is left over is padding that writes nothing."""
        host, row = self._host, 0
        tables = host["tables"].reshape(SEQUENCES, -1)
        host["slots"][:] = -1
        host["token_ids"][:] = host["positions"][:] = host["context_lens"][:] = 0
        host["last_rows"][:] = 0
        for index, chunk in enumerate(chunks):
            sequence, end = chunk.sequence, chunk.start + chunk.count
            rows = slice(row, row + chunk.count)
            positions = np.arange(chunk.start, end)
            host["query_starts"][index] = row
            host["token_ids"][rows] = sequence.token_ids[chunk.start : end]
            host["positions"][rows] = positions
            blocks = sequence.block_table[positions // block_size]
            host["slots"][rows] = blocks * block_size + positions % block_size
            host["context_lens"][index] = end
            tables[index, : len(sequence.blocks)] = sequence.block_table[: len(sequence.blocks)]
            host["temperatures"].view(np.float32)[index] = sequence.params.temperature
            host["seeds"].view(np.uint64)[index] = sequence.seed & (1 << 64) - 1
            row += chunk.count
            host["last_rows"][index] = row - 1
        host["query_starts"][len(chunks) :] = row
        self._device_block.copy_(self._staged, non_blocking=True)

    def rows(self, count: int) -> Tensor:
        """Logits of the last token of each chunk."""
        return self.logits[:count]
