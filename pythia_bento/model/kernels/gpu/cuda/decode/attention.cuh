// Attention of one new token over the paged cache, as attention.py has it: every tile of the
// context on its own, then folded in order. Tiles come through the ring like weights; a warp takes
// one at a time, and the last one of a sequence and head folds them all.

#pragma once

#include "ring.cuh"

__device__ __forceinline__ int tiles_of(int context_len) { return (context_len + TILE - 1) / TILE; }

// A block's tiles, from the last block on: the first ones wait for the result.
struct Tiles {
    int first, count;

    __device__ __forceinline__ explicit Tiles(const Resident& r) : first(BLOCKS - 1 - blockIdx.x) {
        count = first < r.num_tiles ? (r.num_tiles - first + BLOCKS - 1) / BLOCKS : 0;
    }
};

struct Tile {
    int token, head, tile;

    __device__ __forceinline__ Tile(const Resident& r, int unit) : token(0) {
        int tiles = tiles_of(r.context_lens[0]);
        while (unit >= tiles * HEADS) {
            unit -= tiles * HEADS;
            tiles = tiles_of(r.context_lens[++token]);
        }
        head = unit / tiles;
        tile = unit % tiles;
    }
    __device__ __forceinline__ u64 offset(const Resident& r) const {
        return ((u64)r.tables[token][tile] * HEADS + head) * TILE * HEAD;
    }
};

// Two slots of keys, then two of values, for each tile.
__device__ void produce_context(const Ring& ring, const Resident& r, const Layer& l, u32& n,
                                u64 policy) {
    const Tiles tiles(r);
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int i = 0; i < tiles.count; ++i) {
        const u64 offset = Tile(r, tiles.first + i * BLOCKS).offset(r);
#pragma unroll 1
        for (int part = 0; part < 4; ++part, ++n) {
            const char* from = (const char*)((part < 2 ? l.keys : l.values) + offset);
            const u32 bar = ring.open(n, 4 * GROUP_BYTES);
            if (lane < 4) {
                copy_bulk(shared_address(ring.at(n) + lane * GROUP_PITCH),
                          from + (part % 2 * 4 + lane) * GROUP_BYTES, GROUP_BYTES, bar, policy);
            }
        }
    }
}

// Copy q of the new token, and k and v where the tile is the newest; then rotate. GPT-NeoX:
// dimension i < ROTARY / 2 pairs with i + ROTARY / 2; the rest stays.
__device__ __forceinline__ void take_token(const Step& s, const Resident& r, const Tile& unit,
                                           bool is_newest, Attending& a) {
    constexpr int VECTORS = HEAD / 8, HALF = ROTARY / 2;
    const int lane = threadIdx.x % 32;
    const uint4* from = (const uint4*)(s.qkv + unit.token * QKV + unit.head * 3 * HEAD);
    for (int i = lane; i < (is_newest ? 3 : 1) * VECTORS; i += 32) ((uint4*)a.q)[i] = __ldcg(from + i);
    __syncwarp();
    for (int i = lane; i < (is_newest ? 2 : 1) * HALF; i += 32) {
        u16* pair = (i < HALF ? a.q : a.k) + i % HALF;
        const float x = to_float(pair[0]), y = to_float(pair[HALF]);
        const float cosine = r.cosine[unit.token][i % HALF], sine = r.sine[unit.token][i % HALF];
        pair[0] = to_half(__fmaf_rn(x, cosine, __fmul_rn(-y, sine)));
        pair[HALF] = to_half(__fmaf_rn(y, cosine, __fmul_rn(x, sine)));
    }
    __syncwarp();
}

// The new token's k and v into the cache.
__device__ __forceinline__ void write_token(const Layer& l, u64 offset, int row, const Attending& a) {
    constexpr int VECTORS = HEAD / 8;
    for (int i = threadIdx.x % 32; i < VECTORS; i += 32) {
        ((uint4*)(l.keys + offset + row * HEAD))[i] = ((const uint4*)a.k)[i];
        ((uint4*)(l.values + offset + row * HEAD))[i] = ((const uint4*)a.v)[i];
    }
}

__device__ __forceinline__ const char* context_row(const Ring& ring, u32 n, int row) {
    const int group = row / GROUP_ROWS;
    return ring.at(n + group / 4) + group % 4 * GROUP_PITCH + row % GROUP_ROWS * 2 * HEAD;
}

__device__ __forceinline__ void wait_two(const Ring& ring, u32 n) {
    ring.wait_full(n);
    ring.wait_full(n + 1);
}

__device__ __forceinline__ void free_two(const Ring& ring, u32 n) {
    __syncwarp();
    if (threadIdx.x % 32 < 2) barrier_arrive(ring.empty_at(n + threadIdx.x % 32));
}

// Scores of the ``here`` positions of a tile that exist, -inf for the others. ``newest`` is the
// row that comes from ``a``, if any.
__device__ __forceinline__ void score_tile(const Ring& ring, u32 n, int here, int newest,
                                           float scale, Attending& a) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    constexpr int MS = TILE / 16;
    float c[MS][4];
#pragma unroll
    for (int m = 0; m < MS; ++m) c[m][0] = c[m][1] = c[m][2] = c[m][3] = 0.0f;
    const char* rows[2 * MS];
#pragma unroll
    for (int m = 0; m < 2 * MS; ++m) {
        const int row = g * GROUP_ROWS + m;  // one of each group
        rows[m] = (row == newest ? (const char*)a.k : context_row(ring, n, row)) + 8 * t;
    }
#pragma unroll
    for (int dim = 0; dim < HEAD; dim += 16) {
        // Only the first column is read; the others repeat it.
        const uint2 q = *(const uint2*)(a.q + dim + 4 * t);
#pragma unroll
        for (int m = 0; m < MS; ++m) {
            const uint2 upper = *(const uint2*)(rows[2 * m] + 2 * dim);
            const uint2 lower = *(const uint2*)(rows[2 * m + 1] + 2 * dim);
            mma(c[m], upper.x, lower.x, upper.y, lower.y, q.x, q.y);
        }
    }
#pragma unroll
    for (int m = 0; m < MS; ++m) {
        if (t == 0) {
            const int at = g * GROUP_ROWS + 2 * m;
            a.score[at] = at < here ? __fmul_rn(c[m][0], scale) : LOWEST;
            a.score[at + 1] = at + 1 < here ? __fmul_rn(c[m][2], scale) : LOWEST;
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

// The values' sum under the weights in ``a``, to fp32 ``out`` [HEAD].
__device__ __forceinline__ void sum_values(const Ring& ring, u32 n, int here, int newest,
                                           const Attending& a, float* out) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    constexpr int MS = TILE / 16, VECTORS = HEAD / 8;
#pragma unroll
    for (int first = 0; first < VECTORS; first += 8) {
        const int vector = min(first + g, VECTORS - 1);
        float o[4][4];
#pragma unroll
        for (int j = 0; j < 4; ++j) o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0.0f;
#pragma unroll
        for (int m = 0; m < MS; ++m) {
            const uint2 p = *(const uint2*)(a.p + 16 * m + 4 * t);
            uint4 w[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int at = 16 * m + 4 * t + i;
                const char* row = at == newest ? (const char*)a.v : context_row(ring, n, at);
                w[i] = *(const uint4*)(row + 16 * vector);
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
        if (t == 0 && first + g < VECTORS) {
            float4* to = (float4*)(out + 8 * vector);
            to[0] = make_float4(o[0][0], o[0][2], o[1][0], o[1][2]);
            to[1] = make_float4(o[2][0], o[2][2], o[3][0], o[3][2]);
        }
    }
}

// All tiles of a sequence and head, folded in order, by one warp.
__device__ __forceinline__ void fold_tiles(const Step& s, int token, int head, int tiles) {
    constexpr int EACH = (HEAD + 31) / 32;
    const int lane = threadIdx.x % 32;
    const int base = (token * HEADS + head) * TABLE;
    float acc[EACH] = {}, best = LOWEST, total = 0.0f;
#pragma unroll 4
    for (int tile = 0; tile < tiles; ++tile) {
        const float2 sums = __ldcg(s.tile_sums + base + tile);
        float part[EACH];
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int dim = min(lane + 32 * i, HEAD - 1);
            part[i] = __ldcg(s.tile_acc + (base + tile) * HEAD + dim);
        }
        const float highest = fmaxf(best, sums.x);
        const float zero = highest == LOWEST ? 0.0f : highest;
        const float keep = exp2_approx(__fadd_rn(best, -zero));
        const float take = exp2_approx(__fadd_rn(sums.x, -zero));
#pragma unroll
        for (int i = 0; i < EACH; ++i) acc[i] = __fmaf_rn(acc[i], keep, __fmul_rn(part[i], take));
        total = __fmaf_rn(total, keep, __fmul_rn(sums.y, take));
        best = highest;
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int dim = lane + 32 * i;
        if (dim < HEAD) s.attended[token * H + head * HEAD + dim] = to_half(div_full(acc[i], total));
    }
}

// One tile of the context by one warp; true where it was the last one and all were folded.
__device__ __forceinline__ bool attend_tile(const Step& s, const Resident& r, const Layer& l,
                                            const Tile& unit, const Ring& ring, u32 n,
                                            Attending& a) {
    const int context_len = r.context_lens[unit.token], tiles = tiles_of(context_len);
    const int here = min(context_len - unit.tile * TILE, TILE);
    const int newest = unit.tile == tiles - 1 ? here - 1 : -1;
    const int place = (unit.token * HEADS + unit.head) * TABLE + unit.tile;
    take_token(s, r, unit, newest >= 0, a);
    if (newest >= 0) write_token(l, unit.offset(r), newest, a);
    wait_two(ring, n);
    score_tile(ring, n, here, newest, l.score_scale, a);
    free_two(ring, n);
    const float2 sums = weigh_tile(a.score, a.p);
    if (threadIdx.x % 32 == 0) s.tile_sums[place] = sums;
    wait_two(ring, n + 2);
    __syncwarp();
    sum_values(ring, n + 2, here, newest, a, s.tile_acc + place * HEAD);
    free_two(ring, n + 2);
    u32 before = 0;
    u32* ticket = s.tile_tickets + unit.token * HEADS + unit.head;
    if (threadIdx.x % 32 == 0) before = add_both(ticket);
    if (__shfl_sync(~0u, before, 0) != tiles - 1) return false;
    fold_tiles(s, unit.token, unit.head, tiles);
    if (threadIdx.x % 32 == 0) *ticket = 0;
    __syncwarp();
    return true;
}
