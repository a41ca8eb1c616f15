"""Log-probabilities, ranks and the best tokens of rows of logits."""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.sampling import key_of


# Targets begin anywhere in an array: one compiled kernel for all alignments.
@triton.jit(do_not_specialize_on_alignment=["targets_ptr"])
def score(
    logits_ptr,  # fp32 [R, VOCAB]
    targets_ptr,  # int32 [R]
    value_ptr,  # fp32 [R], log-probability of the target; NaN where a logit is not finite
    rank_ptr,  # int32 [R], 0 there
    norm_ptr,  # fp32 [R], ln of the sum of all exponentials
    best_id_ptr,  # int32 [R], written where BEST, -1 there
    best_ptr,  # fp32 [R], its log-probability, written where BEST
    limit_ptr,  # int32 [R], read where LIMITED: below 0 for a row that nobody asks for
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    BEST: tl.constexpr,
    STAGES: tl.constexpr,
    LIMITED: tl.constexpr,
):
    """One row, its sum in one fixed layout."""
    row = tl.program_id(0)
    if LIMITED:
        if tl.load(limit_ptr + row) < 0:
            return
    base = logits_ptr + row.to(tl.int64) * VOCAB
    at = tl.arange(0, BLOCK)
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    bad = tl.zeros([BLOCK], tl.int32)
    for start in tl.range(0, VOCAB, BLOCK, num_stages=STAGES):
        z = tl.load(base + start + at, mask=start + at < VOCAB, other=float("-inf"))
        bad |= ((z != z) | ((tl.abs(z) == float("inf")) & (start + at < VOCAB))).to(tl.int32)
        best = tl.maximum(best, z)
    top = tl.max(best, 0)
    target = tl.load(targets_ptr + row)
    is_id = (target >= 0) & (target < VOCAB)
    own = tl.load(base + tl.where(is_id, target, 0))
    total = tl.zeros([BLOCK], tl.float32)
    above = tl.zeros([BLOCK], tl.int32)
    first = tl.full([BLOCK], VOCAB, tl.int32)
    for start in tl.range(0, VOCAB, BLOCK, num_stages=STAGES):
        ids = start + at
        z = tl.load(base + ids, mask=ids < VOCAB, other=float("-inf"))
        total += tl.exp(z - top)
        above += ((z > own) | ((z == own) & (ids < target))).to(tl.int32)
        if BEST:
            first = tl.minimum(first, tl.where(z == top, ids, VOCAB))
    is_sound = (tl.max(bad, 0) == 0) & is_id
    norm = tl.where(is_sound, top + tl.log(tl.sum(total, 0)), float("nan"))
    tl.store(norm_ptr + row, norm)
    tl.store(value_ptr + row, own - norm)
    tl.store(rank_ptr + row, tl.where(is_sound, 1 + tl.sum(above, 0), 0))
    if BEST:
        tl.store(best_id_ptr + row, tl.where(is_sound, tl.min(first, 0), -1))
        tl.store(best_ptr + row, top - norm)


@triton.jit
def best_of_part(
    logits_ptr,
    key_ptr,  # int64 [R, PARTS]
    limit_ptr,  # int32 [R], read where LIMITED: 0 or less for a row that nobody asks for
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    LIMITED: tl.constexpr,
):
    """The greatest key among BLOCK ids of one row."""
    row = tl.program_id(0)
    part = tl.program_id(1)
    if LIMITED:
        if tl.load(limit_ptr + row) <= 0:
            return
    key = _keys(logits_ptr + row.to(tl.int64) * VOCAB, part, VOCAB, BLOCK)
    tl.store(key_ptr + row * PARTS + part, tl.max(key, 0))


@triton.jit(do_not_specialize=["count"])
def best(
    logits_ptr,
    key_ptr,  # from ``best_of_part``
    norm_ptr,  # from ``score``
    id_ptr,  # int32 [R, count], by falling value, then rising id; -1 where there is no norm
    value_ptr,  # fp32 [R, count], log-probabilities
    limit_ptr,  # int32 [R], read where LIMITED: how many a row is asked for
    count,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    LIMITED: tl.constexpr,
):
    """The best ids of one row: the greatest key of all, then its part's next one, and so on."""
    row = tl.program_id(0)
    wanted = count
    if LIMITED:
        wanted = tl.minimum(count, tl.load(limit_ptr + row))
        if wanted <= 0:
            return
    base = logits_ptr + row.to(tl.int64) * VOCAB
    parts = tl.arange(0, WIDTH)
    keys = tl.load(key_ptr + row * PARTS + parts, mask=parts < PARTS, other=-0x7FFFFFFFFFFFFFFF)
    norm = tl.load(norm_ptr + row)
    for place in range(0, wanted):
        greatest = tl.max(keys, 0)
        id = 0x7FFFFFFF - (greatest & 0x7FFFFFFF).to(tl.int32)
        tl.store(id_ptr + row * count + place, tl.where(norm == norm, id, -1))
        tl.store(value_ptr + row * count + place, tl.load(base + id) - norm)
        key = _keys(base, id // BLOCK, VOCAB, BLOCK)
        further = tl.max(tl.where(key < greatest, key, -0x7FFFFFFFFFFFFFFF), 0)
        keys = tl.where(parts == id // BLOCK, further, keys)


@triton.jit
def record(
    value_ptr,  # fp32 [R] and
    id_ptr,  # int32 [R, TOP] and
    top_ptr,  # fp32 [R, TOP], as ``score`` and ``best`` left them
    limit_ptr,  # int32 [R], below 0 for a row that nobody asks for
    lengths_ptr,  # int32 [R], of the contexts with the token that they are of
    ring_ptr,  # int32 [1 + 2 TOP, ROWS, RING]: bits of its value, then id and bits of each other
    TOP: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    RING: tl.constexpr,
):
    """Put a row's log-probabilities where the host finds those of its last steps."""
    row = tl.program_id(0)
    limit = tl.load(limit_ptr + row)
    if limit < 0:
        return
    own = ring_ptr + row * RING + (tl.load(lengths_ptr + row) - 1) % RING
    tl.store(own, tl.load(value_ptr + row).to(tl.int32, bitcast=True))
    place = tl.arange(0, WIDTH)
    asked = place < tl.minimum(limit, TOP)
    ids = tl.load(id_ptr + row * TOP + place, mask=asked, other=0)
    values = tl.load(top_ptr + row * TOP + place, mask=asked, other=0.0)
    plane = ROWS * RING
    tl.store(own + (1 + 2 * place) * plane, ids, mask=asked)
    tl.store(own + (2 + 2 * place) * plane, values.to(tl.int32, bitcast=True), mask=asked)


@triton.jit
def _keys(base, part, VOCAB: tl.constexpr, BLOCK: tl.constexpr):
    """int64 [BLOCK]: no two ids have the same; below all others where there is no id."""
    ids = part * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(base + ids, mask=ids < VOCAB, other=0.0)
    return tl.where(ids < VOCAB, key_of(z, ids), -0x7FFFFFFFFFFFFFFF)
