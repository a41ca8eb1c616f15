"""The model runner on CUDA: captured graphs for decode steps, eager kernels for everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pythia_bento.engine.cuda_decode import CapturedDecode
from pythia_bento.engine.cuda_prefill import CapturedPrefill
from pythia_bento.engine.lookahead import LOOKAHEAD, Lookahead
from pythia_bento.engine.model_runner import ChunkResult, ModelRunner
from pythia_bento.engine.scheduler import Chunk
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.triton.kernels import TritonKVCache


class CudaModelRunner(ModelRunner):
    """Decodes several steps a visit where every row is greedy or sampled by temperature alone."""

    lookahead = LOOKAHEAD

    def __init__(
        self,
        model: GPTNeoX,
        num_blocks: int,
        num_tokens: int,
        max_batch: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(model, num_blocks, num_tokens)
        assert isinstance(self._cache, TritonKVCache)
        with torch.inference_mode():
            self.decode = CapturedDecode(model, self._cache, num_tokens, max_batch, on_progress)
            self.prefill = CapturedPrefill(model, self._cache, num_tokens)
        self._lookahead = Lookahead(self.decode, self._block_size)
        self._ready: Tensor | None = None  # logits that a graph has made

    @torch.inference_mode()
    def execute(self, chunks: Sequence[Chunk]) -> list[ChunkResult]:
        """See ``ModelRunner.execute``."""
        if all(_is_decode(chunk) for chunk in chunks):
            if all(chunk.sequence.is_plain for chunk in chunks):
                return self._lookahead.decode(chunks)
            self._lookahead.forget()
            self.decode.start(chunks, 1)
            return self._choose_from(self.decode.logits(len(chunks)), chunks)
        self._lookahead.forget()
        if not self.prefill.fits(chunks) or any(_is_scored(chunk) for chunk in chunks):
            return super().execute(chunks)
        done = self.prefill.run(chunks)
        if not all(chunk.sequence.is_plain for chunk in chunks if chunk.samples):
            return self._choose_from(done.rows(len(chunks)), chunks)
        tokens = done.tokens.tolist()
        return [
            ChunkResult([token] if chunk.samples else [], [], is_finite=token >= 0)
            for chunk, token in zip(chunks, tokens, strict=False)
        ]

    def recover(self) -> None:
        """See ``ModelRunner.recover``."""
        self._lookahead.forget()
        self._ready = None
        super().recover()

    def _choose_from(self, logits: Tensor, chunks: Sequence[Chunk]) -> list[ChunkResult]:
        """Sample eagerly from the logits of each chunk's last token."""
        results = [ChunkResult([], []) for _ in chunks]
        self._ready = logits
        self._choose_tokens(chunks, list(range(len(chunks) + 1)), logits, results)
        self._ready = None
        return results

    def _logits(self, hidden: Tensor, rows: list[int]) -> Tensor:
        """``hidden`` are logits already where a graph made them."""
        if hidden is not self._ready:
            return super()._logits(hidden, rows)
        return hidden if len(rows) == len(hidden) else hidden[rows]


def _is_decode(chunk: Chunk) -> bool:
    return chunk.count == 1 and chunk.samples and not _is_scored(chunk)


def _is_scored(chunk: Chunk) -> bool:
    """Whether log-probabilities of the prompt are still to come."""
    return bool(chunk.sequence.prompt_rows)
