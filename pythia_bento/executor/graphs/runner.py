"""The model runner on CUDA: captured graphs where they fit, eager kernels for everything else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from pythia_bento.engine.executor import Chunk, ChunkResult, EngineConfig, Results
from pythia_bento.executor.choice import QueuedTokens
from pythia_bento.executor.flights import Inputs
from pythia_bento.executor.graphs import options
from pythia_bento.executor.graphs.active import ActiveWeights
from pythia_bento.executor.graphs.decode import CapturedDecode
from pythia_bento.executor.graphs.prefill import CapturedPrefill, Pass
from pythia_bento.executor.graphs.scores import CapturedScores
from pythia_bento.executor.lookahead import LOOKAHEAD, Lookahead
from pythia_bento.executor.model_runner import ModelRunner
from pythia_bento.executor.prompt_scores import PromptScores
from pythia_bento.executor.taps import PassTaps
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.base import Capturable, PackedWeights
from pythia_bento.model.sampling_row import SamplingRow

logger = logging.getLogger(__name__)

Begin = Callable[[Sequence[Chunk], Tensor], None]
"""See ``Lookahead.begin``."""


class CudaModelRunner(ModelRunner):
    """Decodes several steps a visit, and passes with prompts by graphs where they fit."""

    lookahead = LOOKAHEAD

    def __init__(
        self,
        model: GPTNeoX,
        kernels: Capturable,
        config: EngineConfig,
        num_tokens: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Capture all graphs; ``on_progress(done, total)`` reports hundredths."""
        super().__init__(model, config, num_tokens)
        self._active = ActiveWeights(model)
        parts = (kernels, self._active, self._cache, num_tokens)
        max_batch, max_tokens = config.max_batch_size, config.most_tokens
        with torch.inference_mode():
            self.decode = CapturedDecode(*parts, max_batch, _share(on_progress, 0, 65))
            progress = _share(on_progress, 65, 95)
            self.prefill = CapturedPrefill(*parts, max_batch, max_tokens, progress)
            progress = _share(on_progress, 95, 100)
            scores = CapturedScores(
                kernels, self._active.weights, self.prefill.hidden, max_tokens, progress
            )
            self._compile_choice()
        self._captured_scores = PromptScores(model, self._upload, scores)
        self._has_graphs = self._active.bring(model.weights)
        seconds = sum(part.capture_seconds for part in (self.decode, self.prefill, scores))
        logger.info("captured the graphs of decode steps, passes and scores in %.1f s", seconds)
        self.ahead = Lookahead(self.decode, self.block_size, self._pass_behind)

    def activate(self, weights: PackedWeights | None, *, is_last: bool) -> None:
        """See ``Executor.activate``: the copy is queued, and nobody waits for it."""
        self.ahead.is_last = is_last
        if weights is not self._model.weights:
            self.ahead.forget()
            super().activate(weights, is_last=is_last)
            if weights is not None:  # graphs that cannot compute with them are done without
                self._has_graphs = self._active.bring(self._model.weights)

    def _compile_choice(self) -> None:
        """Choose from zeros what no graph chooses: requests do not wait for compilers."""
        logits, row = self.decode.logits[:1], SamplingRow(0, top_k=1)
        tokens = self._model.sample(logits, [row], self._num_tokens)
        for alternatives in (0, 1, 2):  # a kernel each, the last one for all more
            self._model.logprobs(logits, tokens, alternatives)

    def _execute(self, chunks: Sequence[Chunk], others_wait: bool) -> Results:
        """By graphs where they fit."""
        if not self._has_graphs:
            return super()._execute(chunks, others_wait)
        self.ahead.others_next = self.others_next
        if chunks[0].sequence.taps is not None:
            self.ahead.pass_by()
            if not self.prefill.fits(chunks):
                return super()._execute(chunks, others_wait)
            return self._run_tapped(chunks)
        if (found := self.ahead.under_way(chunks)) is not None:
            return found
        if all(_is_decode(chunk) for chunk in chunks):
            if options.fit([chunk.sequence for chunk in chunks]):
                return self.ahead.decode(chunks)
            return self._run_step(chunks)
        self.ahead.forget()
        if not self.prefill.fits(chunks):
            return super()._execute(chunks, others_wait)
        return self._run_pass(chunks, others_wait)

    def recover(self) -> None:
        """See ``Executor.recover``."""
        self.ahead.forget()
        super().recover()

    def _run_step(self, chunks: Sequence[Chunk]) -> Results:
        """A captured decode step, from whose logits tokens are chosen eagerly."""
        self.ahead.forget()
        flight = self.decode.start([(chunk.sequence, chunk.start) for chunk in chunks], 1)
        results = [ChunkResult([], []) for _ in chunks]
        self._queue_choice(self.decode.logits[: len(chunks)], chunks).put_into(results)
        flight.results()  # by temperature alone; they prove whose weights these were
        return list(results)

    def _pass_behind(
        self, chunks: list[Chunk], inputs: Inputs
    ) -> tuple[Callable[[], list[int]], Tensor] | None:
        """See ``lookahead.PassBehind``: of chunks whose tokens take temperature alone."""
        if not self.prefill.fits(chunks):
            return None
        if any(options.asked(chunk.sequence) or _is_scored(chunk) for chunk in chunks):
            return None
        done = self.prefill.run(chunks, inputs)
        return done.wait, done.tokens

    def _run_pass(self, chunks: Sequence[Chunk], others_wait: bool) -> Results:
        """A captured pass with prompts; where all is simple, the next steps are queued with it."""
        is_late = others_wait and not any(map(_is_decode, chunks))
        return list(self._found(self.prefill.run(chunks), chunks, self.ahead.begin, is_late))

    def _run_tapped(self, chunks: Sequence[Chunk]) -> Results:
        """A pass with taps, graphs between them; what is under way stays so."""
        starts = _starts(chunks)
        with PassTaps(chunks, starts, self._model, self._memory) as taps:
            done = self.prefill.run_tapped(chunks, taps)
            # Where nothing is shown there are only tokens, which the others need not wait for.
            is_late = self.others_next and not taps.shows
            results = self._found(done, chunks, None, is_late)
            taps.finish(done.hidden, results)
        if taps.shows:
            done.wait()
        return list(results)

    def _found(
        self, done: Pass, chunks: Sequence[Chunk], begin: Begin | None, is_late: bool
    ) -> list[ChunkResult]:
        """What a pass has found, after ``begin`` has queued what comes behind it."""
        results = [ChunkResult([], []) for _ in chunks]
        starts = _starts(chunks)
        scores = self._captured_scores.queue(chunks, starts, done.hidden, done.wait)
        sampled = [index for index, chunk in enumerate(chunks) if chunk.samples]
        if scores:
            scores.deliver(scores.of(results), later=not sampled)
        if not sampled:  # nobody waits for a pass without tokens
            return results
        if any(options.asked(chunks[index].sequence) for index in sampled):
            self._choose_of_pass(done, chunks, sampled, results, begin)
            return results
        choice = QueuedTokens(done.wait, sampled)
        yielding = [results[index] for index in sampled]
        is_late = is_late and not scores
        if begin and not is_late:
            begin(chunks, done.tokens)
        choice.deliver(yielding, later=is_late)
        return results

    def _choose_of_pass(
        self,
        done: Pass,
        chunks: Sequence[Chunk],
        sampled: Sequence[int],
        results: list[ChunkResult],
        begin: Begin | None,
    ) -> None:
        """Tokens by all options of their sequences, and the next steps behind them."""
        are_all = len(sampled) == len(chunks)
        logits = done.logits if are_all else done.logits[sampled]
        choice = self._queue_choice(logits, [chunks[index] for index in sampled])
        if begin and are_all and options.fit([chunk.sequence for chunk in chunks]):
            begin(chunks, choice.tokens)
        choice.put_into([results[index] for index in sampled])
        done.wait()


def _starts(chunks: Sequence[Chunk]) -> list[int]:
    """The first row of each in a pass, and the number of all."""
    return list(accumulate((chunk.count for chunk in chunks), initial=0))


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
