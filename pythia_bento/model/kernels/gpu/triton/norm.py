"""LayerNorm of both branches, with the additions before it: one program for each token."""

from __future__ import annotations

import triton
import triton.language as tl

from pythia_bento.model.kernels.gpu.triton.device import exact_sum


@triton.jit(do_not_specialize=["num_tokens"])
def norm(
    x_ptr,  # fp32 [T, H]
    table_ptr,  # fp16 [V, H], read when EMBED
    token_ids_ptr,
    part_ptr,  # fp32 [1 + CHUNKS, T, H], read when CHUNKS > 0
    dense_scale_ptr,
    down_scale_ptr,
    bias_ptr,
    norms_ptr,  # fp32 [NORMS, 2, H]: weight and bias of each norm
    h_ptr,  # fp16 [NORMS, T, H]
    num_tokens,
    h_stride,
    eps,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNKS: tl.constexpr,
    EMBED: tl.constexpr,
    NORMS: tl.constexpr,
):
    """h[i] = norm_i(x), after x was looked up or the pieces of ``out_partial`` were added to it."""
    token = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < H
    x_ptrs = x_ptr + token * H + cols
    if EMBED:
        row = tl.load(token_ids_ptr + token).to(tl.int64)
        x = tl.load(table_ptr + row * H + cols, mask=mask, other=0.0).to(tl.float32)
        tl.store(x_ptrs, x, mask=mask)
    else:
        x = tl.load(x_ptrs, mask=mask, other=0.0)
    if CHUNKS > 0:
        ptrs = part_ptr + token * H + cols
        step = num_tokens.to(tl.int64) * H
        down_scale = tl.load(down_scale_ptr + cols, mask=mask, other=0.0)
        scale = tl.load(dense_scale_ptr + cols, mask=mask, other=0.0)
        x += tl.load(bias_ptr + cols, mask=mask, other=0.0)
        for piece in tl.static_range(CHUNKS + 1):
            part = tl.load(ptrs + piece * step, mask=mask, other=0.0)
            x = tl.fma(part, scale, x)
            scale = down_scale
        tl.store(x_ptrs, x, mask=mask)
    if NORMS > 0:
        largest = tl.max(tl.abs(x), 0)
        SHARE: tl.constexpr = 1.0 / H
        exponent = (largest.to(tl.int32, bitcast=True) >> 23) - 126
        exponent = tl.minimum(tl.maximum(exponent, -30), 60)
        mean = tl.fma(largest, 0.0, exact_sum(x, exponent) * SHARE)  # NaN where x is not finite
        centred = tl.where(mask, x - mean, 0.0)
        variance = tl.fma(exact_sum(centred * centred, 2 * exponent + 2), SHARE, eps)
        unit = centred * (1.0 / tl.sqrt_rn(variance))
        for i in tl.static_range(NORMS):
            weight = tl.load(norms_ptr + 2 * i * H + cols, mask=mask, other=0.0)
            bias = tl.load(norms_ptr + (2 * i + 1) * H + cols, mask=mask, other=0.0)
            h = tl.fma(unit, weight, bias)
            tl.store(h_ptr + i * h_stride + token * H + cols, h.to(tl.float16), mask=mask)
