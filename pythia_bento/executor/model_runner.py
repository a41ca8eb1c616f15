"""Turns scheduled chunks into one forward pass on the device and reads the answers back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.executor import Chunk, ChunkResult, EngineConfig, Results
from pythia_bento.executor.capture_memory import CaptureMemory
from pythia_bento.executor.choice import QueuedChoice
from pythia_bento.executor.input_batch import lay_out, upload, write_tables
from pythia_bento.executor.out_of_memory import is_out_of_memory
from pythia_bento.executor.prompt_scores import PromptScores
from pythia_bento.executor.taps import PassTaps
from pythia_bento.executor.verified import Verification
from pythia_bento.model.batch import ForwardBatch
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.base import PackedWeights
from pythia_bento.model.sampling_row import SamplingRow


class ModelRunner:
    """Owns the model and the KV cache on one device."""

    lookahead = 1  # steps that ``execute`` may make where a sequence has blocks for them

    def __init__(self, model: GPTNeoX, config: EngineConfig, num_tokens: int) -> None:
        """Allocate the cache. Ids below ``num_tokens`` may be chosen."""
        self.config = config
        self.block_size = model.kernels.block_size
        self.max_positions = model.config.max_positions
        self.vocab_size = model.config.vocab_size
        self.model_config = model.config
        self._memory: CaptureMemory | None = None
        self.others_next = False
        self._model = model
        self._device = model.kernels.device
        self._num_tokens = num_tokens
        self._cache = model.kernels.allocate_cache(config.num_blocks)
        self._scores = PromptScores(model, self._upload)

    @property
    def arena(self) -> np.ndarray | None:
        """See ``Executor``."""
        return self._memory.array if self._memory is not None else None

    @arena.setter
    def arena(self, array: np.ndarray | None) -> None:
        if self._memory is not None:
            self._memory.close()
        self._memory = None if array is None else CaptureMemory(array, self._device)

    def execute(self, chunks: Sequence[Chunk], *, others_wait: bool = False) -> Results:
        """See ``Executor.execute``."""
        try:
            with torch.inference_mode():
                return self._execute(chunks, others_wait)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error)[:200] or type(error).__name__
        # Only here are the failed step's tensors gone: the first error held them.
        raise MemoryError(failure)

    def _execute(self, chunks: Sequence[Chunk], others_wait: bool) -> Results:
        """One pass over all of them."""
        batch, starts = self.prepare(chunks)
        if chunks[0].sequence.taps is None:
            hidden = self._model.forward(batch, self._cache)
            return list(self._results(chunks, starts, hidden, others_wait))
        with PassTaps(chunks, starts, self._model, self._memory) as taps:
            hidden = self._model.forward(batch, self._cache, taps)
            results = self._results(chunks, starts, hidden, others_wait)
            taps.finish(hidden, results)
        return list(results)

    def _results(
        self, chunks: Sequence[Chunk], starts: Sequence[int], hidden: Tensor, others_wait: bool
    ) -> list[ChunkResult]:
        """What the hidden states of a pass say."""
        results = [ChunkResult([], []) for _ in chunks]
        scores = self._scores.queue(chunks, starts, hidden)
        sampled = [index for index, chunk in enumerate(chunks) if chunk.samples]
        if scores:
            scores.deliver(scores.of(results), later=not sampled)
        if sampled:
            ends = [starts[index + 1] for index in sampled]
            own, yielding = [chunks[index] for index in sampled], [results[i] for i in sampled]
            if self.config.speculates:
                self._verify(hidden, ends, own, yielding)
                return results
            logits = self._logits_of(hidden, [end - 1 for end in ends])
            choice = self._queue_choice(logits, own)
            choice.deliver(yielding, later=others_wait and not scores)
        return results

    def _verify(
        self,
        hidden: Tensor,
        ends: Sequence[int],
        chunks: Sequence[Chunk],
        results: Sequence[ChunkResult],
    ) -> None:
        """Choose the next tokens of chunks, of which some have drafts, and wait for them."""
        verified = Verification(chunks)
        logits = self._logits_of(hidden, verified.rows(ends))
        choice = self._choose(logits, verified.sampling_rows(), verified.limits())
        verified.deliver(choice, results)

    def activate(self, weights: PackedWeights | None, *, is_last: bool) -> None:
        """See ``Executor.activate``."""
        self._model.weights = PackedWeights(None, (), None) if weights is None else weights

    def recover(self) -> None:
        """See ``Executor.recover``."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def prepare(self, chunks: Sequence[Chunk]) -> tuple[ForwardBatch, list[int]]:
        """Lay the tokens of all chunks end to end; also the S + 1 row boundaries on the host."""
        width = max(len(chunk.sequence.blocks) for chunk in chunks)
        tables = np.zeros((len(chunks), width), dtype=np.int32)
        write_tables((chunk.sequence for chunk in chunks), tables)
        layout = lay_out(chunks, tables, self.block_size)
        batch = ForwardBatch(*map(self._upload, (*layout, tables)))
        return batch, layout.query_starts.tolist()

    def _queue_choice(self, logits: Tensor, chunks: Sequence[Chunk]) -> QueuedChoice:
        """Choose the next token of each chunk from its row of ``logits``; nobody waits for it."""
        rows = [chunk.sequence.sampling_row() for chunk in chunks]
        return self._choose(logits, rows, [chunk.sequence.params.logprobs for chunk in chunks])

    def _choose(
        self, logits: Tensor, rows: Sequence[SamplingRow], limits: Sequence[int | None]
    ) -> QueuedChoice:
        """One token a row, with log-probabilities where there is a limit of alternatives."""
        tokens = self._model.sample(logits, rows, self._num_tokens)
        wanted = [row for row, limit in enumerate(limits) if limit is not None]
        if not wanted:
            return QueuedChoice(tokens, limits)
        chosen = tokens
        if len(wanted) < len(limits):
            picked = self._upload(np.array(wanted))
            logits, chosen = logits[picked], tokens[picked]
        most = max(limit for limit in limits if limit is not None)
        return QueuedChoice(tokens, limits, self._model.logprobs(logits, chosen, most))

    def _logits_of(self, hidden: Tensor, rows: list[int]) -> Tensor:
        """fp32 [len(rows), V]: logits of some rows of hidden states."""
        if len(rows) < len(hidden):
            hidden = hidden[torch.tensor(rows, device=self._device)]
        return self._model.logits(hidden)

    def _upload(self, array: np.ndarray) -> Tensor:
        return upload(array, self._device)
