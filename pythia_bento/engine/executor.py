"""What computes an engine's steps, as the engine sees it: chunks go in, tokens come out.

This is the seam between policy, which knows no device, and arithmetic, which knows no queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pythia_bento.engine.logprobs import PromptLogprobs, TokenLogprob
from pythia_bento.engine.sequence import Sequence
from pythia_bento.engine.validate import Limits
from pythia_bento.errors import PythiaError
from pythia_bento.model.config import ModelConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes of an engine and of its executor."""

    num_blocks: int  # KV blocks, each of the backend's ``block_size`` tokens
    max_batch_size: int = 64  # sequences in a step
    max_tokens_per_step: int = 512  # tokens in a step: longer prompts are computed in pieces
    max_tokens_per_prompt_step: int | None = None
    """Tokens in a step that nobody waits for between two tokens; see ``Pace``. None: as many."""
    speculates: bool = False
    """Whether steps have drafts, which needs an executor whose bits do not depend on the batch."""

    def __post_init__(self) -> None:
        """Raise ValueError on sizes that could not make progress."""
        if self.num_blocks < 1 or self.max_batch_size < 1:
            raise ValueError("num_blocks and max_batch_size must be at least 1")
        if self.max_tokens_per_step < self.max_batch_size:
            raise ValueError(
                f"max_tokens_per_step ({self.max_tokens_per_step}) must be at least "
                f"max_batch_size ({self.max_batch_size}): every sequence needs a token a step"
            )

    @property
    def most_tokens(self) -> int:
        """Tokens in the largest step of all."""
        return max(self.max_tokens_per_step, self.max_tokens_per_prompt_step or 0)


@dataclass(slots=True)
class Chunk:
    """``count`` known tokens of a sequence from position ``start`` on, to be computed now."""

    sequence: Sequence
    start: int
    count: int
    drafted: int = 0
    """The last so many are not known but drafted; see ``Speculation``."""

    @property
    def samples(self) -> bool:
        """Whether the chunk reaches the last known token and so yields the next one."""
        sequence = self.sequence
        known = self.start + self.count - self.drafted
        return known == sequence.num_tokens and sequence.params.max_tokens > 0


@dataclass(slots=True)
class ChunkResult:
    """What a step found out about one chunk.

    ``token_ids`` is empty for a piece of a prompt. An executor that decodes several steps in one
    visit to the device returns several tokens; the engine drops those after the end. So does one
    that computed drafts: those that were chosen, and the token behind them.
    """

    token_ids: list[int]
    logprobs: list[TokenLogprob]
    prompt_logprobs: PromptLogprobs | None = None
    is_finite: bool = True
    error: PythiaError | None = None  # that ends a sequence which is not finite, if it is another
    complete: Callable[[], None] | None = None
    """Waits for the device, then fills in all above of the results that wait for it; None where
    that is done. The engine calls it once it has handed over the next step.
    """


Results = list[ChunkResult | None]


class Executor(Protocol):
    """One model and its KV cache on one device; for one thread.

    Who holds it holds the device's memory: an engine lets go of its executor when it is closed.
    """

    config: EngineConfig  # what it was made for
    block_size: int  # tokens in a KV block
    max_positions: int  # tokens in a context of the model
    vocab_size: int  # rows of the model's head; the tokenizer may have fewer tokens
    model_config: ModelConfig
    arena: np.ndarray | None  # uint8, where captures are written to; None where there are none
    others_next: bool
    """Whether the step after the one that is executed is likely of another kind, with taps or
    without: what this one finds may then come later. The engine says so before each."""
    lookahead: int  # steps that ``execute`` may make where a sequence has blocks for them

    def execute(self, chunks: Seq[Chunk], *, others_wait: bool = False) -> Results:
        """Compute the chunks; one result for each, None for those that are to come again.

        Either all of their sequences have taps or none has. When it returns what taps asked for is
        in the arena, and nothing writes there until the next call.

        Where ``others_wait`` to be admitted, or ``others_next``, results may be completed later:
        the next step is handed over meanwhile. Not of a pass that shows something or has drafts.

        Raises MemoryError where the device has no memory for them. What it wrote to the cache by
        then are those values that the next attempt writes again.
        """
        ...

    def activate(self, weights: Any, *, is_last: bool) -> None:
        """Compute with other weights of the same shape from now on.

        ``is_last`` is whether others come after the next ``execute``: nothing is then to be queued
        behind it. ``weights`` are of the kind that the executor's model was made of; with None it
        holds none, and ``execute`` is not called.
        """
        ...

    def recover(self) -> None:
        """After a MemoryError: give back what is kept for later, trust nothing that was queued."""
        ...


def bare_limits(executor: Executor, num_tokens: int) -> Limits:
    """What model and cache can do, where nobody allows less."""
    return Limits(
        num_tokens=num_tokens,
        max_positions=executor.max_positions,
        cache_tokens=executor.config.num_blocks * executor.block_size,
        config=executor.model_config,
    )


def execute_what_fits(
    executor: Executor, chunks: Seq[Chunk], *, others_wait: bool = False
) -> tuple[Seq[Chunk], Results]:
    """Compute ``chunks``, or those of the oldest sequences; no results when not even a token fits.

    A step that failed is safe to repeat: it wrote to the blocks of its own sequences what the
    next attempt writes again, and sampling depends on the position alone. Chunks that are left
    out come again with the next step.
    """
    while True:
        try:
            return chunks, executor.execute(chunks, others_wait=others_wait)
        except MemoryError as error:
            failure = str(error)
        executor.recover()
        tokens = sum(chunk.count for chunk in chunks)
        logger.warning(
            "the device has no memory for a step of %d sequences and %d tokens (%s)",
            len(chunks),
            tokens,
            failure,
        )
        if tokens == 1:
            return chunks, []
        chunks = _half(chunks)


def tokens_of(chunks: Seq[Chunk], results: Results) -> int:
    """What a step computed; it may have sampled several tokens of a sequence."""
    pairs = zip(chunks, results, strict=False)
    return sum([max(chunk.count, len(result.token_ids)) for chunk, result in pairs if result])


def _half(chunks: Seq[Chunk]) -> list[Chunk]:
    oldest = sorted(chunks, key=lambda chunk: chunk.sequence.order)
    if len(oldest) > 1:
        return oldest[: len(oldest) // 2]
    [chunk] = oldest
    if chunk.drafted:
        return [Chunk(chunk.sequence, chunk.start, chunk.count - chunk.drafted)]
    return [Chunk(chunk.sequence, chunk.start, chunk.count // 2)]
