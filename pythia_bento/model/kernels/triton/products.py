"""Products of int8 weights with fp16 activations: one tile loop for decode and prefill.

Weights are the left operand and tokens the right one, so a token is a column of ``tl.dot`` and
its bits depend neither on the other tokens nor on the tile sizes. K is walked in order; where it
is cut (``out_partial``), the cuts are the model's: one piece for the attention's projection and
``CHUNKS`` for the MLP's, always added in the same order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.triton.device import prefetch, wait_for_inputs, widen


@triton.jit
def gelu(x):
    """Exact (erf) GELU."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def accumulate(
    w_ptr,
    x_ptr,
    rows,
    tokens,
    num_tokens,
    W_STRIDE: tl.constexpr,
    X_STRIDE: tl.constexpr,
    DEPTH: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    FAST: tl.constexpr,
    INT8: tl.constexpr,
):
    """fp32 [BM, BN]: weights of ``rows`` times ``tokens`` over the next DEPTH inputs."""
    ks = tl.arange(0, BK)
    w_ptrs = w_ptr + rows.to(tl.int64)[:, None] * W_STRIDE + ks[None, :]
    x_ptrs = x_ptr + tokens.to(tl.int64)[None, :] * X_STRIDE + ks[:, None]
    is_token = tokens[None, :] < num_tokens
    acc = tl.zeros([BM, BN], tl.float32)
    for k in tl.range(0, DEPTH, BK, num_stages=STAGES):
        w = tl.load(w_ptrs + k)
        x = tl.load(x_ptrs + k, mask=is_token, other=0.0)
        if INT8:
            acc = tl.dot(widen(w, FAST), x, acc)
        else:
            acc = tl.dot(w, x, acc)
    return acc


@triton.jit
def tile_of(num_tokens, ROWS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """(row tile, token tile) of this program; groups of row tiles share the L2 cache."""
    GROUP: tl.constexpr = 8
    pid = tl.program_id(0)
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
    WARPS: tl.constexpr,
    FAST: tl.constexpr,
    PDL: tl.constexpr,
    PREFETCH: tl.constexpr,
):
    """qkv = W_qkv h1 + b and up = gelu(W_up h2 + b); the rows of W are qkv's, then up's."""
    tile, across = tile_of(num_tokens, QKV + UP, BM, BN)
    rows = tile * BM + tl.arange(0, BM)
    tokens = across * BN + tl.arange(0, BN)
    prefetch(w_ptr + tile.to(tl.int64) * BM * H, BM * H, WARPS, PREFETCH)
    scale = tl.load(scale_ptr + rows)[:, None]
    bias = tl.load(bias_ptr + rows)[:, None]
    wait_for_inputs(PDL)
    is_up = tile * BM >= QKV
    x_ptr = h_ptr + tl.where(is_up, h_stride, 0)
    acc = accumulate(
        w_ptr, x_ptr, rows, tokens, num_tokens, H, H, H, BM, BN, BK, STAGES, FAST, True
    )
    y = tl.fma(acc, scale, bias)
    wide = tokens.to(tl.int64)[None, :]
    mask = wide < num_tokens
    if is_up:
        y = gelu(y) * gelu_scale
        tl.store(up_ptr + wide * UP + (rows - QKV)[:, None], y.to(tl.float16), mask=mask)
    else:
        tl.store(qkv_ptr + wide * QKV + rows[:, None], y.to(tl.float16), mask=mask)


@triton.jit(do_not_specialize=["num_tokens"])
def out_partial(
    dense_ptr,
    down_ptr,  # int8 [CHUNKS, H, UP / CHUNKS]
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
    WARPS: tl.constexpr,
    FAST: tl.constexpr,
    PDL: tl.constexpr,
    PREFETCH: tl.constexpr,
):
    """Unscaled sums of each piece of K, for few tokens; ``norm`` adds them up.

    Axis 1 of the grid: pieces from FIRST on; 0 is dense, 1 to CHUNKS are down's.
    """
    DEPTH: tl.constexpr = UP // CHUNKS
    tile, across = tile_of(num_tokens, H, BM, BN)
    piece = tl.program_id(1) + FIRST
    rows = tile * BM + tl.arange(0, BM)
    tokens = across * BN + tl.arange(0, BN)
    if piece == 0:
        prefetch(dense_ptr + tile.to(tl.int64) * BM * H, BM * H, WARPS, PREFETCH)
        wait_for_inputs(PDL)
        acc = accumulate(
            *(dense_ptr, attended_ptr, rows, tokens, num_tokens, H, H, H),
            *(BM, BN, BK, STAGES, FAST, True),
        )
    else:
        w_ptr = down_ptr + (piece - 1).to(tl.int64) * H * DEPTH
        x_ptr = up_ptr + (piece - 1) * DEPTH
        prefetch(w_ptr + tile.to(tl.int64) * BM * DEPTH, BM * DEPTH, WARPS, PREFETCH)
        wait_for_inputs(PDL)
        acc = accumulate(
            *(w_ptr, x_ptr, rows, tokens, num_tokens, DEPTH, UP, DEPTH),
            *(BM, BN, BK, STAGES, FAST, True),
        )
    wide = tokens.to(tl.int64)[None, :]
    ptrs = part_ptr + (piece.to(tl.int64) * num_tokens + wide) * H + rows[:, None]
    tl.store(ptrs, acc, mask=wide < num_tokens)


@triton.jit
def residual(x, dense, dense_scale, down, down_scale, bias):
    """x + dense * dense_scale + down * down_scale + bias, rounded alike everywhere."""
    return x + tl.fma(down, down_scale, tl.fma(dense, dense_scale, bias))


@triton.jit(do_not_specialize=["num_tokens"])
def out_product(
    dense_ptr,
    down_ptr,
    dense_scale_ptr,
    down_scale_ptr,
    bias_ptr,
    attended_ptr,
    up_ptr,
    x_ptr,
    num_tokens,
    H: tl.constexpr,
    UP: tl.constexpr,
    CHUNKS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    FAST: tl.constexpr,
):
    """x += dense(attended) + down(up), for many tokens: the sums of ``out_partial``, in place."""
    DEPTH: tl.constexpr = UP // CHUNKS
    tile, across = tile_of(num_tokens, H, BM, BN)
    rows = tile * BM + tl.arange(0, BM)
    tokens = across * BN + tl.arange(0, BN)
    down = tl.zeros([BM, BN], tl.float32)
    for piece in tl.static_range(CHUNKS):
        down += accumulate(
            *(down_ptr + piece * H * DEPTH, up_ptr + piece * DEPTH, rows, tokens, num_tokens),
            *(DEPTH, UP, DEPTH, BM, BN, BK, STAGES, FAST, True),
        )
    dense = accumulate(
        *(dense_ptr, attended_ptr, rows, tokens, num_tokens, H, H, H),
        *(BM, BN, BK, STAGES, FAST, True),
    )
    dense_scale = tl.load(dense_scale_ptr + rows)[:, None]
    down_scale = tl.load(down_scale_ptr + rows)[:, None]
    bias = tl.load(bias_ptr + rows)[:, None]
    wide = tokens.to(tl.int64)[None, :]
    mask = wide < num_tokens
    x_ptrs = x_ptr + wide * H + rows[:, None]
    x = tl.load(x_ptrs, mask=mask, other=0.0)
    tl.store(x_ptrs, residual(x, dense, dense_scale, down, down_scale, bias), mask=mask)


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
    PDL: tl.constexpr,
):
    """Logits fp32 [T, VOCAB] from normed hidden states fp16 [T, H]."""
    tile, across = tile_of(num_tokens, VOCAB, BM, BN)
    rows = tile * BM + tl.arange(0, BM)
    tokens = across * BN + tl.arange(0, BN)
    wait_for_inputs(PDL)
    acc = accumulate(
        *(w_ptr, h_ptr, tl.minimum(rows, VOCAB - 1), tokens, num_tokens, H, H, H),
        *(BM, BN, BK, STAGES, False, False),
    )
    wide = tokens.to(tl.int64)[None, :]
    mask = (wide < num_tokens) & (rows[:, None] < VOCAB)
    tl.store(logits_ptr + wide * VOCAB + rows[:, None], acc * h_scale, mask=mask)
