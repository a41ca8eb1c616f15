"""Log-probabilities of prompts: all rows of a pass on the device, then one copy to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.engine.logprobs import HEAD, PromptLogprobs
from pythia_bento.executor.download import Download
from pythia_bento.executor.queued_results import QueuedResults
from pythia_bento.model.gpt_neox import GPTNeoX
from pythia_bento.model.kernels.base import SCORED_ROWS

FEW_ROWS = 64  # of logits at a time where no graph computes them

Upload = Callable[[np.ndarray], Tensor]


class Slices(Protocol):
    """Scores some rows without a word to the host."""

    most_rows: int
    most_top: int

    def score(self, hidden: Tensor, asked: Tensor, columns: Tensor) -> None:
        """Fill all but the first of ``columns``, as ``PromptLogprobs`` has them, int32 [C, R].

        ``asked``, int32 [2, R], are the rows of ``hidden`` and the tokens that follow them.
        """
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """Rows of hidden states, one after the other, whose next tokens are to be scored."""

    chunk: int
    first: int  # row of the hidden states
    targets: np.ndarray  # int32, the next token of each
    num_top: int

    @property
    def rows(self) -> np.ndarray:
        """Int32, the rows."""
        return np.arange(self.first, self.first + len(self.targets), dtype=np.int32)


class PromptScores:
    """Scores whatever rows of a pass somebody asked for."""

    def __init__(self, model: GPTNeoX, upload: Upload, fast: Slices | None = None) -> None:
        """``fast`` is taken where it has alternatives enough."""
        self._upload, self._fast = upload, fast
        is_cuda = model.kernels.device.type == "cuda"
        self._slow: Slices = EagerSlices(model, SCORED_ROWS if is_cuda else FEW_ROWS)

    def queue(
        self,
        chunks: Sequence[Chunk],
        starts: Sequence[int],
        hidden: Tensor,
        prove: Callable[[], object] | None = None,
    ) -> QueuedScores | None:
        """Queue the work for all prompt tokens that are to be scored; None where none are.

        ``starts`` are the chunks' first rows of ``hidden``. ``prove`` is called once the pass is
        done, and raises where others' weights have computed it.
        """
        spans = [
            span
            for index, chunk in enumerate(chunks)
            if (span := _span(index, chunk, starts[index])) is not None
        ]
        return QueuedScores(spans, self._columns(spans, hidden), prove) if spans else None

    def _columns(self, spans: Sequence[Span], hidden: Tensor) -> Tensor:
        """All rows of all spans, a slice after the other without a wait between them."""
        num_top = max(span.num_top for span in spans)
        slices = self._fast if self._fast and num_top <= self._fast.most_top else self._slow
        rows = np.concatenate([span.rows for span in spans])
        targets = np.concatenate([span.targets for span in spans])
        asked = self._upload(np.stack([rows, targets]))
        shape = HEAD + 2 * num_top, len(rows)
        columns = torch.empty(shape, dtype=torch.int32, device=hidden.device)
        columns[0] = asked[1]
        for begin in range(0, len(rows), slices.most_rows):
            part = slice(begin, begin + slices.most_rows)
            slices.score(hidden, asked[:, part], columns[:, part])
        return columns


class QueuedScores(QueuedResults):
    """Scores of a pass, for the chunks that have a span."""

    def __init__(
        self, spans: Sequence[Span], columns: Tensor, prove: Callable[[], object] | None
    ) -> None:
        self._spans, self._prove = spans, prove
        self._download = Download(columns)

    @property
    def is_pending(self) -> bool:
        """See ``QueuedResults``."""
        return self._download.is_pending

    def of(self, results: Sequence[ChunkResult]) -> list[ChunkResult]:
        """Those, of all results of the pass, that get scores."""
        return [results[span.chunk] for span in self._spans]

    def put_into(self, results: Sequence[ChunkResult]) -> None:
        """See ``QueuedResults``: each chunk's log-probabilities."""
        [columns] = self._download.wait()
        if self._prove:
            self._prove()
        found = PromptLogprobs(columns)
        is_sound = np.isfinite(found.values)
        are_all = bool(is_sound.all())
        begin = 0
        for span, result in zip(self._spans, results, strict=True):
            part = slice(begin, begin := begin + len(span.targets))
            # A copy: the columns of the whole pass would live as long as one of its prompts.
            own = found[part].limited(span.num_top)
            result.prompt_logprobs = PromptLogprobs(own.columns.copy())
            result.is_finite &= are_all or bool(is_sound[part].all())


class EagerSlices:
    """By the model's kernels, one launched after the other."""

    def __init__(self, model: GPTNeoX, most_rows: int) -> None:
        self._model = model
        self.most_rows, self.most_top = most_rows, model.config.vocab_size

    def score(self, hidden: Tensor, asked: Tensor, columns: Tensor) -> None:
        """See ``Slices``; the logits are gone when it returns."""
        logits = self._model.logits(hidden.index_select(0, asked[0]))
        num_top = (len(columns) - HEAD) // 2
        found = self._model.logprobs(logits, asked[1], num_top)
        columns[1] = found.chosen.view(torch.int32)
        columns[2] = found.ranks
        if num_top:
            columns[HEAD : HEAD + num_top] = found.top_ids.T
            columns[HEAD + num_top :] = found.top.view(torch.int32).T


def _span(index: int, chunk: Chunk, first_row: int) -> Span | None:
    """The rows of a chunk that are still to be scored; None where there are none."""
    sequence = chunk.sequence
    wanted, num_top = sequence.prompt_rows, sequence.params.prompt_logprobs
    if num_top is None or not wanted:
        return None
    start, end = max(wanted.start, chunk.start), min(wanted.stop, chunk.start + chunk.count)
    if start >= end:
        return None
    targets = sequence.token_ids[start + 1 : end + 1]
    return Span(index, first_row + start - chunk.start, targets, num_top)
