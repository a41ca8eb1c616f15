"""Small pieces that every Triton kernel of the backend uses.

Bits: a tensor-core product adds its terms in an order that only the position along K decides, so
each output column is independent of the others and of the tile sizes. What could depend on the
layout of a tile (sums across threads) is computed exactly in integers or in one fixed layout, and
multiply-adds that must round alike in several kernels are spelled ``tl.fma``.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def widen(q, FAST: tl.constexpr):
    """int8 -> fp16, exact. ``FAST``: four at a time, as 1024 + 128 + q in the bits of an fp16."""
    if FAST:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 t, c;
            xor.b32 t, $2, 0x80808080;
            mov.b32 c, 0x64806480;
            prmt.b32 $0, t, 0x64646464, 0x4140;
            prmt.b32 $1, t, 0x64646464, 0x4342;
            sub.rn.f16x2 $0, $0, c;
            sub.rn.f16x2 $1, $1, c;
            }""",
            "=r,=r,r",
            [q],
            dtype=tl.float16,
            is_pure=True,
            pack=4,
        )
    else:
        return q.to(tl.float16)


@triton.jit
def wait_for_inputs(PDL: tl.constexpr):
    """Programmatic dependent launch: everything before this line overlaps the kernel before."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def prefetch(ptr, NBYTES: tl.constexpr, WARPS: tl.constexpr, ENABLED: tl.constexpr):
    """Ask for ``NBYTES`` bytes from ``ptr`` to come into the L2 cache (sm_90); no wait.

    Each thread asks for one piece; ``NBYTES`` is a multiple of 16 * 32 * WARPS.
    """
    if ENABLED:
        THREADS: tl.constexpr = 32 * WARPS
        PIECE: tl.constexpr = NBYTES // THREADS
        start = ptr + tl.arange(0, THREADS) * PIECE
        size = tl.full([THREADS], PIECE, tl.int32)
        tl.inline_asm_elementwise(
            "{ cp.async.bulk.prefetch.L2.global [$1], $2; mov.b32 $0, 0; }",
            "=r,l,r",
            [start.to(tl.int64), size],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
