"""What one forward pass works on: the tokens of several sequences, laid end to end."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """R sequences that decode on a device, which moves them on by itself."""

    token_ids: Tensor  # int32 [R], each row's next input
    context_lens: Tensor  # int32 [R], with that token; 0 for a row that is not in use
    block_tables: Tensor  # int32 [R, W]
    temperatures: Tensor  # fp32 [R], 0 is greedy
    seeds: Tensor  # int64 [R]
    ring: Tensor  # int32 [R, a power of two]: the token of position p at p modulo its width


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
