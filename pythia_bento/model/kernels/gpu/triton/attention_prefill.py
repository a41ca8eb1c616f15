"""Attention of a prompt's tokens, any mix of chunks: see ``attention_tile`` for its bits."""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.attention_tile import (
    attend_tile,
    fold,
    rotate,
    write_kv,
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
            qkv_ptr=row_ptr,
            k_cache=k_cache,
            v_cache=v_cache,
            cos_ptr=cos_ptr,
            sin_ptr=sin_ptr,
            position=position,
            slot=slot,
            head=head,
            dims=dims,
            HEAD=HEAD,
            HEADS=HEADS,
            ROTARY=ROTARY,
            TILE=TILE,
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
            q=q,
            q_positions=q_positions,
            k_ptr=k_cache + offset,
            v_ptr=v_cache + offset,
            start=tile * TILE,
            context_len=context_len,
            qk_scale=qk_scale,
            dims=dims,
            HEAD=HEAD,
            TILE=TILE,
            BQ=BQ,
        )
        acc, best, total = fold(acc, best, total, tile_acc, tile_best, tile_total)
    out = (acc / total[:, None]).to(tl.float16)
    tl.store(out_ptr + (wide * HEADS + head) * HEAD + dims[None, :], out, mask=mask)
