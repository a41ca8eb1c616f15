"""Log-probabilities of prompts: all rows of a pass on the device, then one copy to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pythia_bento.engine.executor import Chunk, ChunkResult
from pythia_bento.engine.logprobs import HEAD, PromptLogprobs
from pythia_bento.executor.download import Download
from pythia_bento.executor.queued_results import QueuedResults
from pythia_bento.model.gpt_neox import GPTNeoX

Upload = Callable[[np.ndarray], Tensor]


class Found(Protocol):
    """Scores of some rows, on their way to the host."""

    @property
    def is_pending(self) -> bool:
        """Whether there is a device to wait for."""
        ...

    def wait(self) -> np.ndarray:
        """Columns as ``PromptLogprobs`` has them, int32 [C, R]."""
        ...


class Slices(Protocol):
    """Scores rows, as many as it takes at a time, without a wait between them."""

    most_top: int

    def score(
        self, hidden: Tensor, rows: np.ndarray, targets: np.ndarray, num_top: int
    ) -> list[Found]:
        """Of some ``rows`` of hidden states and the tokens that follow them, int32 [R] each.

        ``hidden`` may be what it was made for, and no other.
        """
        ...


class Asked(NamedTuple):
    """Rows of hidden states, chunk by chunk, whose next tokens are to be scored."""

    chunks: list[int]  # numbers of those that have some
    counts: list[int]  # rows of each
    tops: list[int]  # alternatives of each
    rows: np.ndarray  # int32, of all together
    targets: np.ndarray  # int32, the next token of each row


class PromptScores:
    """Scores whatever rows of a pass somebody asked for."""

    def __init__(self, model: GPTNeoX, upload: Upload, fast: Slices | None = None) -> None:
        """``fast`` is taken where it has alternatives enough."""
        self._fast = fast
        self._slow: Slices = EagerSlices(model, upload)

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
        if (asked := _asked(chunks, starts)) is None:
            return None
        num_top = max(asked.tops)
        slices = self._fast if self._fast and num_top <= self._fast.most_top else self._slow
        found = slices.score(hidden, asked.rows, asked.targets, num_top)
        return QueuedScores(asked, found, prove)


class QueuedScores(QueuedResults):
    """Scores of a pass, for the chunks that ask for some."""

    def __init__(
        self, asked: Asked, found: Sequence[Found], prove: Callable[[], object] | None
    ) -> None:
        self._asked, self._prove, self._found = asked, prove, found

    @property
    def is_pending(self) -> bool:
        """See ``QueuedResults``."""
        return any(part.is_pending for part in self._found)

    def of(self, results: Sequence[ChunkResult]) -> list[ChunkResult]:
        """Those, of all results of the pass, that get scores."""
        return [results[chunk] for chunk in self._asked.chunks]

    def put_into(self, results: Sequence[ChunkResult]) -> None:
        """See ``QueuedResults``: each chunk's log-probabilities."""
        parts = [part.wait() for part in self._found]
        if self._prove:
            self._prove()
        columns = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        is_sound = np.isfinite(PromptLogprobs(columns).values)
        are_all, most = bool(is_sound.all()), (len(columns) - HEAD) // 2
        begin = 0
        for count, num_top, result in zip(
            self._asked.counts, self._asked.tops, results, strict=True
        ):
            end = begin + count
            # A copy: the columns of the whole pass would live as long as one of its prompts.
            own = PromptLogprobs(columns[:, begin:end].copy())
            result.prompt_logprobs = own if num_top == most else own.limited(num_top)
            result.is_finite &= are_all or bool(is_sound[begin:end].all())
            begin = end


class EagerSlices:
    """By the model's kernels, one launched after the other."""

    def __init__(self, model: GPTNeoX, upload: Upload) -> None:
        self._model, self._upload = model, upload
        self.most_top = model.config.vocab_size

    def score(
        self, hidden: Tensor, rows: np.ndarray, targets: np.ndarray, num_top: int
    ) -> list[Found]:
        """See ``Slices``."""
        asked = self._upload(np.stack([rows, targets]))
        shape = HEAD + 2 * num_top, len(rows)
        columns = torch.empty(shape, dtype=torch.int32, device=hidden.device)
        columns[0] = asked[1]
        most_rows = self._model.kernels.scored_at_once
        for begin in range(0, len(rows), most_rows):
            part = slice(begin, begin + most_rows)
            self._fill(hidden, asked[:, part], columns[:, part])
        return [EagerFound(columns)]

    def _fill(self, hidden: Tensor, asked: Tensor, columns: Tensor) -> None:
        """All but the first column; what it took is free when it returns."""
        num_top = (len(columns) - HEAD) // 2
        found = self._model.scores(hidden.index_select(0, asked[0]), asked[1], num_top)
        columns[1] = found.chosen.view(torch.int32)
        columns[2] = found.ranks
        if num_top:
            columns[HEAD : HEAD + num_top] = found.top_ids.T
            columns[HEAD + num_top :] = found.top.view(torch.int32).T


class EagerFound:
    """``Found`` in a tensor."""

    def __init__(self, columns: Tensor) -> None:
        self._download = Download(columns)

    @property
    def is_pending(self) -> bool:
        """See ``Found``."""
        return self._download.is_pending

    def wait(self) -> np.ndarray:
        """See ``Found``."""
        [columns] = self._download.wait()
        return columns


def _asked(chunks: Sequence[Chunk], starts: Sequence[int]) -> Asked | None:
    """What is still to be scored; None where that is nothing."""
    places, counts, tops = list[int](), list[int](), list[int]()
    firsts, targets = list[int](), list[np.ndarray]()
    for place, (chunk, first_row) in enumerate(zip(chunks, starts, strict=False)):
        sequence = chunk.sequence
        if (num_top := sequence.params.prompt_logprobs) is None:
            continue
        wanted, here = sequence.prompt_rows, chunk.start
        start, end = max(wanted.start, here), min(wanted.stop, here + chunk.count)
        if start < end:
            places.append(place)
            counts.append(end - start)
            tops.append(num_top)
            firsts.append(first_row + start - here)
            targets.append(sequence.token_ids[start + 1 : end + 1])
    if not places:
        return None
    ends = np.cumsum(counts, dtype=np.int32)
    rows = np.arange(ends[-1], dtype=np.int32)
    rows += (np.array(firsts, np.int32) - ends + np.array(counts, np.int32)).repeat(counts)
    return Asked(places, counts, tops, rows, np.concatenate(targets))
