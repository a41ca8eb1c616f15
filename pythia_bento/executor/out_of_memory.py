"""A step on a device that runs out of memory: the oldest sequences first, the others later."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from pythia_bento.engine.scheduler import Chunk
from pythia_bento.executor.model_runner import ModelRunner, Results

logger = logging.getLogger(__name__)

# What torch's allocators write in a plain RuntimeError.
WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def execute_what_fits(
    runner: ModelRunner, chunks: Sequence[Chunk]
) -> tuple[Sequence[Chunk], Results]:
    """Compute ``chunks``, or those of the oldest sequences; no results when not even a token fits.

    A step that failed is safe to repeat: it wrote to the blocks of its own sequences what the
    next attempt writes again, and sampling depends on the position alone. Chunks that are left
    out come again with the next step.
    """
    while True:
        failure = _attempt(runner, chunks)
        if isinstance(failure, list):
            return chunks, failure
        # Only here are the failed step's tensors gone: the exception held them.
        runner.recover()
        tokens = sum(chunk.count for chunk in chunks)
        logger.warning(
            "the device has no memory for a step of %d sequences and %d tokens (%s)",
            *(len(chunks), tokens, failure),
        )
        if tokens == 1:
            return chunks, []
        chunks = _half(chunks)


def _attempt(runner: ModelRunner, chunks: Sequence[Chunk]) -> Results | str:
    """The results, or what the allocator said."""
    try:
        return runner.execute(chunks)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return str(error)[:200] or type(error).__name__


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocator failed, whichever it was."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in WORDS)


def _half(chunks: Sequence[Chunk]) -> list[Chunk]:
    oldest = sorted(chunks, key=lambda chunk: chunk.sequence.order)
    if len(oldest) > 1:
        return oldest[: len(oldest) // 2]
    [chunk] = oldest
    return [Chunk(chunk.sequence, chunk.start, chunk.count // 2)]
