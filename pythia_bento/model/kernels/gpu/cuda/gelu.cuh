// GELU with the bits of ``products.gelu``.

#pragma once

#include "base.cuh"

// erf as CUDA's library computes it, which is what Triton's tl.erf compiles to.
__device__ __forceinline__ float erf_approx(float a) {
    const float size = fabsf(a);
    const bool is_far = size >= __int_as_float(0x3F8060FE);
    const float z = is_far ? size : __fmul_rn(a, a);
    const float base = is_far ? -size : a;
    float p = __int_as_float(is_far ? 0x3789CA3C : 0x38B1E96A);
    p = fma_ftz(p, z, __int_as_float(is_far ? 0xB9F560B9 : 0xBA574D20));
    p = fma_ftz(p, z, __int_as_float(is_far ? 0x3BAC840B : 0x3BAAD5EA));
    p = fma_ftz(p, z, __int_as_float(is_far ? 0xBD0C8162 : 0xBCDC1BE7));
    p = fma_ftz(p, z, __int_as_float(is_far ? 0x3E1CF906 : 0x3DE718AF));
    p = fma_ftz(p, z, __int_as_float(is_far ? 0x3F6A937E : 0xBEC093AC));
    p = fma_ftz(p, z, __int_as_float(is_far ? 0x3F20D842 : 0x3E0375D3));
    p = fma_ftz(p, base, base);
    return is_far ? copysignf(__fadd_rn(1.0f, -exp2_approx(p)), a) : p;
}

__device__ __forceinline__ float gelu(float a) {
    return __fmul_rn(__fmul_rn(a, 0.5f), __fadd_rn(erf_approx(__fmul_rn(a, 0.7071067811865476f)), 1.0f));
}
