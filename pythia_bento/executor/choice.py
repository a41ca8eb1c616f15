"""Tokens that were chosen on a device, on their way to the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from pythia_bento.engine.executor import ChunkResult
from pythia_bento.engine.logprobs import TokenLogprob
from pythia_bento.executor.download import Download
from pythia_bento.executor.queued_results import QueuedResults
from pythia_bento.model.batch import Logprobs


class QueuedTokens(QueuedResults):
    """Tokens alone, of some rows of a pass."""

    def __init__(self, wait: Callable[[], list[int]], rows: Sequence[int]) -> None:
        self._wait, self._rows = wait, rows

    def put_into(self, results: Sequence[ChunkResult]) -> None:
        """See ``QueuedResults``."""
        tokens = self._wait()
        for row, result in zip(self._rows, results, strict=True):
            result.token_ids.append(tokens[row])
            result.is_finite &= tokens[row] >= 0


class QueuedChoice(QueuedResults):
    """One token a row, with log-probabilities of those rows that have a limit of alternatives."""

    def __init__(
        self, tokens: Tensor, limits: Sequence[int | None], found: Logprobs | None = None
    ) -> None:
        """Queue the copies; ``found`` has the rows with limits only."""
        self.tokens = tokens  # int32 [R], -1 where a logit is not finite
        self._limits = limits
        columns = (found.chosen, found.top_ids, found.top) if found else ()
        self._download = Download(tokens, *columns)

    @property
    def is_pending(self) -> bool:
        """See ``QueuedResults``."""
        return self._download.is_pending

    def put_into(self, results: Sequence[ChunkResult]) -> None:
        """See ``QueuedResults``."""
        tokens, *columns = (part.tolist() for part in self._download.wait())
        found = zip(*columns, strict=True) if columns else iter(())
        for token, limit, result in zip(tokens, self._limits, results, strict=True):
            logprob = _logprob(token, limit, found) if limit is not None else None
            result.token_ids.append(token)
            result.is_finite &= token >= 0
            if logprob and result.is_finite:
                result.logprobs.append(logprob)
                result.is_finite &= math.isfinite(logprob.logprob)


def _logprob(
    token: int, limit: int, found: Iterator[tuple[float, list[int], list[float]]]
) -> TokenLogprob:
    """Of the next row found, at most ``limit`` alternatives."""
    value, ids, best = next(found)
    return TokenLogprob(token, value, tuple(zip(ids[:limit], best[:limit], strict=True)))
