"""Products for many tokens: int8 weights are widened to fp16 once, then multiplied by ``wgmma``.

An int8 is exact in fp16 and the groups along K are those of ``products``, so are the bits. Tokens
are the left operand here, which stores rows of activations without a transposition.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.products import gelu, pair_offsets


@triton.jit
def widen_weights(
    w_ptr,  # int16 pairs [ROWS, DEPTH / 2]
    out_ptr,  # fp16 [ROWS, DEPTH]
    DEPTH: tl.constexpr,
    BK: tl.constexpr,
    ROWS_AT_ONCE: tl.constexpr,
):
    """BK inputs of a few rows of a weight matrix as fp16."""
    HALF: tl.constexpr = BK // 2
    rows = tl.program_id(0).to(tl.int64) * ROWS_AT_ONCE + tl.arange(0, ROWS_AT_ONCE)
    cols = tl.arange(0, HALF)
    block = tl.program_id(1)
    pairs = tl.load(w_ptr + pair_offsets(rows, block * HALF + cols, DEPTH, HALF))
    out = out_ptr + rows[:, None] * DEPTH + block * BK + cols[None, :]
    tl.store(out, ((pairs & 0xFF) - 128).to(tl.float16))
    tl.store(out + HALF, (((pairs >> 8) & 0xFF) - 128).to(tl.float16))


@triton.jit
def load_tile(
    source,
    row,
    col,
    num_rows,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    TMA: tl.constexpr,
):
    """fp16 [ROWS, COLS] at (row, col) of a matrix; rows past its end are zero."""
    if TMA:
        return source.load([row, col])
    else:
        rows = row + tl.arange(0, ROWS)
        ptrs = source + rows.to(tl.int64)[:, None] * STRIDE + col + tl.arange(0, COLS)[None, :]
        return tl.load(ptrs, mask=rows[:, None] < num_rows, other=0.0)


@triton.jit
def accumulate_wide(
    x,
    w,
    token,
    row,
    x_col,
    w_row,  # row of w, where it holds several matrices
    num_tokens,
    num_rows,
    X_STRIDE: tl.constexpr,
    DEPTH: tl.constexpr,
    BT: tl.constexpr,
    BR: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    TMA: tl.constexpr,
):
    """fp32 [BT, BR]: tokens times rows of fp16 weights over DEPTH inputs from ``x_col``."""
    acc = tl.zeros([BT, BR], tl.float32)
    for k in tl.range(0, DEPTH, BK, num_stages=STAGES):
        a = load_tile(x, token, x_col + k, num_tokens, X_STRIDE, BT, BK, TMA)
        b = load_tile(w, w_row + row, k, num_rows, DEPTH, BR, BK, TMA)
        acc = tl.dot(a, tl.trans(b), acc)
    return acc


@triton.jit
def tile_at(num_tokens, ROWS: tl.constexpr, BT: tl.constexpr, BR: tl.constexpr):
    """(first token, first row) of this program's tile; groups share the L2 cache."""
    GROUP: tl.constexpr = 8
    ACROSS: tl.constexpr = ROWS // BR
    pid = tl.program_id(0)
    first = pid // (GROUP * ACROSS) * GROUP
    height = tl.minimum(tl.cdiv(num_tokens, BT) - first, GROUP)
    inside = pid % (GROUP * ACROSS)
    return (first + inside % height) * BT, inside // height * BR


@triton.jit(do_not_specialize=["num_tokens"])
def prefill_in(
    w,  # fp16 [QKV + UP, H]
    scale_ptr,
    bias_ptr,
    h,  # fp16 [2 T, H]
    qkv_ptr,
    up_ptr,
    num_tokens,
    gelu_scale,
    H: tl.constexpr,
    QKV: tl.constexpr,
    UP: tl.constexpr,
    BT: tl.constexpr,
    BR: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    TMA: tl.constexpr,
):
    """``products.in_product``."""
    token, row = tile_at(num_tokens, QKV + UP, BT, BR)
    is_up = row >= QKV
    start = token + tl.where(is_up, num_tokens, 0)
    acc = accumulate_wide(
        x=h,
        w=w,
        token=start,
        row=row,
        x_col=0,
        w_row=0,
        num_tokens=2 * num_tokens,
        num_rows=QKV + UP,
        X_STRIDE=H,
        DEPTH=H,
        BT=BT,
        BR=BR,
        BK=BK,
        STAGES=STAGES,
        TMA=TMA,
    )
    rows = row + tl.arange(0, BR)
    y = tl.fma(acc, tl.load(scale_ptr + rows)[None, :], tl.load(bias_ptr + rows)[None, :])
    tokens = (token + tl.arange(0, BT)).to(tl.int64)[:, None]
    mask = tokens < num_tokens
    if is_up:
        y = gelu(y) * gelu_scale
        tl.store(up_ptr + tokens * UP + (rows - QKV)[None, :], y.to(tl.float16), mask=mask)
    else:
        tl.store(qkv_ptr + tokens * QKV + rows[None, :], y.to(tl.float16), mask=mask)


@triton.jit(do_not_specialize=["num_tokens"])
def prefill_add(
    w,  # fp16 [H, DEPTH]
    scale_ptr,
    bias_ptr,
    a,  # fp16 [T, X_STRIDE], of which DEPTH columns from ``col`` on
    x_ptr,  # fp32 [T, H]
    num_tokens,
    col,
    H: tl.constexpr,
    DEPTH: tl.constexpr,
    X_STRIDE: tl.constexpr,
    BIAS: tl.constexpr,
    BT: tl.constexpr,
    BR: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    TMA: tl.constexpr,
):
    """x += scale * (a w) + bias: one piece of ``products.out_partial``, added as ``norm`` does."""
    token, row = tile_at(num_tokens, H, BT, BR)
    acc = accumulate_wide(
        x=a,
        w=w,
        token=token,
        row=row,
        x_col=col,
        w_row=0,
        num_tokens=num_tokens,
        num_rows=H,
        X_STRIDE=X_STRIDE,
        DEPTH=DEPTH,
        BT=BT,
        BR=BR,
        BK=BK,
        STAGES=STAGES,
        TMA=TMA,
    )
    rows = row + tl.arange(0, BR)
    tokens = (token + tl.arange(0, BT)).to(tl.int64)[:, None]
    mask = tokens < num_tokens
    x_ptrs = x_ptr + tokens * H + rows[None, :]
    x = tl.load(x_ptrs, mask=mask, other=0.0)
    if BIAS:
        x += tl.load(bias_ptr + rows)[None, :]
    tl.store(x_ptrs, tl.fma(acc, tl.load(scale_ptr + rows)[None, :], x), mask=mask)
