"""A step on a device that runs out of memory: the oldest sequences first, the others later."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pythia_bento.engine.executor import Chunk, Executor, Results

logger = logging.getLogger(__name__)


def execute_what_fits(
    executor: Executor, chunks: Sequence[Chunk]
) -> tuple[Sequence[Chunk], Results]:
    """Compute ``chunks``, or those of the oldest sequences; no results when not even a token fits.

    A step that failed is safe to repeat: it wrote to the blocks of its own sequences what the
    next attempt writes again, and sampling depends on the position alone. Chunks that are left
    out come again with the next step.
    """
    while True:
        try:
            return chunks, executor.execute(chunks)
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


def _half(chunks: Sequence[Chunk]) -> list[Chunk]:
    oldest = sorted(chunks, key=lambda chunk: chunk.sequence.order)
    if len(oldest) > 1:
        return oldest[: len(oldest) // 2]
    [chunk] = oldest
    return [Chunk(chunk.sequence, chunk.start, chunk.count // 2)]
