"""Attention of a prompt's tokens, any mix of chunks: see ``attention_tile`` for its bits."""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.attention_tile import (
    attend_tile,
    fold,
    rotate,
)


@triton.jit(do_not_specialize=["num_tokens"])
def rotate_and_write(
    qkv_ptr,  # fp16 [T, HEADS, 3, HEAD]; q is rotated in place
    k_cache,
    v_cache,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    slots_ptr,
    num_tokens,
    HEAD: tl.constexpr,
    BD: tl.constexpr,
    HEADS: tl.constexpr,
    ROTARY: tl.constexpr,
    TILE: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Some tokens and one head of a prefill: what ``decode_attention`` does before its loop.

    A token with a negative slot is padding: nothing is written for it.
    """
    head = tl.program_id(1)
    rows = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    slots = tl.load(slots_ptr + rows, mask=rows < num_tokens, other=-1)
    tokens = tl.minimum(rows, num_tokens - 1)
    positions = tl.load(positions_ptr + tokens)
    dims = tl.arange(0, BD)
    here = (slots >= 0)[:, None] & (dims < HEAD)[None, :]
    base = qkv_ptr + tokens.to(tl.int64)[:, None] * HEADS * 3 * HEAD + head * 3 * HEAD
    q = rotate(base, cos_ptr, sin_ptr, positions, dims, HEAD, ROTARY)
    k = rotate(base + HEAD, cos_ptr, sin_ptr, positions, dims, HEAD, ROTARY)
    v = tl.load(base + 2 * HEAD + dims[None, :], mask=here, other=0.0)
    place = (slots // TILE).to(tl.int64) * HEADS * TILE + head * TILE + slots % TILE
    to = place[:, None] * HEAD + dims[None, :]
    tl.store(k_cache + to, k, mask=here)
    tl.store(v_cache + to, v, mask=here)
    tl.debug_barrier()  # every thread has read its pair before one is overwritten
    tl.store(base + dims[None, :], q, mask=here)


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
    FEW: tl.constexpr,  # rows of a sequence up to which it is short
    SHORT: tl.constexpr,
    BV: tl.constexpr,
    STAGES: tl.constexpr,
):
    """BQ query rows of one sequence and head, and BV dimensions of their result.

    Where SHORT, a program for each sequence of up to FEW rows: those that decode beside prompts.
    Else for all others: sequence s has its row blocks at programs query_starts[s] // BQ + s and
    following, which leaves room for every partial block without telling the host any length.
    """
    pid = tl.program_id(0)
    head = tl.program_id(1)
    if SHORT:
        seq = pid
    else:
        all_seqs = tl.arange(0, SEQS)
        starts = tl.load(query_starts_ptr + all_seqs, mask=all_seqs < num_seqs, other=0)
        begins = (starts // BQ + all_seqs <= pid) & (all_seqs < num_seqs)
        seq = tl.sum(begins.to(tl.int32), 0) - 1
    first = tl.load(query_starts_ptr + seq)
    end = tl.load(query_starts_ptr + seq + 1)
    start = first
    if not SHORT:
        start += (pid - first // BQ - seq) * BQ
    is_other = end - first <= FEW
    if SHORT:
        is_other = end - first > FEW
    if is_other | (start >= end):
        return
    context_len = tl.load(context_lens_ptr + seq)
    dims = tl.arange(0, BD)
    value_dims = tl.program_id(2) * BV + tl.arange(0, BV)
    rows = start + tl.arange(0, BQ)
    wide = rows.to(tl.int64)[:, None]
    is_row = (rows < end)[:, None]
    q_ptrs = qkv_ptr + wide * HEADS * 3 * HEAD + head * 3 * HEAD + dims[None, :]
    q = tl.load(q_ptrs, mask=is_row & (dims < HEAD)[None, :], other=0.0)
    q_positions = context_len - end + rows
    acc = tl.zeros([BQ, BV], tl.float32)
    best = tl.full([BQ], float("-inf"), tl.float32)
    total = tl.zeros([BQ], tl.float32)
    seen = tl.minimum(context_len, context_len - end + start + BQ)
    table = tables_ptr + seq * table_stride
    for tile in tl.range(0, tl.cdiv(seen, TILE), 1, num_stages=STAGES):
        block = tl.load(table + tile).to(tl.int64)
        offset = (block * HEADS + head) * TILE * HEAD
        tile_acc, tile_best, tile_total = attend_tile(
            q=q,
            q_positions=q_positions,
            k_ptr=k_cache + offset,
            v_ptr=v_cache + offset,
            start=tile * TILE,
            context_len=context_len,
            qk_scale=qk_scale,
            dims=dims,
            value_dims=value_dims,
            HEAD=HEAD,
            TILE=TILE,
            BQ=BQ,
        )
        acc, best, total = fold(acc, best, total, tile_acc, tile_best, tile_total)
    out = (acc / total[:, None]).to(tl.float16)
    to = out_ptr + (wide * HEADS + head) * HEAD + value_dims[None, :]
    tl.store(to, out, mask=is_row & (value_dims < HEAD)[None, :])
