// LayerNorm as norm.py has it: exact sums, so that no division among threads changes a bit.

#pragma once

#include "device.cuh"

__device__ __forceinline__ float power_of_two(int exponent) {
    return __int_as_float((127 + exponent) << 23);
}

// Combine one value of each of ``count`` warps that are neighbours; every lane has its warp's.
template <class T, class Op>
__device__ __forceinline__ T across_warps(T value, T* room, int count, Op op) {
    const int warp = threadIdx.x / 32;
    if (count == 1) return value;
    consumers_sync();
    if (threadIdx.x % 32 == 0) room[warp] = value;
    consumers_sync();
    const int first = warp / count * count;
    T all = room[first];
    for (int i = 1; i < count; ++i) all = op(all, room[first + i]);
    return all;
}

__device__ __forceinline__ long long warp_sum(long long value) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) value += __shfl_xor_sync(~0u, value, i);
    return value;
}

// Weight and bias of a norm, fp32 [2, H], at the columns of one of COUNT warps' threads. Loaded
// before the hidden state is there.
template <int COUNT>
struct NormWeights {
    static constexpr int EACH = (H + 128 * COUNT - 1) / (128 * COUNT);
    float4 weight[EACH], bias[EACH];

    __device__ __forceinline__ static int column(int i) {
        return (i * 32 * COUNT + threadIdx.x % (32 * COUNT)) * 4;
    }
    __device__ __forceinline__ explicit NormWeights(const float* norm) {
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            if (column(i) >= H) continue;
            weight[i] = *(const float4*)(norm + column(i));
            bias[i] = *(const float4*)(norm + H + column(i));
        }
    }
};

__device__ __forceinline__ float4 hidden_at(const float* x, const u16* embedded, int col) {
    if (!embedded) return __ldcg((const float4*)(x + col));
    const ushort4 e = *(const ushort4*)(embedded + col);
    return make_float4(to_float(e.x), to_float(e.y), to_float(e.z), to_float(e.w));
}

// One token's hidden state in the registers of COUNT neighbouring warps.
template <int COUNT>
struct Hidden {
    using Norm = NormWeights<COUNT>;
    float4 v[Norm::EACH];

    // From ``x`` fp32 [H], or from its embedding, fp16 [H].
    __device__ __forceinline__ Hidden(const float* x, const u16* embedded) {
#pragma unroll
        for (int i = 0; i < Norm::EACH; ++i) {
            const int col = Norm::column(i);
            v[i] = col < H ? hidden_at(x, embedded, col) : make_float4(0, 0, 0, 0);
        }
    }

    // Subtract the mean, divide by the root of the variance.
    __device__ __forceinline__ void standardise(float eps, long long* room) {
        constexpr float SHARE = (float)(1.0 / H);
        const auto add = [](long long a, long long b) { return a + b; };
        float largest = 0.0f;
#pragma unroll
        for (int i = 0; i < Norm::EACH; ++i) {
            largest = fmaxf(fmaxf(largest, fmaxf(fabsf(v[i].x), fabsf(v[i].y))),
                            fmaxf(fabsf(v[i].z), fabsf(v[i].w)));
        }
#pragma unroll
        for (int i = 16; i > 0; i /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, i));
        largest = across_warps(largest, (float*)room, COUNT, fmaxf);
        const int exponent = min(max((__float_as_int(largest) >> 23) - 126, -30), 60);
        const float up = power_of_two(48 - exponent), down = power_of_two(exponent - 48);
        long long sum = 0;
#pragma unroll
        for (int i = 0; i < Norm::EACH; ++i) {
            sum += __float2ll_rz(__fmul_rn(v[i].x, up)) + __float2ll_rz(__fmul_rn(v[i].y, up)) +
                   __float2ll_rz(__fmul_rn(v[i].z, up)) + __float2ll_rz(__fmul_rn(v[i].w, up));
        }
        sum = across_warps(warp_sum(sum), room, COUNT, add);
        const float mean = __fmul_rn(__fmul_rn(__ll2float_rn(sum), down), SHARE);
        const float centre = __fmaf_rn(largest, 0.0f, mean);  // NaN where x is not finite
        const int square = 2 * exponent + 2;
        const float up2 = power_of_two(48 - square), down2 = power_of_two(square - 48);
        sum = 0;
#pragma unroll
        for (int i = 0; i < Norm::EACH; ++i) {
            float* c = (float*)&v[i];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                c[j] = Norm::column(i) < H ? __fadd_rn(c[j], -centre) : 0.0f;
                sum += __float2ll_rz(__fmul_rn(__fmul_rn(c[j], c[j]), up2));
            }
        }
        sum = across_warps(warp_sum(sum), room, COUNT, add);
        const float variance = __fmaf_rn(__fmul_rn(__ll2float_rn(sum), down2), SHARE, eps);
        const float scale = div_full(1.0f, __fsqrt_rn(variance));
#pragma unroll
        for (int i = 0; i < Norm::EACH; ++i) {
            v[i] = make_float4(__fmul_rn(v[i].x, scale), __fmul_rn(v[i].y, scale),
                               __fmul_rn(v[i].z, scale), __fmul_rn(v[i].w, scale));
        }
    }

    // times weight plus bias, to fp16 ``out`` [H].
    __device__ __forceinline__ void write(const Norm& norm, u16* out) const {
#pragma unroll
        for (int i = 0; i < Norm::EACH; ++i) {
            if (Norm::column(i) >= H) continue;
            const float4 w = norm.weight[i], b = norm.bias[i];
            ushort4 h;
            h.x = to_half(__fmaf_rn(v[i].x, w.x, b.x));
            h.y = to_half(__fmaf_rn(v[i].y, w.y, b.y));
            h.z = to_half(__fmaf_rn(v[i].z, w.z, b.z));
            h.w = to_half(__fmaf_rn(v[i].w, w.w, b.w));
            *(ushort4*)(out + Norm::column(i)) = h;
        }
    }
};
