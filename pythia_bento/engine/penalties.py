"""Counts of a sequence's tokens, as its penalties need them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np

from pythia_bento.engine.params import SamplingParams
from pythia_bento.model.sampling_row import Penalties


class TokenCounts:
    """Follows one sequence token by token; a function of its tokens, so preemption is no matter."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int]) -> None:
        # Only repetition_penalty looks at the prompt.
        seen = list(dict.fromkeys(prompt)) if params.repetition_penalty != 1 else []
        self._params = params
        self._places = {token: place for place, token in enumerate(seen)}
        self._ids = np.zeros(len(seen) + params.max_tokens, np.int32)
        self._ids[: len(seen)] = seen
        self._counts = np.zeros_like(self._ids)

    def add(self, token: int) -> None:
        """One more generated token."""
        place = self._places.setdefault(token, len(self._places))
        self._ids[place] = token
        self._counts[place] += 1

    def penalties(self, further: np.ndarray | tuple[()] = ()) -> Penalties:
        """For the next token; the arrays are views, to be read before it is added.

        With ``further`` tokens, which stay unknown, for the one behind them.
        """
        if len(further):
            return self._with(further).penalties()
        p, seen = self._params, len(self._places)
        return Penalties(
            p.repetition_penalty,
            p.frequency_penalty,
            p.presence_penalty,
            self._ids[:seen],
            self._counts[:seen],
        )

    def _with(self, further: np.ndarray | tuple[()]) -> TokenCounts:
        """Another, which knows them."""
        other = copy(self)
        other._places, other._ids = self._places.copy(), self._ids.copy()
        other._counts = self._counts.copy()
        for token in further:
            other.add(int(token))
        return other
