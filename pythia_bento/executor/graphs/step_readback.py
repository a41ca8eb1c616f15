"""The way of tokens and log-probabilities of decode steps to the host."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from pythia_bento.engine.executor import ChunkResult
from pythia_bento.engine.logprobs import TokenLogprob
from pythia_bento.executor.flights import Row, tokens_found
from pythia_bento.executor.graphs.active import ActiveWeights
from pythia_bento.executor.graphs.buffers import TokenReadback
from pythia_bento.model.batch import DecodeRows


class StepReadback:
    """Copies of the rings of some rows: tokens, and log-probabilities where a row asks for them."""

    def __init__(self, rows: DecodeRows, active: ActiveWeights) -> None:
        self._rows = rows
        self._tokens = TokenReadback(*rows.ring.shape, active=active)
        self._found = TokenReadback(*rows.found.shape)

    def copy(self, rows: list[Row], steps: int) -> Callable[[], list[ChunkResult]]:
        """Queue the copy after ``steps`` steps of ``rows``; how to wait for their results."""
        limits = [sequence.params.logprobs for sequence, _ in rows]
        most = max((limit for limit in limits if limit is not None), default=None)
        if most is not None:
            self._found.copy(self._rows.found, 1 + 2 * most)
        self._tokens.copy(self._rows.ring, len(rows))
        positions = np.array([start + 1 for _, start in rows])[:, None] + np.arange(steps)
        return partial(self._results, positions % self._rows.ring.shape[1], limits)

    def _results(self, at: np.ndarray, limits: list[int | None]) -> list[ChunkResult]:
        """Wait; of each row the tokens at places ``at`` [R, steps] of its ring."""
        tokens = np.take_along_axis(self._tokens.wait()[: len(at)], at, 1).tolist()
        results = [tokens_found(own) for own in tokens]
        if any(limit is not None for limit in limits):
            found = self._found.wait()
            for row, (result, limit) in enumerate(zip(results, limits, strict=True)):
                if limit is not None and result.is_finite:
                    columns = found[: 1 + 2 * limit, row, at[row, : len(result.token_ids)]]
                    result.logprobs = _logprobs(result.token_ids, columns)
        return results


def _logprobs(tokens: list[int], columns: np.ndarray) -> list[TokenLogprob]:
    """Of N tokens, from ``columns`` as ``DecodeRows.found`` has them, int32 [1 + 2 k, N]."""
    values = columns[0].view(np.float32).tolist()
    if len(columns) == 1:
        return list(map(TokenLogprob, tokens, values))
    ids = columns[1::2].T.tolist()
    best = np.ascontiguousarray(columns[2::2].T).view(np.float32).tolist()
    tops = (tuple(zip(*pair, strict=True)) for pair in zip(ids, best, strict=True))
    return list(map(TokenLogprob, tokens, values, tops))
