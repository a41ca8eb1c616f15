"""Log-probabilities of prompts: all rows of a pass on the device, then one copy to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.engine.logprobs import HEAD, PromptLogprobs
from pythia_bento.model.gpt_neox import GPTNeoX

# Rows of logits at a time: with them a pass of scores takes less memory than log-probabilities of
# 64 rows did with their alternatives sorted, and reads the head's weights seldom enough.
ROWS_AT_ONCE = {"cuda": 512}
FEW_ROWS = 64  # elsewhere

Upload = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True, slots=True)
class _Span:
    """Rows of hidden states, one after the other, whose next tokens are to be scored."""

    chunk: int
    first: int  # row of the hidden states
    targets: np.ndarray  # int32, the next token of each
    num_top: int

    @property
    def rows(self) -> np.ndarray:
        return np.arange(self.first, self.first + len(self.targets), dtype=np.int32)


class PromptScores:
    """Scores whatever rows of a pass somebody asked for."""

    def __init__(self, model: GPTNeoX, upload: Upload) -> None:
        self._model, self._upload = model, upload
        self._rows_at_once = ROWS_AT_ONCE.get(model.kernels.device.type, FEW_ROWS)

    def add_to(
        self,
        results: Sequence[ChunkResult],
        chunks: Sequence[Chunk],
        starts: Sequence[int],
        hidden: Tensor,
    ) -> None:
        """Put the log-probabilities of each chunk's prompt tokens into its result.

        ``starts`` are the chunks' first rows of ``hidden``.
        """
        spans = [
            span
            for index, chunk in enumerate(chunks)
            if (span := _span(index, chunk, starts[index])) is not None
        ]
        if not spans:
            return
        found = self._columns(spans, hidden)
        is_sound = np.isfinite(found.values)
        begin = 0
        for span in spans:
            part = slice(begin, begin := begin + len(span.targets))
            own = found[part].limited(span.num_top)
            # A copy, as the columns of the whole pass would live as long as one of its prompts.
            results[span.chunk].prompt_logprobs = PromptLogprobs(own.columns.copy())
            results[span.chunk].is_finite &= bool(is_sound[part].all())

    def _columns(self, spans: Sequence[_Span], hidden: Tensor) -> PromptLogprobs:
        """All rows of all spans, computed a slice at a time without a wait between them."""
        num_top = max(span.num_top for span in spans)
        rows = np.concatenate([span.rows for span in spans])
        targets = np.concatenate([span.targets for span in spans])
        asked = self._upload(np.stack([rows, targets]))
        columns = torch.empty(
            HEAD + 2 * num_top, len(rows), dtype=torch.int32, device=hidden.device
        )
        columns[0] = asked[1]
        for begin in range(0, len(rows), self._rows_at_once):
            part = slice(begin, begin + self._rows_at_once)
            self._score(hidden, asked[:, part], columns[:, part])
        return PromptLogprobs(columns.cpu().numpy())

    def _score(self, hidden: Tensor, asked: Tensor, columns: Tensor) -> None:
        """Fill some of the columns; the logits are gone when it returns."""
        logits = self._model.logits(hidden.index_select(0, asked[0]))
        num_top = (len(columns) - HEAD) // 2
        found = self._model.logprobs(logits, asked[1], num_top)
        columns[1] = found.chosen.view(torch.int32)
        columns[2] = found.ranks
        if num_top:
            columns[HEAD : HEAD + num_top] = found.top_ids.T
            columns[HEAD + num_top :] = found.top.view(torch.int32).T


def _span(index: int, chunk: Chunk, first_row: int) -> _Span | None:
    """The rows of a chunk that are still to be scored; None where there are none."""
    sequence = chunk.sequence
    wanted, num_top = sequence.prompt_rows, sequence.params.prompt_logprobs
    if num_top is None or not wanted:
        return None
    start, end = max(wanted.start, chunk.start), min(wanted.stop, chunk.start + chunk.count)
    if start >= end:
        return None
    targets = sequence.token_ids[start + 1 : end + 1]
    return _Span(index, first_row + start - chunk.start, targets, num_top)
