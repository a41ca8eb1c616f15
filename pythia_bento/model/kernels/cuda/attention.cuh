// Attention of one new token over the paged cache, as attention.py has it: every tile of the
// context on its own, then folded in order.

#pragma once

#include "step.cuh"

__device__ __forceinline__ u64 tile_offset(const int* table, int head, int tile) {
    return ((u64)table[tile] * HEADS + head) * TILE * HEAD;
}

// GPT-NeoX: dimension i < ROTARY / 2 pairs with i + ROTARY / 2; the rest stays.
__device__ __forceinline__ u16 rotate(const Step& s, const u16* from, int dim, int position) {
    constexpr int HALF = ROTARY / 2;
    const bool is_first = dim < HALF, does_rotate = dim < ROTARY;
    const int partner = !does_rotate ? dim : is_first ? dim + HALF : dim - HALF;
    const int angle = does_rotate ? position * HALF + (is_first ? dim : dim - HALF) : 0;
    const float a = to_float(__ldcg(from + dim)), b = to_float(__ldcg(from + partner));
    const float cosine = does_rotate ? s.cosine[angle] : 1.0f;
    const float sine = does_rotate ? s.sine[angle] : 0.0f;
    return to_half(__fmaf_rn(a, cosine, __fmul_rn(is_first ? -b : b, sine)));
}

// Rotate q and k of the new token and put its k and v into the cache; ``to`` is its place there.
__device__ __forceinline__ void take_token(const Step& s, const Layer& l, const u16* q, int last,
                                           u64 to, Attention& a) {
    const int dim = threadIdx.x;
    if (dim < HEAD) {
        const u16 v = __ldcg(q + 2 * HEAD + dim);
        const u16 turned_q = rotate(s, q, dim, last), k = rotate(s, q + HEAD, dim, last);
        a.q[dim] = turned_q;
        a.k[dim] = k;
        a.v[dim] = v;
        l.keys[to + dim] = k;
        l.values[to + dim] = v;
    }
}

// scores of ``here`` positions of one tile, -inf past them. Loads are unconditional, whatever the
// rows hold, so that all are under way at once; the newest row comes from shared memory.
__device__ __forceinline__ void score_tile(const u16* keys, int here, bool has_newest, float scale,
                                           const Attention& a, float* score) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    constexpr int MS = TILE / 16, GROUPS = HEAD / 16;
    constexpr int AT_ONCE = 32 / (2 * MS) < GROUPS ? 32 / (2 * MS) : GROUPS;
    float c[MS][4];
#pragma unroll
    for (int m = 0; m < MS; ++m) c[m][0] = c[m][1] = c[m][2] = c[m][3] = 0.0f;
#pragma unroll
    for (int first = 0; first < GROUPS; first += AT_ONCE) {
        uint2 k[AT_ONCE][2 * MS];
#pragma unroll
        for (int j = 0; j < AT_ONCE; ++j) {
#pragma unroll
            for (int m = 0; m < 2 * MS; ++m) {
                if (first + j >= GROUPS) continue;
                const u16* row = keys + (8 * m + g) * HEAD;
                k[j][m] = __ldcg((const uint2*)(row + (first + j) * 16 + 4 * t));
            }
        }
#pragma unroll
        for (int j = 0; j < AT_ONCE; ++j) {
            if (first + j >= GROUPS) continue;
            const int dim = (first + j) * 16 + 4 * t;
            // Only the first column is read; the others repeat it.
            const uint2 q = *(const uint2*)(a.q + dim), newest = *(const uint2*)(a.k + dim);
#pragma unroll
            for (int m = 0; m < 2 * MS; ++m) {
                if (has_newest && 8 * m + g == here - 1) k[j][m] = newest;
            }
#pragma unroll
            for (int m = 0; m < MS; ++m) {
                const uint2 upper = k[j][2 * m], lower = k[j][2 * m + 1];
                mma(c[m], upper.x, lower.x, upper.y, lower.y, q.x, q.y);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < MS; ++m) {
        if (t == 0) {
            const int at = 16 * m + g;
            score[at] = at < here ? __fmul_rn(c[m][0], scale) : LOWEST;
            score[at + 8] = at + 8 < here ? __fmul_rn(c[m][2], scale) : LOWEST;
        }
    }
}

// Weights of one tile's scores, fp16 in ``p``; (largest score, sum of the weights).
__device__ __forceinline__ float2 weigh_tile(const float* score, u16* p) {
    const int lane = threadIdx.x % 32;
    float best = LOWEST;
#pragma unroll
    for (int i = 0; i < TILE; i += 32) best = fmaxf(best, score[i + lane]);
#pragma unroll
    for (int i = 16; i > 0; i /= 2) best = fmaxf(best, __shfl_xor_sync(~0u, best, i));
    const float base = best == LOWEST ? 0.0f : best;
    int total = 0;
#pragma unroll
    for (int i = 0; i < TILE; i += 32) {
        const u16 weight = to_half(exp2_approx(__fadd_rn(score[i + lane], -base)));
        p[i + lane] = weight;
        total += __float2int_rz(__fmul_rn(to_float(weight), 16777216.0f));  // exact: times 2^24
    }
    total = __reduce_add_sync(~0u, total);
    return make_float2(best, __fmul_rn(__int2float_rn(total), 5.9604644775390625e-08f));
}

// One tile of the context by one warp: its own sum, largest score and sum of weights.
__device__ __forceinline__ void attend_tile(const Layer& l, u64 offset, int here, bool has_newest,
                                            Attention& a) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    constexpr int MS = TILE / 16, VECTORS = HEAD / 8, ROUNDS = (VECTORS + 7) / 8;
    score_tile(l.keys + offset, here, has_newest, l.score_scale, a, a.score[warp]);
    uint4 v[ROUNDS][MS][4];
#pragma unroll
    for (int i = 0; i < ROUNDS * MS * 4; ++i) {
        const int vector = min(8 * (i / (4 * MS)) + g, VECTORS - 1);
        const int at = 16 * (i / 4 % MS) + 4 * t + i % 4;
        const u16* row = l.values + offset + at * HEAD;
        v[i / (4 * MS)][i / 4 % MS][i % 4] = __ldcg((const uint4*)(row + 8 * vector));
    }
    __syncwarp();
    const float2 found = weigh_tile(a.score[warp], a.p[warp]);
    if (lane == 0) {
        a.best[warp] = found.x;
        a.total[warp] = found.y;
    }
    __syncwarp();
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const int vector = min(8 * round + g, VECTORS - 1);
        const uint4 newest = *(const uint4*)(a.v + 8 * vector);
        float o[4][4];
#pragma unroll
        for (int j = 0; j < 4; ++j) o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0.0f;
#pragma unroll
        for (int m = 0; m < MS; ++m) {
            const uint2 p = *(const uint2*)(a.p[warp] + 16 * m + 4 * t);
            uint4* w = v[round][m];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int at = 16 * m + 4 * t + i;
                if (has_newest && at == here - 1) w[i] = newest;
                if (at >= here) w[i] = make_uint4(0, 0, 0, 0);  // 0 times NaN would be NaN
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const u32 w0 = (&w[0].x)[j], w1 = (&w[1].x)[j];
                const u32 w2 = (&w[2].x)[j], w3 = (&w[3].x)[j];
                mma(o[j], prmt(w0, w1, 0x5410), prmt(w0, w1, 0x7632), prmt(w2, w3, 0x5410),
                    prmt(w2, w3, 0x7632), p.x, p.y);
            }
        }
        if (t == 0 && 8 * round + g < VECTORS) {
            float4* to = (float4*)(a.acc[warp] + 8 * vector);
            to[0] = make_float4(o[0][0], o[0][2], o[1][0], o[1][2]);
            to[1] = make_float4(o[2][0], o[2][2], o[3][0], o[3][2]);
        }
    }
}

// The running result of one dimension, by one thread.
struct Folded {
    float acc = 0.0f, best = LOWEST, total = 0.0f;

    __device__ __forceinline__ void fold(float tile_acc, float tile_best, float tile_total) {
        const float highest = fmaxf(best, tile_best);
        const float base = highest == LOWEST ? 0.0f : highest;
        const float keep = exp2_approx(__fadd_rn(best, -base));
        const float take = exp2_approx(__fadd_rn(tile_best, -base));
        acc = __fmaf_rn(acc, keep, __fmul_rn(tile_acc, take));
        total = __fmaf_rn(total, keep, __fmul_rn(tile_total, take));
        best = highest;
    }
};

// One sequence and head by all consumer warps; ``table`` are the sequence's cache blocks.
__device__ __forceinline__ void attend(const Step& s, const Layer& l, int token, int head,
                                       int context_len, const int* table, Attention& a) {
    const int warp = threadIdx.x / 32, dim = threadIdx.x, last = context_len - 1;
    const int tiles = (context_len + TILE - 1) / TILE;
    const u64 to = tile_offset(table, head, last / TILE) + last % TILE * HEAD;
    take_token(s, l, s.qkv + token * QKV + head * 3 * HEAD, last, to, a);
    consumers_sync();
    Folded folded;
    for (int first = 0; first < tiles; first += WARPS) {
        const int tile = first + warp;
        if (tile < tiles) {
            attend_tile(l, tile_offset(table, head, tile), min(context_len - tile * TILE, TILE),
                        tile == tiles - 1, a);
        }
        consumers_sync();
        for (int i = 0; dim < HEAD && i < min(tiles - first, WARPS); ++i) {
            folded.fold(a.acc[i][dim], a.best[i], a.total[i]);
        }
        if (first + WARPS < tiles) consumers_sync();
    }
    if (dim < HEAD) {
        s.attended[token * H + head * HEAD + dim] = to_half(div_full(folded.acc, folded.total));
    }
}
