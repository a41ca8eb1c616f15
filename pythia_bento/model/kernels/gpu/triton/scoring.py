"""The best tokens of rows of logits, and where log-probabilities go; ``parts`` finds those."""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.sampling import key_of


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
    norm_ptr,  # from ``fold_parts``
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
    top_ptr,  # fp32 [R, TOP], as ``fold_parts`` and ``best`` left them
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
