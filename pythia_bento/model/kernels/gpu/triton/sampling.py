"""Choosing tokens and log-probabilities on the device; see ``model/sampling.py`` for the rule.

A value and its id travel as one int64 whose order is by value, then by falling id: the greatest
one wins, ties go to the lowest id, and no order of comparison can change the result.
"""

from __future__ import annotations

import triton
import triton.language as tl

NOT_FINITE = 0x7FFFFFFFFFFFFFFF  # above every key: the row must fail


@triton.jit
def key_of(value, ids):
    """int64 keys of fp32 values."""
    bits = (value + 0.0).to(tl.int32, bitcast=True)  # -0.0 becomes 0.0
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    return (ordered << 32) | (0x7FFFFFFF - ids).to(tl.int64)


@triton.jit
def gumbel(seed, position, ids):
    """-ln(-ln u), u from word 0 of Philox-4x32-10 at counter (token, position, 0, 0)."""
    c0 = ids.to(tl.uint32, bitcast=True)
    zero = tl.zeros_like(c0)
    c1 = zero + position.to(tl.uint32, bitcast=True)
    word, _, _, _ = tl.philox(seed, c0, c1, zero, zero)
    u = (word >> 9).to(tl.float32) * 1.1920928955078125e-07 + 5.9604644775390625e-08
    return -tl.log(-tl.log(u))


@triton.jit(do_not_specialize=["num_ids"])
def choose_partial(
    logits_ptr,  # fp32 [R, VOCAB]
    temperatures_ptr,  # fp32 [R], 0 is greedy
    seeds_ptr,  # int64 [R]
    positions_ptr,  # int32 [R], of the token being chosen
    key_ptr,  # int64 [R, PARTS]
    num_ids,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Best key among BLOCK ids of one row. ``MASKED``: -inf is a banned id, not a failure."""
    row = tl.program_id(0)
    part = tl.program_id(1)
    ids = part * BLOCK + tl.arange(0, BLOCK)
    exists = ids < VOCAB
    z = tl.load(logits_ptr + row.to(tl.int64) * VOCAB + ids, mask=exists, other=0.0)
    if MASKED:
        is_bad = (z == float("inf")) | (z != z)
    else:
        is_bad = (tl.abs(z) == float("inf")) | (z != z)
    any_bad = tl.max(is_bad.to(tl.int32), 0)
    temperature = tl.load(temperatures_ptr + row)
    if temperature > 0:
        seed = tl.load(seeds_ptr + row)
        position = tl.load(positions_ptr + row)
        z = z / temperature + gumbel(seed, position, ids)
    key = tl.where(ids < num_ids, key_of(z, ids), -0x7FFFFFFFFFFFFFFF)
    best = tl.where(any_bad > 0, 0x7FFFFFFFFFFFFFFF, tl.max(key, 0))
    tl.store(key_ptr + row * PARTS + part, best)


@triton.jit
def choose_final(
    key_ptr,
    tokens_ptr,  # int32 [R]; when ADVANCE the rows' next inputs
    context_lens_ptr,  # int32 [R], moved on by one when ADVANCE, where not 0
    ring_ptr,  # int32 [R, RING], the token of position p at p % RING, written when ADVANCE
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    RING: tl.constexpr,
    ADVANCE: tl.constexpr,
):
    """The token of one row, -1 where a logit is not finite; then the row moves on."""
    row = tl.program_id(0)
    parts = tl.arange(0, BLOCK)
    keys = tl.load(key_ptr + row * PARTS + parts, mask=parts < PARTS, other=-0x7FFFFFFFFFFFFFFF)
    best = tl.max(keys, 0)
    token = 0x7FFFFFFF - (best & 0x7FFFFFFF).to(tl.int32)
    token = tl.where(best == 0x7FFFFFFFFFFFFFFF, -1, token)
    if ADVANCE:
        length = tl.load(context_lens_ptr + row)
        tl.store(ring_ptr + row * RING + length % RING, token)
        tl.store(tokens_ptr + row, tl.maximum(token, 0))
        tl.store(context_lens_ptr + row, tl.where(length > 0, length + 1, 0))
    else:
        tl.store(tokens_ptr + row, token)
