"""Log-probabilities and ranks: what is known of the parts of a row of logits, then of the row.

A part is so many ids, and all that is summed up of it is an integer. So it does not matter which
kernel has the logits, the head's product or one that reads them, nor in what layout.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.prefill import accumulate_wide

PART = tl.constexpr(128)  # ids that are summed up together: part of the bits
PLANES = tl.constexpr(4)  # what is known of each part, int32
LOG2E = tl.constexpr(1.4426950408889634)
ONE = tl.constexpr(0x3F800000)  # bits of 1.0; 2^-23 more of it is one more bit
UNIT = tl.constexpr(65536.0)  # by which a part's weight is multiplied before it is an integer
SUM_UNIT = tl.constexpr(2.0**-39)  # of all of them: 23 bits of the part's, 16 of the weight's


@triton.jit
def part_of(z, ids, own, target, VOCAB: tl.constexpr):
    """Of parts fp32 [N, PART]: bits of the greatest, sum, how many rank above, first greatest.

    The sum is of exponentials beside the greatest, as integers of 23 bits behind the point: exact
    in every layout, so whichever kernel has the logits, it finds the same. It is 0 where a logit is
    not finite.
    """
    is_id = ids < VOCAB
    z = tl.where(is_id, z, float("-inf"))
    top = tl.max(z, 1)
    is_bad = is_id & ((tl.abs(z) < float("inf")) == 0)
    bits = (tl.exp2((z - top[:, None]) * LOG2E) + 1.0).to(tl.int32, bitcast=True) - ONE
    total = tl.where(tl.max(is_bad.to(tl.int32), 1) == 0, tl.sum(bits, 1), 0)
    above = tl.sum(((z > own) | ((z == own) & (ids < target))).to(tl.int32), 1)
    first = tl.min(tl.where(z == top[:, None], ids, VOCAB), 1)
    return top.to(tl.int32, bitcast=True), total, above, first


@triton.jit
def store_part(part_ptr, at, plane, top, total, above, first, mask):
    """Put what ``part_of`` found to the four planes."""
    tl.store(part_ptr + at, top, mask=mask)
    tl.store(part_ptr + plane + at, total, mask=mask)
    tl.store(part_ptr + 2 * plane + at, above, mask=mask)
    tl.store(part_ptr + 3 * plane + at, first, mask=mask)


# Targets begin anywhere in an array: one compiled kernel for all alignments.
@triton.jit(do_not_specialize=["num_rows"], do_not_specialize_on_alignment=["targets_ptr"])
def target_logits(
    w_ptr,  # fp16 [VOCAB, H]
    h_ptr,  # fp16 [R, H], normed
    targets_ptr,  # int32 [R]
    value_ptr,  # fp32 [R]
    num_rows,
    h_scale,
    VOCAB: tl.constexpr,
    H: tl.constexpr,
    BK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The targets' logits, with the bits of ``head_product``: the diagonal of a small product."""
    at = tl.arange(0, ROWS)
    rows = tl.program_id(0) * ROWS + at
    is_row = rows < num_rows
    targets = tl.load(targets_ptr + rows, mask=is_row, other=0)
    targets = tl.minimum(tl.maximum(targets, 0), VOCAB - 1)
    ks = tl.arange(0, BK)
    w_ptrs = w_ptr + targets.to(tl.int64)[None, :] * H + ks[:, None]
    h_ptrs = h_ptr + rows.to(tl.int64)[:, None] * H + ks[None, :]
    acc = tl.zeros([ROWS, ROWS], tl.float32)
    for k in range(0, H, BK):
        h = tl.load(h_ptrs + k, mask=is_row[:, None], other=0.0)
        acc = tl.dot(h, tl.load(w_ptrs + k), acc)
    own = tl.sum(tl.where(at[:, None] == at[None, :], acc, 0.0), 1)
    tl.store(value_ptr + rows, own * h_scale, mask=is_row)


@triton.jit(do_not_specialize=["num_rows"], do_not_specialize_on_alignment=["targets_ptr"])
def head_parts(
    w,  # fp16 [VOCAB, H]
    h,  # fp16 [R, H], normed
    targets_ptr,  # int32 [R]
    value_ptr,  # fp32 [R], from ``target_logits``
    part_ptr,  # int32 [PLANES, PARTS, R]
    num_rows,
    h_scale,
    VOCAB: tl.constexpr,
    H: tl.constexpr,
    PARTS: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
    STAGES: tl.constexpr,
    TMA: tl.constexpr,
):
    """What ``logit_parts`` makes of the head's logits, which are never written."""
    GROUP: tl.constexpr = 8
    pid = tl.program_id(0)
    first = pid // (GROUP * PARTS) * GROUP
    height = tl.minimum(tl.cdiv(num_rows, BT) - first, GROUP)
    inside = pid % (GROUP * PARTS)
    row = (first + inside % height) * BT
    part = inside // height
    acc = accumulate_wide(
        x=h,
        w=w,
        token=row,
        row=part * PART,
        x_col=0,
        w_row=0,
        num_tokens=num_rows,
        num_rows=VOCAB,
        X_STRIDE=H,
        DEPTH=H,
        BT=BT,
        BR=PART,
        BK=BK,
        STAGES=STAGES,
        TMA=TMA,
    )
    rows = row + tl.arange(0, BT)
    is_row = rows < num_rows
    own = tl.load(value_ptr + rows, mask=is_row, other=0.0)[:, None]
    target = tl.load(targets_ptr + rows, mask=is_row, other=0)[:, None]
    ids = (part * PART + tl.arange(0, PART))[None, :]
    top, total, above, best = part_of(acc * h_scale, ids, own, target, VOCAB)
    at = part * num_rows + rows
    store_part(part_ptr, at, PARTS * num_rows, top, total, above, best, is_row)


@triton.jit(do_not_specialize=["num_rows"], do_not_specialize_on_alignment=["targets_ptr"])
def logit_parts(
    logits_ptr,  # fp32 [R, VOCAB]
    targets_ptr,  # int32 [R]
    value_ptr,  # fp32 [R], the targets' logits are put there
    part_ptr,  # int32 [PLANES, PARTS, R]
    limit_ptr,  # int32 [R], read where LIMITED: below 0 for a row that nobody asks for
    num_rows,
    VOCAB: tl.constexpr,
    PARTS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    LIMITED: tl.constexpr,
):
    """What is known of AT_ONCE parts of a row of logits."""
    row = tl.program_id(0)
    if LIMITED:
        if tl.load(limit_ptr + row) < 0:
            return
    base = logits_ptr + row.to(tl.int64) * VOCAB
    parts = tl.program_id(1) * AT_ONCE + tl.arange(0, AT_ONCE)
    ids = parts[:, None] * PART + tl.arange(0, PART)[None, :]
    target = tl.load(targets_ptr + row)
    own = tl.load(base + tl.minimum(tl.maximum(target, 0), VOCAB - 1))
    z = tl.load(base + ids, mask=ids < VOCAB, other=0.0)
    top, total, above, best = part_of(z, ids, own, target, VOCAB)
    at = parts * num_rows + row
    store_part(part_ptr, at, PARTS * num_rows, top, total, above, best, parts < PARTS)
    if tl.program_id(1) == 0:
        tl.store(value_ptr + row, own)


@triton.jit(do_not_specialize=["num_rows"], do_not_specialize_on_alignment=["targets_ptr"])
def fold_parts(
    part_ptr,  # int32 [PLANES, PARTS, R]
    targets_ptr,  # int32 [R]
    value_ptr,  # fp32 [R], logits of the targets; becomes their log-probabilities, NaN if unsound
    rank_ptr,  # int32 [R], 0 there
    norm_ptr,  # fp32 [R], ln of the sum of all exponentials
    best_id_ptr,  # int32 [R], written where BEST, -1 there
    best_ptr,  # fp32 [R], its log-probability, written where BEST
    limit_ptr,  # int32 [R], read where LIMITED: below 0 for a row that nobody asks for
    num_rows,
    VOCAB: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BEST: tl.constexpr,
    LIMITED: tl.constexpr,
):
    """Of some rows; sums are of integers, exact like those of the parts."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = rows < num_rows
    if LIMITED:
        is_row &= tl.load(limit_ptr + rows, mask=is_row, other=-1) >= 0
    parts = tl.arange(0, WIDTH)[:, None]
    mask = (parts < PARTS) & is_row[None, :]
    own_ptr = part_ptr + parts * num_rows + rows[None, :]
    plane = PARTS * num_rows
    top = tl.load(own_ptr, mask=mask, other=-0x800000).to(tl.float32, bitcast=True)
    total = tl.load(own_ptr + plane, mask=mask, other=1)
    above = tl.load(own_ptr + 2 * plane, mask=mask, other=0)
    target = tl.load(targets_ptr + rows, mask=is_row, other=-1)
    is_sound = (tl.min(total, 0) > 0) & (target >= 0) & (target < VOCAB)
    greatest = tl.max(tl.where(is_sound[None, :], top, 0.0), 0)
    beside = tl.where(is_sound[None, :], top - greatest[None, :], 0.0)
    weight = tl.exp2(beside * LOG2E) * total.to(tl.float32)
    sum = tl.sum((weight * UNIT).to(tl.int64), 0).to(tl.float32)
    norm = greatest + tl.log(sum * SUM_UNIT)
    norm = tl.where(is_sound, norm, float("nan"))
    tl.store(norm_ptr + rows, norm, mask=is_row)
    tl.store(value_ptr + rows, tl.load(value_ptr + rows, mask=is_row) - norm, mask=is_row)
    tl.store(rank_ptr + rows, tl.where(is_sound, 1 + tl.sum(above, 0), 0), mask=is_row)
    if BEST:
        first = tl.load(own_ptr + 3 * plane, mask=mask, other=VOCAB)
        id = tl.min(tl.where(top == greatest[None, :], first, VOCAB), 0)
        tl.store(best_id_ptr + rows, tl.where(is_sound, id, -1), mask=is_row)
        tl.store(best_ptr + rows, greatest - norm, mask=is_row)
