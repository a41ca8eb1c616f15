"""Attention of one new token a sequence: see ``attention_tile`` for its bits."""

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
def keep_tile(acc_ptr, best_ptr, place, tile_acc, tile_best, tile_total, dims, HEAD: tl.constexpr):
    """Store the first row of a tile's own result, for the program that folds."""
    rows = tl.zeros([16], tl.int32)
    is_first = tl.arange(0, 16) == 0
    is_one = is_first[:, None] & (dims < HEAD)[None, :]
    tl.store(acc_ptr + place * HEAD + rows[:, None] + dims[None, :], tile_acc, mask=is_one)
    tl.store(best_ptr + place * 2 + rows, tile_best, mask=is_first)
    tl.store(best_ptr + place * 2 + 1 + rows, tile_total, mask=is_first)


@triton.jit
def kept_tile(acc_ptr, best_ptr, place, dims, HEAD: tl.constexpr):
    """What ``keep_tile`` stored, in every row."""
    rows = tl.zeros([16], tl.int32)
    tile_acc = tl.load(
        acc_ptr + place * HEAD + rows[:, None] + dims[None, :],
        mask=(dims < HEAD)[None, :],
        other=0.0,
    )
    return tile_acc, tl.load(best_ptr + place * 2 + rows), tl.load(best_ptr + place * 2 + 1 + rows)


@triton.jit(do_not_specialize=["table_stride", "max_tiles"])
def decode_attention(
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
    HEAD: tl.constexpr,
    BD: tl.constexpr,
    HEADS: tl.constexpr,
    ROTARY: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One head of one sequence. ``SPLIT`` programs share the tiles, each takes every SPLITth.

    The tile loop is the same for SPLIT 1, where no partial result leaves the program.
    """
    head = tl.program_id(0)
    seq = tl.program_id(1)
    part = tl.program_id(2)
    context_len = tl.load(context_lens_ptr + seq)
    tiles = tl.cdiv(context_len, TILE)
    if part < tiles:
        dims = tl.arange(0, BD)
        row_ptr = qkv_ptr + seq.to(tl.int64) * HEADS * 3 * HEAD
        last = context_len - 1
        table = tables_ptr + seq * table_stride
        if part == (tiles - 1) % SPLIT:
            write_kv(
                qkv_ptr=row_ptr,
                k_cache=k_cache,
                v_cache=v_cache,
                cos_ptr=cos_ptr,
                sin_ptr=sin_ptr,
                position=last,
                slot=tl.load(table + tiles - 1) * TILE + last % TILE,
                head=head,
                dims=dims,
                HEAD=HEAD,
                HEADS=HEADS,
                ROTARY=ROTARY,
                TILE=TILE,
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
                q=q,
                q_positions=last + rows,
                k_ptr=k_cache + offset,
                v_ptr=v_cache + offset,
                start=tile * TILE,
                context_len=context_len,
                qk_scale=qk_scale,
                dims=dims,
                value_dims=dims,
                HEAD=HEAD,
                TILE=TILE,
                BQ=16,
            )
            if SPLIT == 1:
                acc, best, total = fold(acc, best, total, tile_acc, tile_best, tile_total)
            else:
                place = scratch + tile
                keep_tile(acc_ptr, best_ptr, place, tile_acc, tile_best, tile_total, dims, HEAD)
        is_folder = True
        if SPLIT > 1:
            tl.debug_barrier()
            ticket = tl.atomic_add(ticket_ptr + seq * HEADS + head, 1, sem="acq_rel")
            is_folder = ticket == tl.minimum(tiles, SPLIT) - 1
            if is_folder:
                tl.store(ticket_ptr + seq * HEADS + head, 0)
                for tile in tl.range(0, tiles, 1, num_stages=4):
                    tile_acc, tile_best, tile_total = kept_tile(
                        acc_ptr, best_ptr, scratch + tile, dims, HEAD
                    )
                    acc, best, total = fold(acc, best, total, tile_acc, tile_best, tile_total)
        if is_folder:
            out = (acc / total[:, None]).to(tl.float16)
            to = (seq * HEADS + head).to(tl.int64) * HEAD + rows[:, None] + dims[None, :]
            tl.store(out_ptr + to, out, mask=is_one)
