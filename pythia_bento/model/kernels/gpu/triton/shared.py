"""How programs that share a row agree on sums over it, all of which are integers.

A row has a board of int64 zeros: a slot of ``SLOT`` numbers for each turn, and the number of those
who have left. In a turn every program adds its part and waits for the others, so all must be on the
device at the same time: the launcher starts no more than there are multiprocessors. The last one to
leave wipes the board.
"""

from __future__ import annotations

import triton
import triton.language as tl

SLOT = 8  # numbers of a turn: five sums, two greatest, who is there
TURNS = 64  # more than any row takes
BOARD = SLOT * TURNS + 1
_SLOT = tl.constexpr(SLOT)
_LEFT = tl.constexpr(SLOT * TURNS)
_WIPED = tl.constexpr(2 * SLOT * TURNS)
_RAISE = tl.constexpr(1 << 40)  # makes what is compared positive, as the board begins with 0


@triton.jit
def agree(board, turn, splits, a, b, c, d, e, least, most):
    """Sums of ``a`` to ``e`` over all programs, the least and the greatest; all int64 scalars."""
    if splits > 1:
        slot = board + turn * _SLOT
        tl.atomic_add(slot, a, sem="relaxed")
        tl.atomic_add(slot + 1, b, sem="relaxed")
        tl.atomic_add(slot + 2, c, sem="relaxed")
        tl.atomic_add(slot + 3, d, sem="relaxed")
        tl.atomic_add(slot + 4, e, sem="relaxed")
        tl.atomic_max(slot + 5, _RAISE - least, sem="relaxed")
        tl.atomic_max(slot + 6, _RAISE + most, sem="relaxed")
        there = tl.atomic_add(slot + 7, 1, sem="acq_rel") + 1
        while there < splits:
            there = tl.atomic_add(slot + 7, 0, sem="acquire")
        a = tl.load(slot, volatile=True)
        b = tl.load(slot + 1, volatile=True)
        c = tl.load(slot + 2, volatile=True)
        d = tl.load(slot + 3, volatile=True)
        e = tl.load(slot + 4, volatile=True)
        least = _RAISE - tl.load(slot + 5, volatile=True)
        most = tl.load(slot + 6, volatile=True) - _RAISE
    return a, b, c, d, e, least, most


@triton.jit
def leave(board, splits):
    """Nothing is read from the board any more."""
    if splits > 1:
        if tl.atomic_add(board + _LEFT, 1, sem="acq_rel") == splits - 1:
            at = tl.arange(0, _WIPED)
            tl.store(board + at, tl.zeros([_WIPED], tl.int64), mask=at <= _LEFT)
