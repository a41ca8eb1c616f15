"""Products of int8 weights with the fp16 activations of up to some hundred tokens.

Weights are the left operand and tokens the right one, so a token is a column of ``tl.dot``. K is
walked in order, DEPTH_AT_ONCE inputs at a time; where it is cut (``out_partial``), the cuts are the
model's: one piece for the attention's projection and CHUNKS for the MLP's, always added in the same
order. ``prefill`` has the same sums for many tokens.

Two int8 weights share 16 bits, the second half of every DEPTH_AT_ONCE inputs in the high bytes:
Triton then loads fragments as it does for fp16, and each half is a plain product.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.device import high_bytes, low_bytes


@triton.jit
def gelu(x):
    """Exact (erf) GELU."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def pair_offsets(rows, cols, depth, WIDTH: tl.constexpr):
    """Where the pairs of weights at ``rows`` and ``cols`` are: [R, C], see ``packing.paired``."""
    row_part = (rows // 16).to(tl.int64) * (8 * depth) + rows % 16 * WIDTH
    col_part = cols // WIDTH * (16 * WIDTH) + cols % 16
    segment = (cols % WIDTH // 16)[None, :] ^ (rows % (WIDTH // 16))[:, None]
    return row_part[:, None] + (segment * 16 + col_part[None, :])


@triton.jit
def accumulate(
    w_ptr,  # int16 pairs [rows, w_depth / 2]
    x_ptr,
    rows,
    tokens,
    num_tokens,
    w_depth,
    x_stride,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    FAST: tl.constexpr,
):
    """fp32 [BM, BN]: weights of ``rows`` times ``tokens``."""
    HALF: tl.constexpr = BK // 2
    ks = tl.arange(0, HALF)
    w_ptrs = w_ptr + pair_offsets(rows, ks, w_depth, HALF)
    x_ptrs = x_ptr + tokens.to(tl.int64)[None, :] * x_stride + ks[:, None]
    is_token = tokens[None, :] < num_tokens
    acc = tl.zeros([BM, BN], tl.float32)
    for k in tl.range(0, w_depth, BK, num_stages=STAGES):
        pairs = tl.load(w_ptrs + k * 8)
        first = tl.load(x_ptrs + k, mask=is_token, other=0.0)
        second = tl.load(x_ptrs + k + HALF, mask=is_token, other=0.0)
        acc = tl.dot(low_bytes(pairs, FAST), first, acc)
        acc = tl.dot(high_bytes(pairs, FAST), second, acc)
    return acc


@triton.jit
def tile_of(pid, num_tokens, ROWS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """(row tile, token tile) of a program; groups of row tiles share the L2 cache."""
    GROUP: tl.constexpr = 8
    across = tl.cdiv(num_tokens, BN)
    TILES: tl.constexpr = (ROWS + BM - 1) // BM
    first = pid // (GROUP * across) * GROUP
    height = tl.minimum(TILES - first, GROUP)
    inside = pid % (GROUP * across)
    return first + inside % height, inside // height


@triton.jit(do_not_specialize=["num_tokens"])
def in_product(
    w_ptr,
    scale_ptr,
    bias_ptr,
    h_ptr,  # fp16 [2, T, H]: normed for attention, normed for the MLP
    qkv_ptr,
    up_ptr,
    num_tokens,
    h_stride,  # between the two
    gelu_scale,
    H: tl.constexpr,
    QKV: tl.constexpr,
    UP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    FAST: tl.constexpr,
):
    """qkv = W_qkv h1 + b and up = gelu(W_up h2 + b); the rows of W are qkv's, then up's."""
    tile, across = tile_of(tl.program_id(0), num_tokens, QKV + UP, BM, BN)
    rows = tile * BM + tl.arange(0, BM)
    tokens = across * BN + tl.arange(0, BN)
    is_up = tile * BM >= QKV
    x_ptr = h_ptr + tl.where(is_up, h_stride, 0)
    acc = accumulate(
        w_ptr=w_ptr,
        x_ptr=x_ptr,
        rows=rows,
        tokens=tokens,
        num_tokens=num_tokens,
        w_depth=H,
        x_stride=H,
        BM=BM,
        BN=BN,
        BK=BK,
        STAGES=STAGES,
        FAST=FAST,
    )
    y = tl.fma(acc, tl.load(scale_ptr + rows)[:, None], tl.load(bias_ptr + rows)[:, None])
    wide = tokens.to(tl.int64)[None, :]
    mask = wide < num_tokens
    if is_up:
        y = gelu(y) * gelu_scale
        tl.store(up_ptr + wide * UP + (rows - QKV)[:, None], y.to(tl.float16), mask=mask)
    else:
        tl.store(qkv_ptr + wide * QKV + rows[:, None], y.to(tl.float16), mask=mask)


@triton.jit(do_not_specialize=["num_tokens"])
def out_partial(
    dense_ptr,  # int16 [H, H / 2]
    down_ptr,  # int16 [CHUNKS, H, UP / CHUNKS / 2]
    attended_ptr,
    up_ptr,
    part_ptr,  # fp32 [1 + CHUNKS, T, H]
    num_tokens,
    H: tl.constexpr,
    UP: tl.constexpr,
    CHUNKS: tl.constexpr,
    FIRST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    FAST: tl.constexpr,
):
    """Tiles of pieces of K from FIRST on (axis 1 of the grid), unscaled; ``norm`` adds them up.

    Piece 0 is dense, 1 to CHUNKS are down's.
    """
    pid = tl.program_id(0)
    piece = tl.program_id(1) + FIRST
    DEPTH: tl.constexpr = UP // CHUNKS
    tile, across = tile_of(pid, num_tokens, H, BM, BN)
    rows = tile * BM + tl.arange(0, BM)
    tokens = across * BN + tl.arange(0, BN)
    is_dense = piece == 0
    if is_dense:
        w_ptr = dense_ptr
        x_ptr = attended_ptr
    else:
        w_ptr = down_ptr + (piece - 1).to(tl.int64) * H * (DEPTH // 2)
        x_ptr = up_ptr + (piece - 1) * DEPTH
    acc = accumulate(
        w_ptr=w_ptr,
        x_ptr=x_ptr,
        rows=rows,
        tokens=tokens,
        num_tokens=num_tokens,
        w_depth=tl.where(is_dense, H, DEPTH),
        x_stride=tl.where(is_dense, H, UP),
        BM=BM,
        BN=BN,
        BK=BK,
        STAGES=STAGES,
        FAST=FAST,
    )
    wide = tokens.to(tl.int64)[None, :]
    ptrs = part_ptr + (piece.to(tl.int64) * num_tokens + wide) * H + rows[:, None]
    tl.store(ptrs, acc, mask=wide < num_tokens)


@triton.jit(do_not_specialize=["num_tokens"])
def head_product(
    w_ptr,
    h_ptr,
    logits_ptr,
    num_tokens,
    h_scale,
    VOCAB: tl.constexpr,
    H: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Logits fp32 [T, VOCAB] from normed hidden states fp16 [T, H] and fp16 weights."""
    tile, across = tile_of(tl.program_id(0), num_tokens, VOCAB, BM, BN)
    rows = tile * BM + tl.arange(0, BM)
    tokens = across * BN + tl.arange(0, BN)
    ks = tl.arange(0, BK)
    w_ptrs = w_ptr + tl.minimum(rows, VOCAB - 1).to(tl.int64)[:, None] * H + ks[None, :]
    x_ptrs = h_ptr + tokens.to(tl.int64)[None, :] * H + ks[:, None]
    acc = tl.zeros([BM, BN], tl.float32)
    for k in tl.range(0, H, BK, num_stages=STAGES):
        w = tl.load(w_ptrs + k)
        x = tl.load(x_ptrs + k, mask=tokens[None, :] < num_tokens, other=0.0)
        acc = tl.dot(w, x, acc)
    wide = tokens.to(tl.int64)[None, :]
    mask = (wide < num_tokens) & (rows[:, None] < VOCAB)
    tl.store(logits_ptr + wide * VOCAB + rows[:, None], acc * h_scale, mask=mask)
