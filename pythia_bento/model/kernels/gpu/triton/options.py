"""What the options of a row make of its logits, before a token is chosen.

``prepare`` follows ``model/sampling.py`` up to the candidates. It writes what is left of the logits
after bias, penalties and temperature, and where the ranking ends that top-k and top-p cut. Weights
are summed as integers of 40 fractional bits and counts are integers, so no order of addition and no
search can change a choice. min-p is a comparison and stays with ``sampling.choose_partial``.

Several programs share a row where there are multiprocessors for all of them; see ``shared.py``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.cut import cut, drop
from pythia_bento.model.kernels.gpu.triton.sampling import LOWEST, order_of, value_of
from pythia_bento.model.kernels.gpu.triton.shared import agree, leave

# How a row is to be chosen.
PLAIN = tl.constexpr(0)  # from its logits
PREPARED = tl.constexpr(1)  # from what ``prepare`` wrote
FAILED = tl.constexpr(2)  # a logit is not finite
_MOST = tl.constexpr(3.4028234663852886e38)  # of fp32


# One compiled kernel for every number of rows, biases and tokens seen: none of them is a constant.
@triton.jit(do_not_specialize=["num_ids", "width", "rows", "num_biases", "splits", "span"])
def prepare(
    logits_ptr,  # fp32 [R, VOCAB]
    z_ptr,  # fp32 [R, VOCAB], written where a row has options; -inf is no candidate
    status_ptr,  # int32 [R]
    floor_ptr,  # int32 [R], order of the lowest value that stays
    last_ptr,  # int32 [R], among values of that order the last id that stays
    best_ptr,  # fp32 [R], the largest value
    board_ptr,  # int64 [R, BOARD], see ``shared.py``
    positions_ptr,  # int32 [R], of the token being chosen
    inputs_ptr,  # int32 [R], where INSERT the token before it
    temperature_ptr,  # fp32 [R], 0 is greedy
    active_ptr,  # int32 [R], 0 for a row without options
    top_k_ptr,  # int32 [R], 0 is off
    top_p_ptr,  # fp64 [R]
    bias_start_ptr,  # int32 [R + 1]
    bias_id_ptr,  # int32 [N], of a row distinct
    bias_ptr,  # fp32 [2, N]: addends before a row's ``early`` position, and from there on
    early_ptr,  # int32 [R]
    penalty_ptr,  # fp32 [3, R]: repetition, frequency, presence
    prompt_ptr,  # int32 [R]: tokens of the prompt, -1 where there are no penalties
    seen_ptr,  # int32 [3, R, width], see ``_penalise``
    num_seen_ptr,  # int32 [R], entries of ``seen`` where not INSERT
    num_ids,
    width,
    rows,  # R of ``penalty`` and ``seen``
    num_biases,  # N
    splits,  # programs that share a row
    span,  # ids of each
    BOARD: tl.constexpr,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    LIST: tl.constexpr,
    STAGES: tl.constexpr,
    INSERT: tl.constexpr,
):
    """One program's ids of one row."""
    row, part = tl.program_id(0), tl.program_id(1)
    if tl.load(active_ptr + row) == 0:
        tl.store(status_ptr + row, PLAIN)
        return
    begin = part * span
    end = tl.minimum(begin + span, VOCAB)
    logits, own = logits_ptr + row.to(tl.int64) * VOCAB, z_ptr + row.to(tl.int64) * VOCAB
    board = board_ptr + row * BOARD
    temperature = tl.load(temperature_ptr + row)
    prompt = tl.load(prompt_ptr + row)
    first_bias, last_bias = tl.load(bias_start_ptr + row), tl.load(bias_start_ptr + row + 1)
    source = logits
    if (prompt >= 0) | (last_bias > first_bias):
        _copy(logits, own, begin, end, BLOCK, STAGES)
        tl.debug_barrier()
        position = tl.load(positions_ptr + row)
        values = bias_ptr + tl.where(position < tl.load(early_ptr + row), 0, num_biases)
        _bias(own, bias_id_ptr, values, first_bias, last_bias, begin, end, LIST)
        tl.debug_barrier()
        if prompt >= 0:
            seen = seen_ptr + row.to(tl.int64) * width
            length = position if INSERT else tl.load(num_seen_ptr + row)
            _penalise(
                own,
                seen,
                rows * width,
                tl.load(inputs_ptr + row),
                length,
                prompt,
                penalty_ptr + row,
                rows,
                begin,
                end,
                LIST,
                INSERT,
            )
            tl.debug_barrier()
        source = own
    best, bad = _temper(logits, source, own, temperature, begin, end, num_ids, VOCAB, BLOCK, STAGES)
    zero = bad * 0
    bad, _, _, _, _, _, order = agree(
        board, 0, splits, bad, zero, zero, zero, zero, zero, order_of(best).to(tl.int64)
    )
    best = value_of(order.to(tl.int32))
    floor, last = tl.full([], LOWEST, tl.int32), tl.full([], VOCAB, tl.int32)
    turn = tl.full([], 1, tl.int32)
    if temperature > 0:
        top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
        if (top_k > 0) & (top_k < num_ids):
            floor, last, turn = cut(
                own,
                board,
                turn,
                splits,
                begin,
                end,
                best,
                top_p,
                top_k,
                VOCAB,
                BLOCK,
                STAGES,
                False,
            )
            if top_p < 1:
                drop(own, value_of(floor), last, begin, end, BLOCK, STAGES)
                tl.debug_barrier()
        if top_p < 1:
            floor, last, turn = cut(
                own, board, turn, splits, begin, end, best, top_p, top_k, VOCAB, BLOCK, STAGES, 1
            )
    if part == 0:
        tl.store(floor_ptr + row, floor)
        tl.store(last_ptr + row, last)
        tl.store(best_ptr + row, best)
        tl.store(status_ptr + row, tl.where(bad > 0, FAILED, PREPARED))
    leave(board, splits)


@triton.jit
def _copy(source, own, begin, end, BLOCK: tl.constexpr, STAGES: tl.constexpr):
    """A program's part of a row, to be changed."""
    at = tl.arange(0, BLOCK)
    for start in tl.range(begin, end, BLOCK, num_stages=STAGES):
        ids = start + at
        tl.store(own + ids, tl.load(source + ids, mask=ids < end), mask=ids < end)


@triton.jit
def _temper(
    logits,
    source,
    own,
    temperature,
    begin,
    end,
    num_ids,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Divide by the temperature, if any; the largest, and whether a logit is not finite (int64)."""
    at = tl.arange(0, BLOCK)
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    bad = tl.zeros([BLOCK], tl.int32)
    divisor = tl.where(temperature > 0, temperature, 1.0)
    for start in tl.range(begin, end, BLOCK, num_stages=STAGES):
        ids = start + at
        raw = tl.load(logits + ids, mask=ids < end, other=0.0)
        bad |= ((raw != raw) | (tl.abs(raw) == float("inf"))).to(tl.int32)
        z = tl.load(source + ids, mask=ids < end, other=0.0)
        # A banned token stays behind all others, and a row that has failed ends like others, as
        # no candidate is an infinity or NaN.
        z = _finite(tl.div_rn(_finite(z), tl.zeros([BLOCK], tl.float32) + divisor))
        z = tl.where(ids < num_ids, z, float("-inf"))
        tl.store(own + ids, z, mask=ids < end)
        best = tl.maximum(best, tl.where(ids < end, z, float("-inf")))
    return tl.max(best, 0), tl.max(bad, 0).to(tl.int64)


@triton.jit
def _finite(z):
    """The nearest finite value; the least one for NaN."""
    return tl.where(z == z, tl.minimum(tl.maximum(z, -_MOST), _MOST), -_MOST)


@triton.jit
def _bias(own, id_ptr, values, first, last, begin, end, LIST: tl.constexpr):
    """Add a row's biases to the ids of one program."""
    for start in range(first, last, LIST):
        at = start + tl.arange(0, LIST)
        ids = tl.load(id_ptr + at, mask=at < last, other=-1)
        counts = (ids >= begin) & (ids < end)
        z = tl.load(own + ids, mask=counts) + tl.load(values + at, mask=counts)
        tl.store(own + ids, z, mask=counts)


@triton.jit
def _penalise(
    own,
    seen,
    plane,
    token,
    length,
    prompt,
    penalty_ptr,
    rows,
    begin,
    end,
    LIST: tl.constexpr,
    INSERT: tl.constexpr,
):
    """Penalise what a row has seen: by place its token, its count and the place that follows it.

    With INSERT places are positions, ``token`` comes last and is put at its place. A count is how
    often a token was generated up to there; the place that follows is the next one of the same
    token, 0 where there is none. An entry holds until then, so what is written for one position is
    the same however often its step is computed, and nothing has to be taken back. All programs of a
    row write the same, and only to entries of ``token``, which none of them takes from ``seen``.
    """
    repetition = tl.load(penalty_ptr)
    frequency = tl.load(penalty_ptr + rows)
    presence = tl.load(penalty_ptr + 2 * rows)
    known = length - 1 if INSERT else length
    before = tl.full([], -1, tl.int32)
    count = tl.full([], 0, tl.int32)
    for start in range(0, known, LIST):
        at = start + tl.arange(0, LIST)
        ids = tl.load(seen + at, mask=at < known, other=-1)
        counts = tl.load(seen + plane + at, mask=at < known, other=0)
        further = tl.load(seen + 2 * plane + at, mask=at < known, other=0)
        holds = (ids >= begin) & (ids < end) & ((further == 0) | (further >= length))
        if INSERT:
            is_same = (at < known) & (ids == token)
            before = tl.maximum(before, tl.max(tl.where(is_same, at, -1), 0))
            count = tl.maximum(count, tl.max(tl.where(is_same, counts, 0), 0))
            holds &= ids != token
        z = tl.load(own + ids, mask=holds, other=0.0)
        z = _penalised(z, counts, repetition, frequency, presence)
        tl.store(own + ids, z, mask=holds)
    if INSERT:
        count += (known >= prompt).to(tl.int32)
        if (token >= begin) & (token < end):
            z = tl.load(own + token)
            tl.store(own + token, _penalised(z, count, repetition, frequency, presence))
        tl.store(seen + known, token)
        tl.store(seen + plane + known, count)
        tl.store(seen + 2 * plane + known, 0)
        tl.store(seen + 2 * plane + before, known, mask=before >= 0)


@triton.jit
def _penalised(z, counts, repetition, frequency, presence):
    """Each operation rounded by itself; the kernel is compiled without fused ones."""
    z = tl.where(z > 0, tl.div_rn(z, repetition + 0.0 * z), z * repetition)
    z = z - counts.to(tl.float32) * frequency
    return tl.where(counts > 0, z - presence, z)


@triton.jit(do_not_specialize=["stride", "width", "rows"])
def recall(
    told_ptr,  # int32 [R, stride], tokens by position
    places_ptr,  # int32 [R], the rows of ``seen``
    lengths_ptr,  # int32 [R]
    prompt_ptr,  # int32, by row of ``seen``
    seen_ptr,  # int32 [3, rows, width]
    stride,
    width,
    rows,
    LIST: tl.constexpr,
):
    """What ``_penalise`` would have written for tokens that the host tells, LIST of a row."""
    told = tl.program_id(0)
    row, length = tl.load(places_ptr + told), tl.load(lengths_ptr + told)
    at = tl.program_id(1) * LIST + tl.arange(0, LIST)
    if tl.program_id(1) * LIST >= length:
        return
    tokens = told_ptr + told.to(tl.int64) * stride
    prompt = tl.load(prompt_ptr + row)
    own = tl.load(tokens + at, mask=at < length, other=-1)
    counts, further = tl.zeros([LIST], tl.int32), tl.full([LIST], 0x7FFFFFFF, tl.int32)
    for place in range(0, length):
        is_same = own == tl.load(tokens + place)
        counts += (is_same & (place <= at) & (place >= prompt)).to(tl.int32)
        further = tl.where(is_same & (place > at), tl.minimum(further, place), further)
    seen = seen_ptr + row.to(tl.int64) * width + at
    tl.store(seen, own, mask=at < length)
    tl.store(seen + rows * width, counts, mask=at < length)
    further = tl.where(further == 0x7FFFFFFF, 0, further)
    tl.store(seen + 2 * rows * width, further, mask=at < length)
