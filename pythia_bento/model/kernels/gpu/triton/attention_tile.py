"""A tile of causal attention over the paged cache; decode and prefill give a row the same bits.

The context is cut into tiles of TILE positions (one cache block) from position 0. Each tile is
attended to on its own and folded into the running result in order, whoever does it: one program
for a whole row, or one for each tile and a last one that folds. A tile that a row may not see
leaves its result as it was, bit for bit.

Weights p are rounded to fp16 before both uses. Every fp16 in [0, 1] is a multiple of 2^-24, so
their sum is exact as an integer and does not depend on the layout.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rotate(base, cos_ptr, sin_ptr, positions, dims, HEAD: tl.constexpr, ROTARY: tl.constexpr):
    """fp16 [R, BD] loaded from pointers ``base`` [R, 1], rotated at ``positions`` [R].

    Dimension i < ROTARY / 2 pairs with i + ROTARY / 2 (GPT-NeoX); the rest stays.
    """
    HALF: tl.constexpr = ROTARY // 2
    is_first = dims < HALF
    does_rotate = dims < ROTARY
    angle = tl.where(is_first, dims, dims - HALF)
    partner = tl.where(is_first, dims + HALF, dims - HALF)
    partner = tl.where(does_rotate, partner, dims)
    here = (dims < HEAD)[None, :]
    x = tl.load(base + dims[None, :], mask=here, other=0.0).to(tl.float32)
    other = tl.load(base + partner[None, :], mask=here, other=0.0).to(tl.float32)
    at = positions[:, None] * HALF + angle[None, :]
    cos = tl.load(cos_ptr + at, mask=does_rotate[None, :], other=1.0)
    sin = tl.load(sin_ptr + at, mask=does_rotate[None, :], other=0.0)
    other = tl.where(is_first[None, :], -other, other)
    return tl.fma(x, cos, other * sin).to(tl.float16)


@triton.jit
def write_kv(
    qkv_ptr,
    k_cache,
    v_cache,
    cos_ptr,
    sin_ptr,
    position,
    slot,
    head,
    dims,
    HEAD: tl.constexpr,
    HEADS: tl.constexpr,
    ROTARY: tl.constexpr,
    TILE: tl.constexpr,
):
    """Rotate one token's k and put its k and v into the cache [blocks, heads, TILE, HEAD]."""
    one = tl.zeros([1], tl.int32)
    base = qkv_ptr + one[:, None] + head * 3 * HEAD + HEAD
    k = rotate(base, cos_ptr, sin_ptr, position + one, dims, HEAD, ROTARY)
    here = (dims < HEAD)[None, :]
    v = tl.load(base + HEAD + dims[None, :], mask=here, other=0.0)
    block = (slot // TILE).to(tl.int64)
    to = ((block * HEADS + head) * TILE + slot % TILE) * HEAD + dims[None, :]
    tl.store(k_cache + to, k, mask=here)
    tl.store(v_cache + to, v, mask=here)


@triton.jit
def attend_tile(
    q,  # fp16 [BQ, BD]
    q_positions,  # [BQ]
    k_ptr,  # of this tile, [TILE, HEAD]
    v_ptr,
    start,  # first position of the tile
    context_len,
    qk_scale,
    dims,
    value_dims,  # those of the result; any columns of v have the same bits alone
    HEAD: tl.constexpr,
    TILE: tl.constexpr,
    BQ: tl.constexpr,
):
    """(acc, best, weight sum) of one tile on its own."""
    at = tl.arange(0, TILE)
    is_context = start + at < context_len
    here = is_context[:, None]
    k_ptrs = k_ptr + at[:, None] * HEAD + dims[None, :]
    v_ptrs = v_ptr + at[:, None] * HEAD + value_dims[None, :]
    k = tl.load(k_ptrs, mask=(dims < HEAD)[None, :] & here, other=0.0)
    v = tl.load(v_ptrs, mask=(value_dims < HEAD)[None, :] & here, other=0.0)
    score = tl.dot(q, tl.trans(k)) * qk_scale
    sees = (q_positions[:, None] >= (start + at)[None, :]) & is_context[None, :]
    score = tl.where(sees, score, float("-inf"))
    best = tl.max(score, 1)
    base = tl.where(best == float("-inf"), 0.0, best)
    p = tl.math.exp2(score - base[:, None]).to(tl.float16)
    total = tl.sum((p.to(tl.float32) * 16777216.0).to(tl.int32), 1)
    return tl.dot(p, v), best, total.to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def fold(acc, best, total, tile_acc, tile_best, tile_total):
    """Running result with one more tile in it; the same roundings wherever it is inlined."""
    new = tl.maximum(best, tile_best)
    safe = tl.where(new == float("-inf"), 0.0, new)
    keep = tl.math.exp2(best - safe)
    take = tl.math.exp2(tile_best - safe)
    acc = tl.fma(acc, keep[:, None], tile_acc * take[:, None])
    return acc, new, tl.fma(total, keep, tile_total * take)
