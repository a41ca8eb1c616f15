"""Small pieces that every Triton kernel of the backend uses.

Bits: the tensor cores take K in groups of 16 and add the groups in order; inside a group the order
does not matter. So an output is independent of the other rows and columns and of the tile sizes,
as long as every kernel forms the same groups in the same order: k = 0..15, 16..31, and so on.
What else could depend on the layout of a tile (sums across threads) is added exactly, in integers,
and multiply-adds that must round alike in several kernels are spelled ``tl.fma``.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def low_bytes(pairs, FAST: tl.constexpr):
    """fp16 value of the low byte of each 16-bit pair; bytes hold q + 128.

    ``FAST``: the byte goes into the mantissa of 1024, two values at a time; exact.
    """
    if FAST:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 c; mov.b32 c, 0x64806480; prmt.b32 $0, $1, 0x64646464, 0x4240;"
            " sub.rn.f16x2 $0, $0, c; }",
            "=r,r",
            [pairs],
            dtype=tl.float16,
            is_pure=True,
            pack=2,
        )
    else:
        return ((pairs & 0xFF) - 128).to(tl.float16)


@triton.jit
def high_bytes(pairs, FAST: tl.constexpr):
    """The same of the high byte."""
    if FAST:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 c; mov.b32 c, 0x64806480; prmt.b32 $0, $1, 0x64646464, 0x4341;"
            " sub.rn.f16x2 $0, $0, c; }",
            "=r,r",
            [pairs],
            dtype=tl.float16,
            is_pure=True,
            pack=2,
        )
    else:
        return (((pairs >> 8) & 0xFF) - 128).to(tl.float16)


@triton.jit
def exact_sum(values, exponent):
    """Sum of fp32 ``values`` below 2^exponent in magnitude, the same in every layout.

    The terms become integers of at most 2^48; up to 2^14 of them fit into an int64.
    """
    up = ((127 + 48 - exponent) << 23).to(tl.float32, bitcast=True)
    down = ((127 - 48 + exponent) << 23).to(tl.float32, bitcast=True)
    return tl.sum((values * up).to(tl.int64), 0).to(tl.float32) * down
