"""Choosing tokens and log-probabilities on the device; see ``model/sampling.py`` for the rule.

A value and its id travel as one int64 whose order is by value, then by falling id: the greatest
one wins, ties go to the lowest id, and no order of comparison can change the result.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-0x80000000)  # below the order of every value


@triton.jit
def order_of(value):
    """int32 that rises with an fp32 value."""
    bits = (value + 0.0).to(tl.int32, bitcast=True)  # -0.0 becomes 0.0
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def value_of(order):
    """fp32 that has an order."""
    return tl.where(order < 0, order ^ 0x7FFFFFFF, order).to(tl.float32, bitcast=True)


@triton.jit
def key_of(value, ids):
    """int64 keys of fp32 values."""
    return (order_of(value).to(tl.int64) << 32) | (0x7FFFFFFF - ids).to(tl.int64)


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
    z_ptr,  # this and the following as ``options.prepare`` left them, read where OPTIONS
    status_ptr,
    floor_ptr,
    last_ptr,
    best_ptr,
    min_p_ptr,  # fp32 [R], 0 is off
    num_ids,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    OPTIONS: tl.constexpr,
):
    """Best key among BLOCK ids of one row."""
    row = tl.program_id(0)
    part = tl.program_id(1)
    ids = part * BLOCK + tl.arange(0, BLOCK)
    exists = ids < VOCAB
    at = row.to(tl.int64) * VOCAB + ids
    z = tl.load(logits_ptr + at, mask=exists, other=0.0)
    is_bad = tl.max(((tl.abs(z) == float("inf")) | (z != z)).to(tl.int32), 0) > 0
    temperature = tl.load(temperatures_ptr + row)
    if temperature > 0:
        z = tl.div_rn(z, tl.zeros([BLOCK], tl.float32) + temperature)
    stays = ids < num_ids
    if OPTIONS:
        if tl.load(status_ptr + row) != 0:
            is_bad = tl.load(status_ptr + row) == 2
            z = tl.load(z_ptr + at, mask=exists, other=0.0)
            order, floor = order_of(z), tl.load(floor_ptr + row)
            stays &= (order > floor) | ((order == floor) & (ids <= tl.load(last_ptr + row)))
            min_p = tl.load(min_p_ptr + row)
            if (min_p > 0) & (temperature > 0):
                stays &= tl.exp(z - tl.load(best_ptr + row)) >= min_p
    if temperature > 0:
        z += gumbel(tl.load(seeds_ptr + row), tl.load(positions_ptr + row), ids)
    key = tl.where(stays, key_of(z, ids), -0x7FFFFFFFFFFFFFFF)
    best = tl.where(is_bad, 0x7FFFFFFFFFFFFFFF, tl.max(key, 0))
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
