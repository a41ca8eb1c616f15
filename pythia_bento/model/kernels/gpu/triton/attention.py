"""Causal attention over the paged cache; decode and prefill give each query row the same bits.

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

from pythia_bento.model.kernels.gpu.triton.device import wait_for_inputs


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
def attend_tile(
    q,  # fp16 [BQ, BD]
    q_positions,  # [BQ]
    k_ptr,  # of this tile, [TILE, HEAD]
    v_ptr,
    start,  # first position of the tile
    context_len,
    qk_scale,
    dims,
    HEAD: tl.constexpr,
    TILE: tl.constexpr,
    BQ: tl.constexpr,
):
    """(acc, best, weight sum) of one tile on its own."""
    at = tl.arange(0, TILE)
    is_context = start + at < context_len
    here = (dims < HEAD)[None, :] & is_context[:, None]
    k = tl.load(k_ptr + at[:, None] * HEAD + dims[None, :], mask=here, other=0.0)
    v = tl.load(v_ptr + at[:, None] * HEAD + dims[None, :], mask=here, other=0.0)
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
def attend_row(
    qkv_ptr,  # fp16 [S, HEADS, 3, HEAD]
    k_cache,
    v_cache,
    out_ptr,  # fp16 [S, HEADS * HEAD]
    cos_ptr,
    sin_ptr,
    context_lens_ptr,  # int32 [S], with the new token; 0 for a row that is not in use
    tables_ptr,  # int32 [S, table_stride]
    table_stride,
    acc_ptr,  # fp32 [S, HEADS, tiles, HEAD]
    best_ptr,  # fp32 [S, HEADS, tiles, 2]
    ticket_ptr,  # int32 [S, HEADS], 0 between launches
    max_tiles,
    qk_scale,
    head,
    seq,
    part,
    HEAD: tl.constexpr,
    BD: tl.constexpr,
    HEADS: tl.constexpr,
    ROTARY: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One new token, one head. ``SPLIT`` programs share the tiles, each takes every SPLITth.

    The tile loop is the same for SPLIT 1, where no partial result leaves the program.
    """
    context_len = tl.load(context_lens_ptr + seq)
    tiles = tl.cdiv(context_len, TILE)
    if part < tiles:
        dims = tl.arange(0, BD)
        row_ptr = qkv_ptr + seq.to(tl.int64) * HEADS * 3 * HEAD
        last = context_len - 1
        table = tables_ptr + seq * table_stride
        if part == (tiles - 1) % SPLIT:
            slot = tl.load(table + tiles - 1) * TILE + last % TILE
            write_kv(
                *(row_ptr, k_cache, v_cache, cos_ptr, sin_ptr, last, slot, head, dims),
                *(HEAD, HEADS, ROTARY, TILE),
            )
            tl.debug_barrier()
        rows = tl.zeros([16], tl.int32)
        is_first = tl.arange(0, 16) == 0
        is_one = is_first[:, None] & (dims < HEAD)[None, :]
        q_base = row_ptr + rows[:, None] + head * 3 * HEAD
        q = rotate(q_base, cos_ptr, sin_ptr, last + rows, dims, HEAD, ROTARY)
        acc = tl.zeros([16, BD], tl.float32)
        best = tl.full([16], float("-inf"), tl.float32)
        total = tl.zeros([16], tl.float32)
        scratch = (seq * HEADS + head).to(tl.int64) * max_tiles
        for tile in tl.range(part, tiles, SPLIT, num_stages=STAGES):
            block = tl.load(table + tile).to(tl.int64)
            offset = (block * HEADS + head) * TILE * HEAD
            tile_acc, tile_best, tile_total = attend_tile(
                *(q, last + rows, k_cache + offset, v_cache + offset, tile * TILE, context_len),
                *(qk_scale, dims, HEAD, TILE, 16),
            )
            if SPLIT == 1:
                acc, best, total = fold(acc, best, total, tile_acc, tile_best, tile_total)
            else:
                to = scratch + tile
                tl.store(acc_ptr + to * HEAD + rows[:, None] + dims[None, :], tile_acc, mask=is_one)
                tl.store(best_ptr + to * 2 + rows, tile_best, mask=is_first)
                tl.store(best_ptr + to * 2 + 1 + rows, tile_total, mask=is_first)
        is_folder = True
        if SPLIT > 1:
            tl.debug_barrier()
            ticket = tl.atomic_add(ticket_ptr + seq * HEADS + head, 1, sem="acq_rel")
            is_folder = ticket == tl.minimum(tiles, SPLIT) - 1
            if is_folder:
                tl.store(ticket_ptr + seq * HEADS + head, 0)
                for tile in tl.range(0, tiles, 1, num_stages=4):
                    to = scratch + tile
                    tile_acc = tl.load(
                        acc_ptr + to * HEAD + rows[:, None] + dims[None, :],
                        mask=(dims < HEAD)[None, :],
                        other=0.0,
                    )
                    tile_best = tl.load(best_ptr + to * 2 + rows)
                    tile_total = tl.load(best_ptr + to * 2 + 1 + rows)
                    acc, best, total = fold(acc, best, total, tile_acc, tile_best, tile_total)
        if is_folder:
            out = (acc / total[:, None]).to(tl.float16)
            to = (seq * HEADS + head).to(tl.int64) * HEAD + rows[:, None] + dims[None, :]
            tl.store(out_ptr + to, out, mask=is_one)


@triton.jit(do_not_specialize=["table_stride", "max_tiles"])
def decode_attention(
    qkv_ptr,
    k_cache,
    v_cache,
    out_ptr,
    cos_ptr,
    sin_ptr,
    context_lens_ptr,
    tables_ptr,
    table_stride,
    acc_ptr,
    best_ptr,
    ticket_ptr,
    max_tiles,
    qk_scale,
    HEAD: tl.constexpr,
    BD: tl.constexpr,
    HEADS: tl.constexpr,
    ROTARY: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """``attend_row`` over a grid of heads, sequences and splits."""
    wait_for_inputs(PDL)
    attend_row(
        *(qkv_ptr, k_cache, v_cache, out_ptr, cos_ptr, sin_ptr, context_lens_ptr, tables_ptr),
        *(table_stride, acc_ptr, best_ptr, ticket_ptr, max_tiles, qk_scale),
        *(tl.program_id(0), tl.program_id(1), tl.program_id(2)),
        *(HEAD, BD, HEADS, ROTARY, TILE, SPLIT, STAGES),
    )


@triton.jit
def rotate_and_write(
    qkv_ptr,  # fp16 [T, HEADS, 3, HEAD]; q is rotated in place
    k_cache,
    v_cache,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    slots_ptr,
    HEAD: tl.constexpr,
    BD: tl.constexpr,
    HEADS: tl.constexpr,
    ROTARY: tl.constexpr,
    TILE: tl.constexpr,
):
    """One token and head of a prefill: what ``decode_attention`` does before its loop.

    A token with a negative slot is padding: nothing is written for it.
    """
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    slot = tl.load(slots_ptr + token)
    if slot >= 0:
        dims = tl.arange(0, BD)
        position = tl.load(positions_ptr + token)
        row_ptr = qkv_ptr + token * HEADS * 3 * HEAD
        write_kv(
            *(row_ptr, k_cache, v_cache, cos_ptr, sin_ptr, position, slot, head, dims),
            *(HEAD, HEADS, ROTARY, TILE),
        )
        one = tl.zeros([1], tl.int32)
        base = row_ptr + one[:, None] + head * 3 * HEAD
        q = rotate(base, cos_ptr, sin_ptr, position + one, dims, HEAD, ROTARY)
        tl.debug_barrier()  # every thread has read its pair before one is overwritten
        tl.store(base + dims[None, :], q, mask=(dims < HEAD)[None, :])


@triton.jit(do_not_specialize=["table_stride", "num_seqs"])
def prefill_attention(
    qkv_ptr,  # fp16 [T, HEADS, 3, HEAD], q rotated
    k_cache,
    v_cache,
    out_ptr,  # fp16 [T, HEADS * HEAD]
    query_starts_ptr,  # int32 [S + 1]
    context_lens_ptr,
    tables_ptr,
    table_stride,
    num_seqs,
    qk_scale,
    HEAD: tl.constexpr,
    BD: tl.constexpr,
    HEADS: tl.constexpr,
    TILE: tl.constexpr,
    BQ: tl.constexpr,
    SEQS: tl.constexpr,  # a power of two of at least num_seqs + 1
    STAGES: tl.constexpr,
):
    """BQ query rows of one sequence and head.

    Sequence s has its row blocks at programs query_starts[s] // BQ + s and following, which leaves
    room for every partial block without telling the host any length.
    """
    pid = tl.program_id(0)
    head = tl.program_id(1)
    all_seqs = tl.arange(0, SEQS)
    starts = tl.load(query_starts_ptr + all_seqs, mask=all_seqs < num_seqs, other=0)
    begins = (starts // BQ + all_seqs <= pid) & (all_seqs < num_seqs)
    seq = tl.sum(begins.to(tl.int32), 0) - 1
    first = tl.load(query_starts_ptr + seq)
    end = tl.load(query_starts_ptr + seq + 1)
    start = first + (pid - first // BQ - seq) * BQ
    if start >= end:
        return
    context_len = tl.load(context_lens_ptr + seq)
    dims = tl.arange(0, BD)
    rows = start + tl.arange(0, BQ)
    wide = rows.to(tl.int64)[:, None]
    mask = (rows < end)[:, None] & (dims < HEAD)[None, :]
    q_ptrs = qkv_ptr + wide * HEADS * 3 * HEAD + head * 3 * HEAD + dims[None, :]
    q = tl.load(q_ptrs, mask=mask, other=0.0)
    q_positions = context_len - end + rows
    acc = tl.zeros([BQ, BD], tl.float32)
    best = tl.full([BQ], float("-inf"), tl.float32)
    total = tl.zeros([BQ], tl.float32)
    seen = tl.minimum(context_len, context_len - end + start + BQ)
    table = tables_ptr + seq * table_stride
    for tile in tl.range(0, tl.cdiv(seen, TILE), 1, num_stages=STAGES):
        block = tl.load(table + tile).to(tl.int64)
        offset = (block * HEADS + head) * TILE * HEAD
        tile_acc, tile_best, tile_total = attend_tile(
            *(q, q_positions, k_cache + offset, v_cache + offset, tile * TILE, context_len),
            *(qk_scale, dims, HEAD, TILE, BQ),
        )
        acc, best, total = fold(acc, best, total, tile_acc, tile_best, tile_total)
    out = (acc / total[:, None]).to(tl.float16)
    tl.store(out_ptr + (wide * HEADS + head) * HEAD + dims[None, :], out, mask=mask)
