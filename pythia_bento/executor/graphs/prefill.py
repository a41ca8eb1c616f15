"""Forward passes with prompts as captured graphs, whose kernels the host need not launch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pythia_bento.engine.executor import Chunk
from pythia_bento.executor.graphs.staging import Staging
from pythia_bento.executor.input_batch import fill
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.gpu.kernels import TritonKernels, TritonKVCache

# Buckets of tokens; longer passes keep the device busy without a graph.
TOKENS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
SEQUENCES = (8, 64)  # and as many as a step may have


@dataclass(frozen=True, slots=True)
class Pass:
    """Under way. ``tokens`` (int32), ``logits`` and ``wait`` have an entry for each chunk."""

    hidden: Tensor  # fp32 [T, H], before the final norm
    logits: Tensor  # fp32 [S, V], of the last token of each chunk
    tokens: Tensor  # chosen greedily or by temperature alone; -1 where logits are not finite
    wait: Callable[[], list[int]]  # for the tokens


class CapturedPrefill:
    """Graphs for passes of many shapes, decode steps among them.

    All share their inputs, outputs and one memory pool; the largest is captured first.
    """

    def __init__(
        self,
        model: GPTNeoX,
        cache: TritonKVCache,
        num_tokens: int,
        max_batch: int,
        max_tokens: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        kernels = model.kernels
        assert isinstance(kernels, TritonKernels)
        started = time.perf_counter()
        self._model, self._kernels, self._cache = model, kernels, cache
        self._num_tokens = num_tokens
        self._tokens, self._sequences = buckets(max_batch, max_tokens)
        self._buffers = Buffers(kernels, self._sequences[-1], self._tokens[-1])
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        pool = torch.cuda.graph_pool_handle()
        shapes = [(s, t) for s in self._sequences for t in self._tokens]
        for done, shape in enumerate(reversed(shapes), start=1):
            self._graphs[shape] = self._capture(*shape, pool)
            if on_progress:
                on_progress(done, len(shapes))
        self.capture_seconds = time.perf_counter() - started

    def fits(self, chunks: Sequence[Chunk]) -> bool:
        """Whether a graph can compute the chunks."""
        count = sum(chunk.count for chunk in chunks)
        return len(chunks) <= self._sequences[-1] and count <= self._tokens[-1]

    def run(self, chunks: Sequence[Chunk]) -> Pass:
        """Queue a pass; its results stay until the next."""
        count = sum(chunk.count for chunk in chunks)
        sequences = next(s for s in self._sequences if s >= len(chunks))
        tokens = next(t for t in self._tokens if t >= count)
        self._buffers.upload(chunks, sequences, tokens)
        self._graphs[sequences, tokens].replay()
        return self._buffers.results(count, len(chunks))

    def _capture(self, sequences: int, tokens: int, pool: Any) -> torch.cuda.CUDAGraph:
        self._buffers.clear()
        self._compute(sequences, tokens)  # compiles
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            self._compute(sequences, tokens)
        return graph

    def _compute(self, sequences: int, tokens: int) -> None:
        b = self._buffers
        batch = b.batch(sequences, tokens)
        hidden = self._model.forward(batch, self._cache)
        b.hidden[:tokens].copy_(hidden)
        last = b.part("last_rows", sequences)
        logits = b.logits[:sequences]
        logits.copy_(self._model.logits(hidden.index_select(0, last)))
        temperatures, seeds = b.part("temperatures", sequences), b.part("seeds", sequences)
        self._kernels.launch.choose(
            *(logits, temperatures, seeds, batch.context_lens),
            *(b.keys, b.tokens[:sequences], self._num_tokens),
        )


def buckets(max_batch: int, max_tokens: int) -> tuple[list[int], list[int]]:
    """(tokens, sequences) of the graphs, by rising number."""
    fewer = [tokens for tokens in TOKENS if tokens < max_tokens]
    tokens = fewer + [tokens for tokens in TOKENS if tokens >= max_tokens][:1]
    return tokens, [*(s for s in SEQUENCES if s < max_batch), max_batch]


class Buffers:
    """Inputs and outputs of the graphs, each of which takes the beginning of every part."""

    def __init__(self, kernels: TritonKernels, sequences: int, tokens: int) -> None:
        config, device = kernels.config, kernels.device
        self._block_size = kernels.block_size
        self._width = -(-config.max_positions // kernels.block_size)
        sizes = {
            "seeds": sequences,
            "query_starts": sequences + 1,
            "context_lens": sequences,
            "last_rows": sequences,
            "temperatures": sequences,
            "token_ids": tokens,
            "positions": tokens,
            "slots": tokens,
            "tables": sequences * self._width,
        }
        self._staging = Staging(sizes, device)
        self.keys = torch.zeros(
            sequences, kernels.launch.sample_parts, dtype=torch.int64, device=device
        )
        self.hidden = torch.zeros(tokens, config.hidden_size, device=device)
        self.logits = torch.zeros(sequences, config.vocab_size, device=device)
        self.tokens = torch.zeros(sequences, dtype=torch.int32, device=device)
        self._landed = torch.zeros(sequences, dtype=torch.int32, pin_memory=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def part(self, name: str, count: int) -> Tensor:
        """The first ``count`` values of a part on the device."""
        return self._staging.device[name][:count]

    def batch(self, sequences: int, tokens: int) -> ForwardBatch:
        """What a graph of these sizes works on."""
        return ForwardBatch(
            token_ids=self.part("token_ids", tokens),
            positions=self.part("positions", tokens),
            slots=self.part("slots", tokens),
            query_starts=self.part("query_starts", sequences + 1),
            context_lens=self.part("context_lens", sequences),
            block_tables=self.part("tables", sequences * self._width).view(sequences, self._width),
        )

    def clear(self) -> None:
        """Padding only: nothing is written to the cache."""
        self._staging.clear()
        self._staging.device["slots"].fill_(-1)

    def upload(self, chunks: Sequence[Chunk], sequences: int, tokens: int) -> None:
        """Lay the chunks end to end; what is left over is padding that writes nothing."""
        host = self._staging.host()
        fill(host, chunks, self._block_size, sequences, tokens)
        self._staging.send("tables", sequences * self._width)

    def results(self, tokens: int, sequences: int) -> Pass:
        """Of the pass that was queued last; its tokens are on their way to the host."""
        self._landed.copy_(self.tokens, non_blocking=True)
        self._event.record()
        views = self.hidden[:tokens], self.logits[:sequences], self.tokens[:sequences]
        return Pass(*views, lambda: self._wait(sequences))

    def _wait(self, sequences: int) -> list[int]:
        self._event.synchronize()
        tokens: list[int] = self._landed[:sequences].tolist()
        return tokens
