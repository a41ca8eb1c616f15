"""Rows of a pass from which tokens are chosen, where chunks may have drafts: one, or some more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.executor.queued_results import QueuedResults
from pythia_bento.model.sampling_row import SamplingRow


class Verification:
    """Of chunks that sample: the row of the last known token, and those of what is drafted."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._ends = list(accumulate(1 + chunk.drafted for chunk in chunks))

    def rows(self, ends: Sequence[int]) -> list[int]:
        """Rows of the pass, of whose chunks these are the ends."""
        pairs = zip(self._chunks, ends, strict=True)
        return [row for chunk, end in pairs for row in range(end - 1 - chunk.drafted, end)]

    def sampling_rows(self) -> list[SamplingRow]:
        """How each row's token is chosen: as if what is drafted before it was known."""
        return [
            chunk.sequence.sampling_row(drafted)
            for chunk in self._chunks
            for drafted in range(1 + chunk.drafted)
        ]

    def limits(self) -> list[int | None]:
        """Alternatives that each row asks for."""
        return [c.sequence.params.logprobs for c in self._chunks for _ in range(1 + c.drafted)]

    def deliver(self, choice: QueuedResults, results: Sequence[ChunkResult]) -> None:
        """Wait for the choice; what holds of it goes into the chunks' results."""
        found = [ChunkResult([], []) for _ in range(self._ends[-1])]
        choice.put_into(found)
        for chunk, end, result in zip(self._chunks, self._ends, results, strict=True):
            _join(found[end - 1 - chunk.drafted : end], _drafted(chunk), result)


def _drafted(chunk: Chunk) -> list[int]:
    sequence = chunk.sequence
    known = sequence.num_tokens
    return [int(token) for token in sequence.token_ids[known : known + chunk.drafted]]


def _join(rows: Sequence[ChunkResult], drafted: Sequence[int], result: ChunkResult) -> None:
    """Tokens up to the first that is not what was drafted behind it.

    A row that is not finite comes again alone, and fails then: tokens before it are the answer's.
    """
    for place, row in enumerate(rows):
        if place and not row.is_finite:
            return
        result.token_ids += row.token_ids
        result.logprobs += row.logprobs
        result.is_finite &= row.is_finite
        if not row.is_finite or row.token_ids != [*drafted[place : place + 1]]:
            return
