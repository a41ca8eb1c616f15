"""Where a ranking ends: by how many candidates, or by how much weight.

A value's *order* is an int32 that rises with it (``sampling.order_of``). Let S(v) be the number or
the weight of the candidates whose order is above v. A candidate stays as long as what comes before
it in the ranking is less than a limit, so the last order that stays is the smallest v with
S(v) < limit. It is found by narrowing (low, high], where S(low) >= limit > S(high): each pass over
the row takes three orders between them, and the least and the greatest order of a candidate there.
First they divide the values' range evenly, which leaves few candidates after few passes; then the
orders', so that it ends whatever the values are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.sampling import LOWEST, order_of, value_of

_BY_VALUE = tl.constexpr(8)  # passes
_FAR = tl.constexpr(28.0)  # below the best a weight is 0: exp(-28) < 2^-40


@triton.jit
def cut(
    own,
    best,
    floor,
    last,
    share,
    count,
    num_ids,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    BY_WEIGHT: tl.constexpr,
):
    """(order, id) of the last candidate that stays, of those down to (``floor``, ``last``).

    The limit is ``count``, or ``share`` (fp64) of the candidates' weight.
    """
    at = tl.arange(0, BLOCK)
    low = tl.full([], LOWEST, tl.int64)
    high = order_of(best).to(tl.int64)
    limit, above = count.to(tl.int64), tl.full([], 0, tl.int64)
    turn = tl.full([], 0, tl.int32)
    while high - low > 1:
        t1, t2, t3 = _between(low, high, best, turn)
        s0, s1 = tl.zeros([BLOCK], tl.int64), tl.zeros([BLOCK], tl.int64)
        s2, s3 = tl.zeros([BLOCK], tl.int64), tl.zeros([BLOCK], tl.int64)
        least = tl.full([BLOCK], 0x7FFFFFFF, tl.int32)
        most = tl.full([BLOCK], LOWEST, tl.int32)
        for start in tl.range(0, VOCAB, BLOCK, num_stages=STAGES):
            ids = start + at
            z = tl.load(own + ids, mask=ids < VOCAB, other=float("-inf"))
            order = order_of(z)
            stays = (ids < num_ids) & ((order > floor) | ((order == floor) & (ids <= last)))
            weight = tl.where(stays, _weight(z, best, BY_WEIGHT), 0)
            s0 += weight
            s1 += tl.where(order > t1.to(tl.int32), weight, 0)
            s2 += tl.where(order > t2.to(tl.int32), weight, 0)
            s3 += tl.where(order > t3.to(tl.int32), weight, 0)
            is_between = stays & (order > low.to(tl.int32)) & (order <= high.to(tl.int32))
            least = tl.minimum(least, tl.where(is_between, order, 0x7FFFFFFF))
            most = tl.maximum(most, tl.where(is_between, order, LOWEST))
        if BY_WEIGHT:
            limit = tl.ceil(share * tl.sum(s0, 0).to(tl.float64)).to(tl.int64)
        low, high, above = _narrowed(low, high, above, limit, t1, tl.sum(s1, 0))
        low, high, above = _narrowed(low, high, above, limit, t2, tl.sum(s2, 0))
        low, high, above = _narrowed(low, high, above, limit, t3, tl.sum(s3, 0))
        low = tl.maximum(low, tl.min(least, 0).to(tl.int64) - 1)
        high = tl.minimum(high, tl.max(most, 0).to(tl.int64))
        turn += 1
    order = high.to(tl.int32)
    each = tl.max(_weight(tl.zeros([BLOCK], tl.float32) + value_of(order), best, BY_WEIGHT), 0)
    wanted = tl.where(each > 0, (limit - above + each - 1) // tl.maximum(each, 1), VOCAB)
    return order, _id_of(own, order, floor, last, wanted, num_ids, VOCAB, BLOCK, STAGES)


@triton.jit
def _weight(z, best, BY_WEIGHT: tl.constexpr):
    """int64, like ``z``: 1, or the weight of a value with 40 fractional bits."""
    if BY_WEIGHT:
        return (tl.exp(z - best) * 1099511627776.0).to(tl.int64)
    else:
        return tl.full(z.shape, 1, tl.int64)


@triton.jit
def _between(low, high, best, turn):
    """Three rising orders from ``low`` to ``high``."""
    by_order = (turn >= _BY_VALUE) | ((turn > 0) & (low == LOWEST))
    bottom = tl.where(low == LOWEST, best - _FAR, value_of(low.to(tl.int32)))
    part = (value_of(high.to(tl.int32)) - bottom) * 0.25
    v1 = tl.where(turn == 0, bottom, bottom + part)
    v2 = tl.where(turn == 0, best - 12.0, bottom + 2 * part)
    v3 = tl.where(turn == 0, best - 5.0, bottom + 3 * part)
    quarter = (high - low) // 4
    t1 = tl.where(by_order, low + quarter, order_of(v1).to(tl.int64))
    t2 = tl.where(by_order, low + 2 * quarter + (high - low) % 4 // 2, order_of(v2).to(tl.int64))
    t3 = tl.where(by_order, high - quarter, order_of(v3).to(tl.int64))
    t1 = tl.minimum(tl.maximum(t1, low), high)
    t2 = tl.minimum(tl.maximum(t2, t1), high)
    return t1, t2, tl.minimum(tl.maximum(t3, t2), high)


@triton.jit
def _narrowed(low, high, above, limit, order, found):
    """The bounds after S(order) was found; ``above`` is S(high)."""
    is_lower = (found < limit) & (order < high)
    is_higher = (found >= limit) & (order > low)
    above = tl.where(is_lower, found, above)
    return tl.where(is_higher, order, low), tl.where(is_lower, order, high), above


@triton.jit
def _id_of(
    own,
    order,
    floor,
    last,
    wanted,
    num_ids,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Id of the candidate of one order that is the ``wanted``-th by rising id, or of the last."""
    at = tl.arange(0, BLOCK)
    end = tl.where(order == floor, last, VOCAB)
    seen = tl.full([], 0, tl.int64)
    found = tl.full([], 0, tl.int32)
    for start in range(0, VOCAB, BLOCK):
        ids = start + at
        z = tl.load(own + ids, mask=ids < VOCAB, other=float("-inf"))
        is_tie = (order_of(z) == order) & (ids < num_ids) & (ids <= end)
        here = tl.sum(is_tie.to(tl.int32), 0)
        if (here > 0) & (seen < wanted):
            ranks = seen + tl.cumsum(is_tie.to(tl.int32), 0)
            stays = is_tie & (ranks <= wanted)
            found = tl.maximum(found, tl.max(tl.where(stays, ids, 0), 0))
        seen += here
    return found
