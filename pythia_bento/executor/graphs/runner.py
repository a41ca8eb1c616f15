"""The model runner on CUDA: captured graphs for decode steps, eager kernels for everything else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.executor import Chunk, ChunkResult, EngineConfig, Results
from pythia_bento.executor.graphs.decode import CapturedDecode
from pythia_bento.executor.graphs.prefill import CapturedPrefill
from pythia_bento.executor.lookahead import LOOKAHEAD, Lookahead
from pythia_bento.executor.model_runner import ModelRunner
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.gpu.kernels import TritonKVCache

logger = logging.getLogger(__name__)


class CudaModelRunner(ModelRunner):
    """Decodes several steps a visit where every row is greedy or sampled by temperature alone."""

    lookahead = LOOKAHEAD

    def __init__(
        self,
        model: GPTNeoX,
        config: EngineConfig,
        num_tokens: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Capture all graphs; ``on_progress(done, total)`` reports hundredths."""
        super().__init__(model, config, num_tokens)
        cache = self._cache
        assert isinstance(cache, TritonKVCache)
        max_batch, max_tokens = config.max_batch_size, config.max_tokens_per_step
        with torch.inference_mode():
            self.decode = CapturedDecode(
                *(model, cache, num_tokens, max_batch, _share(on_progress, 0, 70))
            )
            self.prefill = CapturedPrefill(
                *(model, cache, num_tokens, max_batch, max_tokens, _share(on_progress, 70, 100))
            )
        seconds = self.decode.capture_seconds + self.prefill.capture_seconds
        logger.info("captured the graphs of decode steps and prefill passes in %.1f s", seconds)
        self.ahead = Lookahead(self.decode, self.block_size)
        self._ready: Tensor | None = None  # logits that a graph has made

    def _execute(self, chunks: Sequence[Chunk]) -> Results:
        """By graphs where they fit."""
        if self.ahead.is_under_way(chunks):
            return self.ahead.decode(chunks)
        if all(_is_decode(chunk) for chunk in chunks):
            if all(chunk.sequence.is_plain for chunk in chunks):
                return self.ahead.decode(chunks)
            self.ahead.forget()
            self.decode.start([(chunk.sequence, chunk.start) for chunk in chunks], 1)
            results = [ChunkResult([], []) for _ in chunks]
            return self._choose_from(self.decode.logits(len(chunks)), chunks, results)
        self.ahead.forget()
        if not self.prefill.fits(chunks):
            return super()._execute(chunks)
        return self._run_pass(chunks)

    def _run_pass(self, chunks: Sequence[Chunk]) -> Results:
        """A captured pass with prompts; where all is simple, the next steps are queued with it."""
        done = self.prefill.run(chunks)
        is_scored = any(_is_scored(chunk) for chunk in chunks)
        is_plain = all(chunk.sequence.is_plain for chunk in chunks if chunk.samples)
        if is_scored or not is_plain:
            results = [ChunkResult([], []) for _ in chunks]
            starts = np.cumsum([0, *(chunk.count for chunk in chunks)]).tolist()
            self._score_prompts(chunks, starts, done.hidden, results)
            return self._choose_from(done.logits, chunks, results)
        self.ahead.begin(chunks, done.tokens)
        return [
            ChunkResult([token], [], is_finite=token >= 0) if chunk.samples else ChunkResult([], [])
            for chunk, token in zip(chunks, done.wait(), strict=True)
        ]

    def recover(self) -> None:
        """See ``Executor.recover``."""
        self.ahead.forget()
        self._ready = None
        super().recover()

    def _choose_from(
        self, logits: Tensor, chunks: Sequence[Chunk], results: list[ChunkResult]
    ) -> Results:
        """Sample eagerly from the logits of each chunk's last token."""
        self._ready = logits
        self._choose_tokens(chunks, list(range(len(chunks) + 1)), logits, results)
        self._ready = None
        return list(results)

    def _logits(self, hidden: Tensor, rows: list[int]) -> Tensor:
        """``hidden`` are logits already where a graph made them."""
        if hidden is not self._ready:
            return super()._logits(hidden, rows)
        return hidden if len(rows) == len(hidden) else hidden[rows]


def _share(
    on_progress: Callable[[int, int], None] | None, begin: int, end: int
) -> Callable[[int, int], None] | None:
    """Progress of a part that takes from ``begin`` to ``end`` hundredths of the whole."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(begin + (end - begin) * done // total, 100)


def _is_decode(chunk: Chunk) -> bool:
    return chunk.count == 1 and chunk.samples and not _is_scored(chunk)


def _is_scored(chunk: Chunk) -> bool:
    """Whether log-probabilities of the prompt are still to come."""
    return bool(chunk.sequence.prompt_rows)
