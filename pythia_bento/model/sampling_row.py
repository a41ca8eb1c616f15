"""How the next token of one sequence is chosen, as data; ``model.sampling`` has the rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Penalties:
    """What the tokens of a sequence so far do to their own logits; neutral values do nothing.

    ``ids`` are distinct: every generated token, and those of the prompt where ``repetition`` is
    not 1. Both arrays may be views that change with the next token.
    """

    repetition: float  # above 0; 1 is off
    frequency: float  # for every time a token was generated
    presence: float  # once for a token that was generated
    ids: np.ndarray  # int32 [k]
    counts: np.ndarray  # int32 [k], how often each was generated: 0 is in the prompt alone


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """How to choose the next token from one row of logits.

    The noise is a function of (seed, position, token), so a choice never depends on the batch.
    """

    position: int  # index in the sequence of the token being chosen
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0  # 64 bits
    bias: tuple[tuple[int, float], ...] = ()
    """(token id, addend) pairs on the raw logit; -inf bans the token."""
    penalties: Penalties | None = None
    mask: np.ndarray | None = None
    """int32 [W]: bit ``id % 32`` of word ``id // 32`` is whether that token may be chosen."""
