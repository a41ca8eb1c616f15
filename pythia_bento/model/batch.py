"""What one forward pass works on: the tokens of several sequences, laid end to end."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

MOST_TOP = 20  # alternatives of a token that a captured decode step can give


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


@dataclass(frozen=True, slots=True)
class RowOptions:
    """What R rows ask for besides temperature; ``model/sampling.py`` has the meaning.

    Biases are a list of N entries in which rows have spans. A row's tokens that penalties look at
    are entries of ``seen``: token, count, and what follows it, see ``triton/options.py``.
    """

    active: Tensor  # int32 [R], 0 for a row that asks for nothing: the rest is not read
    top_k: Tensor  # int32 [R], 0 is off
    top_p: Tensor  # fp64 [R], 1 is off
    min_p: Tensor  # fp32 [R], 0 is off
    bias_starts: Tensor  # int32 [R + 1]
    bias_ids: Tensor  # int32 [N]
    biases: Tensor  # fp32 [2, N]: before the row's ``early`` position, and from there on
    early: Tensor  # int32 [R]
    penalties: Tensor  # fp32 [3, R]: repetition, frequency, presence
    prompt_lens: Tensor  # int32 [R], -1 where there are no penalties
    seen: Tensor  # int32 [3, R, W]
    num_seen: Tensor  # int32 [R], entries where the kernel does not keep ``seen`` itself


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """R sequences that decode on a device, which moves them on by itself."""

    token_ids: Tensor  # int32 [R], each row's next input
    context_lens: Tensor  # int32 [R], with that token; 0 for a row that is not in use
    block_tables: Tensor  # int32 [R, W]
    temperatures: Tensor  # fp32 [R], 0 is greedy
    seeds: Tensor  # int64 [R]
    ring: Tensor  # int32 [R, a power of two]: the token of position p at p modulo its width
    options: RowOptions  # ``seen`` is by position and kept by the steps
    limits: Tensor  # int32 [R], alternatives of each token; -1: no log-probabilities
    found: Tensor
    """int32 [1 + 2 MOST_TOP, R, a power of two]: of the token of position p, at p modulo the width,
    the bits of its log-probability, then id and bits of each alternative."""


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural-log probabilities of R rows, over all ``vocab_size`` logits, untempered.

    A row with a non-finite logit, or whose token is no id, has NaN in ``chosen``, rank 0 and -1 in
    ``top_ids``.
    """

    chosen: Tensor  # fp32 [R], of the asked token
    ranks: Tensor  # int32 [R], of the asked token: 1 + those with more, or as much and a lower id
    top_ids: Tensor  # int32 [R, num_top], by falling probability, then rising id
    top: Tensor  # fp32 [R, num_top]
