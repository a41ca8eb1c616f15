"""What one forward pass works on: the tokens of several sequences, laid end to end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """T tokens of S sequences; decode steps and prefill chunks mix freely.

    Sequence ``s`` owns rows ``query_starts[s]:query_starts[s + 1]``; its rows are the last ones of
    its context, which is ``context_lens[s]`` tokens long including them.
    """

    token_ids: Tensor  # int32 [T]
    positions: Tensor  # int32 [T], from 0 in each sequence
    slots: Tensor  # int32 [T], block * block_size + offset: where this token's K and V go
    query_starts: Tensor  # int32 [S + 1]
    context_lens: Tensor  # int32 [S]
    block_tables: Tensor  # int32 [S, W], padded with 0


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
    bias: tuple[tuple[int, float], ...] = field(default=())
    """(token id, addend) pairs on the raw logit; -inf bans the token."""
    penalties: Penalties | None = None


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural-log probabilities of R rows, over all ``vocab_size`` logits, untempered.

    A row with a non-finite logit has NaN in ``chosen``.
    """

    chosen: Tensor  # fp32 [R], of the asked token
    top_ids: Tensor  # int32 [R, num_top], by falling probability, then rising id
    top: Tensor  # fp32 [R, num_top]
