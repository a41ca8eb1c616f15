"""Attention weights of single rows, beside the pass that attends: see ``attention_tile``."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def scores(
    q,  # fp16 [16, BD], rotated
    k_cache,
    table,  # int32, of the row's sequence
    tile,
    head,
    position,
    qk_scale,
    dims,
    HEAD: tl.constexpr,
    HEADS: tl.constexpr,
    TILE: tl.constexpr,
):
    """fp32 [16, TILE] of one tile, by the products of ``attend_tile``; -inf past ``position``."""
    at = tl.arange(0, TILE)
    sees = tile * TILE + at <= position
    block = tl.load(table + tile).to(tl.int64)
    k_ptrs = k_cache + (block * HEADS + head) * TILE * HEAD + at[:, None] * HEAD + dims[None, :]
    k = tl.load(k_ptrs, mask=(dims < HEAD)[None, :] & sees[:, None], other=0.0)
    return tl.where(sees[None, :], tl.dot(q, tl.trans(k)) * qk_scale, float("-inf"))


@triton.jit(do_not_specialize=["table_stride", "keys"])
def patterns(
    qkv_ptr,  # fp16 [T, HEADS, 3, HEAD], q rotated
    k_cache,
    out_ptr,  # fp32 [R, HEADS, keys], zeros
    rows_ptr,  # int64 [R]
    owners_ptr,  # int64 [R], the sequence of each
    positions_ptr,  # int32 [T]
    tables_ptr,
    table_stride,
    keys,
    qk_scale,
    HEAD: tl.constexpr,
    BD: tl.constexpr,
    HEADS: tl.constexpr,
    TILE: tl.constexpr,
):
    """One row and head. What it does depends on the row alone, tile after tile from position 0."""
    place = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    row = tl.load(rows_ptr + place)
    position = tl.load(positions_ptr + row)
    table = tables_ptr + tl.load(owners_ptr + place) * table_stride
    dims = tl.arange(0, BD)
    same = tl.zeros([16], tl.int32)  # the row as often as a product needs rows
    q_ptrs = qkv_ptr + (row * HEADS + head) * 3 * HEAD + same[:, None] + dims[None, :]
    q = tl.load(q_ptrs, mask=(dims < HEAD)[None, :], other=0.0)
    tiles = position // TILE + 1
    best = tl.full([16], float("-inf"), tl.float32)
    for tile in tl.range(0, tiles, 1, num_stages=2):
        score = scores(q, k_cache, table, tile, head, position, qk_scale, dims, HEAD, HEADS, TILE)
        best = tl.maximum(best, tl.max(score, 1))
    total = tl.zeros([16], tl.float32)
    for tile in tl.range(0, tiles, 1, num_stages=2):
        score = scores(q, k_cache, table, tile, head, position, qk_scale, dims, HEAD, HEADS, TILE)
        total += tl.sum(tl.math.exp2(score - best[:, None]), 1)
    at = tl.arange(0, TILE)[None, :]
    is_first = (tl.arange(0, 16) == 0)[:, None]
    to = out_ptr + (place * HEADS + head) * keys + same[:, None] + at
    for tile in tl.range(0, tiles, 1, num_stages=2):
        score = scores(q, k_cache, table, tile, head, position, qk_scale, dims, HEAD, HEADS, TILE)
        weights = tl.math.exp2(score - best[:, None]) / total[:, None]
        tl.store(to + tile * TILE, weights, mask=is_first & (tile * TILE + at <= position))
