"""Forward passes with prompts as captured graphs, whose kernels the host need not launch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pythia_bento.engine.executor import Chunk
from pythia_bento.executor.flights import Inputs
from pythia_bento.executor.graphs.active import ActiveWeights
from pythia_bento.executor.graphs.buffers import TokenReadback, capture
from pythia_bento.executor.graphs.staging import Staging
from pythia_bento.executor.graphs.stretches import CapturedStretches
from pythia_bento.executor.input_batch import fill
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.kernels.base import Capturable, KVCache
from pythia_bento.model.taps import Taps

# Buckets of tokens. Even longer passes keep the device busy without a graph.
TOKENS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
MOST_AT_START = 2048  # tokens of graphs that are captured before somebody wants them
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
        kernels: Capturable,
        active: ActiveWeights,
        cache: KVCache,
        num_tokens: int,
        max_batch: int,
        max_tokens: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        started = time.perf_counter()
        self._tokens, self._sequences = buckets(max_batch, max_tokens)
        most = self._sequences[-1], self._tokens[-1]
        self._buffers = Buffers(kernels, *most)
        self._passes = kernels.prompt_passes(active.weights, cache, *most, num_tokens)
        self.hidden = self._passes.hidden  # of the last pass
        # Tokens of one pass are read while the next is under way.
        self._readbacks = [TokenReadback(self._sequences[-1], active=active) for _ in range(2)]
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._choices: dict[int, torch.cuda.CUDAGraph] = {}
        pool = torch.cuda.graph_pool_handle()
        self._stretches = CapturedStretches(pool)
        for sequences in reversed(self._sequences):
            self._buffers.clear()
            self._choices[sequences] = capture(partial(self._choose, sequences), pool)
        usual = [tokens for tokens in self._tokens if tokens <= MOST_AT_START]
        shapes = [(s, t) for s in self._sequences for t in usual]
        for done, shape in enumerate(reversed(shapes), start=1):
            self._buffers.clear()
            self._graphs[shape] = capture(partial(self._compute, *shape), pool)
            if on_progress:
                on_progress(done, len(shapes))
        self.capture_seconds = time.perf_counter() - started

    def fits(self, chunks: Sequence[Chunk]) -> bool:
        """Whether a graph can compute the chunks."""
        count = sum(chunk.count for chunk in chunks)
        return len(chunks) <= self._sequences[-1] and count <= self._tokens[-1]

    def run(self, chunks: Sequence[Chunk], inputs: Inputs | None = None) -> Pass:
        """Queue a pass, and its tokens where it has any; its results stay until the next.

        With ``inputs`` the first chunks are single tokens, which the device has.
        """
        sequences, tokens, count = self._sizes(chunks)
        has_tokens = inputs is not None or _sample(chunks)
        self._buffers.upload(chunks, sequences, tokens, inputs, has_tokens=has_tokens)
        if graph := self._graphs.get((sequences, tokens)):
            graph.replay()
        else:
            whole = partial(self._compute, sequences, tokens)
            self._stretches.run((sequences, tokens), whole)
        return self._choose_of(chunks, sequences, count, has_tokens=has_tokens)

    def run_tapped(self, chunks: Sequence[Chunk], taps: Taps) -> Pass:
        """The same with taps, which are called while it is queued."""
        sequences, tokens, count = self._sizes(chunks)
        has_tokens = _sample(chunks)
        self._buffers.upload(chunks, sequences, tokens, None, has_tokens=has_tokens)
        batch = self._buffers.batch(sequences, tokens)
        width = max(len(chunk.sequence.blocks) for chunk in chunks)
        through = self._passes.tapped(batch, count, width, taps)
        through(lambda key, launches: self._stretches.run((sequences, tokens, key), launches))
        return self._choose_of(chunks, sequences, count, has_tokens=has_tokens)

    def _choose_of(
        self, chunks: Sequence[Chunk], sequences: int, count: int, *, has_tokens: bool
    ) -> Pass:
        """Queue the choice of tokens behind a pass, where it has any."""
        if has_tokens:
            self._choices[sequences].replay()
        return self._results(count, len(chunks), has_tokens=has_tokens)

    def _sizes(self, chunks: Sequence[Chunk]) -> tuple[int, int, int]:
        """Sequences and tokens of the smallest graph that fits, and the tokens of the chunks."""
        count = sum(chunk.count for chunk in chunks)
        sequences = next(s for s in self._sequences if s >= len(chunks))
        return sequences, next(t for t in self._tokens if t >= count), count

    def _compute(self, sequences: int, tokens: int) -> None:
        self._passes.run(self._buffers.batch(sequences, tokens))

    def _choose(self, sequences: int) -> None:
        names = ("context_lens", "last_rows", "temperatures", "seeds")
        self._passes.choose(*(self._buffers.part(name, sequences) for name in names))

    def _results(self, tokens: int, sequences: int, *, has_tokens: bool) -> Pass:
        """Of the pass that was queued last; its tokens are on their way to the host."""
        passes, wait = self._passes, _nothing
        if has_tokens or self._readbacks[0].proves:
            self._readbacks.reverse()
            readback = self._readbacks[0]
            readback.copy(passes.tokens, len(passes.tokens))
            wait = partial(_tokens_of, readback, sequences)
        found = passes.hidden[:tokens], passes.logits[:sequences], passes.tokens[:sequences]
        return Pass(*found, wait)


def _sample(chunks: Sequence[Chunk]) -> bool:
    """Whether one of them yields a token."""
    return any(chunk.samples for chunk in chunks)


def _tokens_of(readback: TokenReadback, sequences: int) -> list[int]:
    tokens: list[int] = readback.wait()[:sequences].tolist()
    return tokens


def _nothing() -> list[int]:
    """Of a pass without tokens, whose weights nobody asks to be proved."""
    return []


def buckets(max_batch: int, max_tokens: int) -> tuple[list[int], list[int]]:
    """(tokens, sequences) of the graphs, by rising number."""
    fewer = [tokens for tokens in TOKENS if tokens < max_tokens]
    tokens = fewer + [tokens for tokens in TOKENS if tokens >= max_tokens][:1]
    return tokens, [*(s for s in SEQUENCES if s < max_batch), max_batch]


class Buffers:
    """Inputs of the graphs, each of which takes the beginning of every part."""

    def __init__(self, kernels: Capturable, sequences: int, tokens: int) -> None:
        self._block_size = kernels.block_size
        self._width = -(-kernels.config.max_positions // kernels.block_size)
        sizes = {
            "seeds": sequences,
            "query_starts": sequences + 1,
            "entries": sequences,
            "context_lens": sequences,
            "last_rows": sequences,
            "temperatures": sequences,
            "token_ids": tokens,
            "positions": tokens,
            "slots": tokens,
            "tables": sequences * self._width,
        }
        self._staging = Staging(sizes, kernels.device)

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

    def upload(
        self,
        chunks: Sequence[Chunk],
        sequences: int,
        tokens: int,
        inputs: Inputs | None,
        *,
        has_tokens: bool,
    ) -> None:
        """Lay the chunks end to end; what is left over is padding that writes nothing."""
        host = self._staging.host()
        fill(host, chunks, self._block_size, sequences, tokens, has_tokens=has_tokens)
        count = len(inputs.entries) if inputs else 0
        if inputs:
            host["entries"][:count] = inputs.entries
        self._staging.send("tables", sequences * self._width)
        if inputs and count:
            taken = torch.index_select(inputs.tokens, 0, self.part("entries", count))
            # A row that failed has -1, which is no row of the embedding; the host ends it.
            torch.clamp(taken, min=0, out=self.part("token_ids", count))
