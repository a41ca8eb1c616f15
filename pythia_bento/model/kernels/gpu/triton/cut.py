"""Where a ranking ends: by how many candidates, or by how much weight.

A value's *order* is an int32 that rises with it (``sampling.order_of``). Let S(v) be the number or
the weight of the candidates above v. A candidate stays as long as what comes before it in the
ranking is less than a limit, so the last value that stays is the smallest v with S(v) < limit. It
is found by narrowing (low, high], where S(low) >= limit > S(high): each pass over the row takes
three values between them, and the least and the greatest candidate there. First they lie about
where a line from S(low) to S(high) meets the limit, which leaves few candidates after few passes;
then they divide the orders evenly, so that it ends whatever the values are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.sampling import LOWEST, order_of, value_of
from pythia_bento.model.kernels.gpu.triton.shared import agree

_BY_VALUE = tl.constexpr(10)  # passes
_FAR = tl.constexpr(28.0)  # below the best a weight is 0: exp(-28) < 2^-40


@triton.jit
def cut(
    own,  # fp32, a row's values; -inf is no candidate
    board,
    turn,  # of the programs that share the row
    splits,
    begin,  # ids of this program
    end,
    best,
    share,
    count,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    BY_WEIGHT: tl.constexpr,
):
    """Order and id of the last candidate that stays, and the next turn.

    The limit is ``count``, or ``share`` (fp64) of the candidates' weight.
    """
    low = tl.full([], LOWEST, tl.int64)
    high = order_of(best).to(tl.int64)
    limit, above = count.to(tl.int64), tl.full([], 0, tl.int64)
    below = limit
    passes, ties = tl.full([], 0, tl.int32), tl.full([], 0, tl.int64)
    are_many = high > low
    while are_many:
        t1, t2, t3 = _between(low, high, below, above, limit, best, passes)
        s0, s1, s2, s3, ties, least, most = _sums(
            own, begin, end, best, low, high, t1, t2, t3, BLOCK, STAGES, BY_WEIGHT
        )
        s0, s1, s2, s3, ties, least, most = agree(
            board, turn, splits, s0, s1, s2, s3, ties, least, most
        )
        if BY_WEIGHT:
            limit = tl.ceil(share * s0.to(tl.float64)).to(tl.int64)
        low, high, below, above = _narrowed(low, high, below, above, limit, t1, s1)
        low, high, below, above = _narrowed(low, high, below, above, limit, t2, s2)
        low, high, below, above = _narrowed(low, high, below, above, limit, t3, s3)
        low, high = tl.maximum(low, least - 1), tl.minimum(high, most)
        are_many = least != most  # else all candidates there have one value
        passes += 1
        turn += 1
    value = value_of(high.to(tl.int32))
    each = tl.max(_weight(tl.zeros([BLOCK], tl.float32) + value, best, BY_WEIGHT).to(tl.int64), 0)
    wanted = tl.where(each > 0, (limit - above + each - 1) // tl.maximum(each, 1), VOCAB)
    last = tl.full([], VOCAB, tl.int32)
    if wanted < ties:
        last = _id_of(own, value, wanted, VOCAB, BLOCK)
    return high.to(tl.int32), last, turn


@triton.jit
def drop(own, floor, last, begin, end, BLOCK: tl.constexpr, STAGES: tl.constexpr):
    """What is behind the ``last`` id of value ``floor`` is no candidate any more."""
    at = tl.arange(0, BLOCK)
    for start in tl.range(begin, end, BLOCK, num_stages=STAGES):
        ids = start + at
        z = tl.load(own + ids, mask=ids < end, other=0.0)
        is_out = (z < floor) | ((z == floor) & (ids > last))
        tl.store(own + ids, tl.full([BLOCK], float("-inf"), tl.float32), mask=is_out & (ids < end))


@triton.jit
def _sums(
    own,
    begin,
    end,
    best,
    low,
    high,
    t1,
    t2,
    t3,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    BY_WEIGHT: tl.constexpr,
):
    """S(-inf) and S of three orders; how many are in (low, high], the least and the greatest."""
    at = tl.arange(0, BLOCK)
    v1, v2, v3 = value_of(t1.to(tl.int32)), value_of(t2.to(tl.int32)), value_of(t3.to(tl.int32))
    bottom = tl.where(low == LOWEST, float("-inf"), value_of(low.to(tl.int32)))
    top = value_of(high.to(tl.int32))
    kind = tl.int64 if BY_WEIGHT else tl.int32
    s0, s1 = tl.zeros([BLOCK], kind), tl.zeros([BLOCK], kind)
    s2, s3 = tl.zeros([BLOCK], kind), tl.zeros([BLOCK], kind)
    least = tl.full([BLOCK], float("inf"), tl.float32)
    most = tl.full([BLOCK], float("-inf"), tl.float32)
    inside = tl.zeros([BLOCK], tl.int32)
    z = tl.load(own + begin + at, mask=begin + at < end, other=float("-inf"))
    for start in tl.range(begin, end, BLOCK, num_stages=STAGES):
        further = start + BLOCK + at  # what comes next is on its way meanwhile
        following = tl.load(own + further, mask=further < end, other=float("-inf"))
        weight = _weight(z, best, BY_WEIGHT)
        if BY_WEIGHT:
            s0 += weight
        s1 += tl.where(z > v1, weight, 0)
        s2 += tl.where(z > v2, weight, 0)
        s3 += tl.where(z > v3, weight, 0)
        least = tl.minimum(least, tl.where(z > bottom, z, float("inf")))
        most = tl.maximum(most, tl.where(z <= top, z, float("-inf")))
        inside += ((z > bottom) & (z <= top)).to(tl.int32)
        z = following
    return (
        tl.sum(s0, 0).to(tl.int64),
        tl.sum(s1, 0).to(tl.int64),
        tl.sum(s2, 0).to(tl.int64),
        tl.sum(s3, 0).to(tl.int64),
        tl.sum(inside, 0).to(tl.int64),
        order_of(tl.min(least, 0)).to(tl.int64),
        order_of(tl.max(most, 0)).to(tl.int64),
    )


@triton.jit
def _weight(z, best, BY_WEIGHT: tl.constexpr):
    """Like ``z``: 1, or the weight of a value with 40 fractional bits."""
    if BY_WEIGHT:
        return (tl.exp(z - best) * 1099511627776.0).to(tl.int64)
    else:
        return tl.full(z.shape, 1, tl.int32)


@triton.jit
def _between(low, high, below, above, limit, best, passes):
    """Three rising orders from ``low`` to ``high``, where S is ``below`` and ``above``."""
    bottom, top = value_of(low.to(tl.int32)), value_of(high.to(tl.int32))
    part = (limit - above).to(tl.float32) / (below - above).to(tl.float32)
    middle, reach = top + (bottom - top) * part, (top - bottom) * 0.125
    v1 = tl.where(passes == 0, best - _FAR, middle - reach)
    v2 = tl.where(passes == 0, best - 12.0, middle)
    v3 = tl.where(passes == 0, best - 5.0, middle + reach)
    quarter = (high - low) // 4
    by_order = passes >= _BY_VALUE
    t1 = tl.where(by_order, low + quarter, order_of(v1).to(tl.int64))
    t2 = tl.where(by_order, low + 2 * quarter + (high - low) % 4 // 2, order_of(v2).to(tl.int64))
    t3 = tl.where(by_order, high - quarter, order_of(v3).to(tl.int64))
    t1 = tl.minimum(tl.maximum(t1, low), high)
    t2 = tl.minimum(tl.maximum(t2, t1), high)
    return t1, t2, tl.minimum(tl.maximum(t3, t2), high)


@triton.jit
def _narrowed(low, high, below, above, limit, order, found):
    """The bounds after S(order) was found; S is ``below`` and ``above`` at them."""
    is_lower = (found < limit) & (order < high)
    is_higher = (found >= limit) & (order > low)
    below, above = tl.where(is_higher, found, below), tl.where(is_lower, found, above)
    return tl.where(is_higher, order, low), tl.where(is_lower, order, high), below, above


@triton.jit
def _id_of(own, value, wanted, VOCAB: tl.constexpr, BLOCK: tl.constexpr):
    """The ``wanted``-th id, from 1 on, that has a value; what other programs wrote is read too."""
    at = tl.arange(0, BLOCK)
    seen = tl.full([], 0, tl.int64)
    found = tl.full([], 0, tl.int32)
    for start in range(0, VOCAB, BLOCK):
        ids = start + at
        z = tl.load(own + ids, mask=ids < VOCAB, other=0.0, cache_modifier=".cg")
        is_tie = (z == value) & (ids < VOCAB)
        here = tl.sum(is_tie.to(tl.int32), 0)
        if (here > 0) & (seen < wanted):
            ranks = seen + tl.cumsum(is_tie.to(tl.int32), 0)
            stays = is_tie & (ranks <= wanted)
            found = tl.maximum(found, tl.max(tl.where(stays, ids, 0), 0))
        seen += here
    return found
