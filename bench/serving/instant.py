"""The real service over a device that computes nothing, to measure what serving itself costs.

``bentoml serve bench.serving.instant:Pythia``. Scheduling, memory, look-ahead, text and transport
are the service's own; only the model's forward passes are replaced by a clock. BENCH_STEP_US is the
time of a decode step (default 0: as fast as the host can), BENCH_PROMPT_US that of a prompt token.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np

from pythia_bento.engine.capture import Capture, capture_bytes
from pythia_bento.engine.engine import Engine
from pythia_bento.engine.executor import Chunk, ChunkResult, EngineConfig, Results
from pythia_bento.engine.group import EngineGroup
from pythia_bento.engine.logprobs import HEAD, PromptLogprobs, TokenLogprob
from pythia_bento.engine.params import Request
from pythia_bento.engine.sequence import Sequence
from pythia_bento.executor.flights import Inputs, Row, StepsInFlight, tokens_found
from pythia_bento.executor.lookahead import LOOKAHEAD, Lookahead
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.runtime import loading, process
from pythia_bento.runtime.model_info import ModelInfo, Progress
from pythia_bento.settings import Settings

STEP = float(os.environ.get("BENCH_STEP_US", "0")) / 1e6
PROMPT_TOKEN = float(os.environ.get("BENCH_PROMPT_US", "0")) / 1e6


class Clock:
    """A ``lookahead.Device`` whose steps take their time, one after another."""

    def __init__(self, num_tokens: int, block_size: int) -> None:
        self._num_tokens = num_tokens
        self._block_size = block_size
        self._free_at = 0.0

    def start(self, rows: list[Row], steps: int, inputs: Inputs | None = None) -> StepsInFlight:
        covered = [len(sequence.blocks) * self._block_size for sequence, _ in rows]
        return self._queue(rows, covered, steps)

    def extend(self, flight: StepsInFlight, steps: int) -> StepsInFlight:
        rows = [(sequence, start + flight.steps) for sequence, start in flight.rows]
        return self._queue(rows, flight.covered, steps)

    def busy(self, seconds: float) -> float:
        """Queue work; when it will be done."""
        self._free_at = max(self._free_at, time.monotonic()) + seconds
        return self._free_at

    def wait(self, until: float) -> None:
        time.sleep(max(0.0, until - time.monotonic()))  # others may run, as while CUDA waits

    def token(self, sequence: Sequence, position: int) -> int:
        """Any token, the same for the same request."""
        return (sequence.seed + sequence.order[0] * 31 + position * 7) % self._num_tokens

    def _queue(self, rows: list[Row], covered: list[int], steps: int) -> StepsInFlight:
        until = self.busy(steps * STEP)

        def results() -> list[ChunkResult]:
            self.wait(until)
            return [
                tokens_found([self.token(s, start + i) for i in range(steps)]) for s, start in rows
            ]

        return StepsInFlight(rows, steps, results, None, covered)


class InstantExecutor:
    """An ``engine.executor.Executor`` that looks ahead as the one with captured graphs does."""

    lookahead = LOOKAHEAD

    def __init__(
        self,
        model: GPTNeoX,
        config: EngineConfig,
        num_tokens: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.config = config
        self.block_size = model.kernels.block_size
        self.max_positions = model.config.max_positions
        self.vocab_size = model.config.vocab_size
        self.model_config, self.others_next = model.config, False
        self.arena: np.ndarray | None = None
        self._bits = np.float32(-1.5).view(np.int32)
        self._clock = Clock(num_tokens, self.block_size)
        self.ahead = Lookahead(self._clock, self.block_size)

    def execute(self, chunks: Seq[Chunk], *, others_wait: bool = False) -> Results:
        """Steps ahead of the host, behind decode steps and behind passes with prompts."""
        are_decodes = all(chunk.count == 1 and chunk.samples for chunk in chunks)
        if (found := self.ahead.under_way(chunks)) is not None:
            return found
        if are_decodes:
            return self.ahead.decode(chunks)
        clock = self._clock
        until = clock.busy(sum(chunk.count for chunk in chunks) * PROMPT_TOKEN)
        self.ahead.begin(chunks, None)
        clock.wait(until)
        return [self._result(chunk) for chunk in chunks]

    def _result(self, chunk: Chunk) -> ChunkResult:
        """Any numbers, of the shapes that were asked for."""
        sequence, end = chunk.sequence, chunk.start + chunk.count
        result = ChunkResult([], [])
        if sequence.request.capture is not None:
            self._show(sequence.request, sequence.request.capture, end)
        if chunk.samples:
            token, num_top = self._clock.token(sequence, end), sequence.params.logprobs
            result.token_ids.append(token)
            if num_top is not None:
                result.logprobs.append(TokenLogprob(token, -1.5, ((token, -1.5),) * num_top))
        if scored := sequence.prompt_rows[: max(end - sequence.prompt_rows.start, 0)]:
            count, num_top = len(scored), sequence.params.prompt_logprobs or 0
            columns = np.full((HEAD + 2 * num_top, count), self._bits, np.int32)
            columns[0] = sequence.token_ids[scored.start + 1 : scored.stop + 1]
            columns[2] = 2  # ranks
            columns[HEAD : HEAD + num_top] = 5
            result.prompt_logprobs = PromptLogprobs(columns)
        return result

    def _show(self, request: Request, capture: Capture, end: int) -> None:
        """Any numbers, in all of the memory that there is for them."""
        if end == len(request.prompt) and self.arena is not None:
            size = capture_bytes(capture, self.model_config, request.most_inputs)
            self.arena[capture.region : capture.region + size] = 1

    def activate(self, weights: Any, *, is_last: bool) -> None:
        """All weights are alike."""
        self.ahead.forget()

    def recover(self) -> None:
        """Nothing is kept that could be given back."""
        self.ahead.forget()


def load(settings: Settings, on_progress: Progress) -> tuple[Engine | EngineGroup, ModelInfo]:
    """``load_engine``, by a name that brings this module into an engine's own process."""
    return load_engine(settings, on_progress, InstantExecutor)


load_engine = loading.load_engine
loading.load_engine = process.load_engine = load

from pythia_bento.service import Pythia  # noqa: E402

__all__ = ["Pythia"]
