// Both branches' first products for many tokens, by blocks that stay until all tiles are done.
//
// A producer fills a ring in shared memory, tile after tile. Two warpgroups take turns: each
// computes whole tiles, so that one multiplies while the other one is busy with GELU and stores.
// Bits: those of ``prefill.prefill_in``.

#include "gelu.cuh"
#include "tiles.cuh"

constexpr int QKV = 3 * H, UP = 4 * H;

struct In {
    TensorMap weights;  // fp16 [QKV + UP, H]
    TokenMaps h[2];     // fp16 [count, H], normed for qkv and for up
    const float *scale, *bias;
    u16* qkv;  // fp16 [count, QKV]
    u16* up;   // fp16 [count, UP]
    int count;
    float gelu_scale;
};

__device__ void produce(const In& p, const Ring& ring, const Tiles<QKV + UP>& tiles) {
    Cursor at;
#pragma unroll 1
    for (int i = tiles.first; i < tiles.count; i += tiles.stride) {
        const Place place = tiles[i];
        const TokenMaps& h = p.h[place.row >= QKV];
#pragma unroll 1
        for (int k = 0; k < H; k += DEPTH) fill(ring, at, p.weights, k, place.row, h, k, place.token);
    }
}

__device__ __forceinline__ u32 packed(float low, float high) {
    u32 y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

// Of a warp's 8 x 8 values, rows for columns.
__device__ __forceinline__ u32 transposed(u32 a) {
    u32 y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(a));
    return y;
}

// Results of a warp's 16 rows as fp16, from ``to`` on: token 0, row 0.
template <bool IS_UP>
__device__ __forceinline__ void store(const In& p, const float (&acc)[TOKENS / 2], int row, u16* to,
                                      int left) {
    constexpr int STRIDE = IS_UP ? UP : QKV;
    const int lane = threadIdx.x % 32, group = lane / 4;
    const float scale[2] = {p.scale[row + group], p.scale[row + group + 8]};
    const float bias[2] = {p.bias[row + group], p.bias[row + group + 8]};
    to += group * STRIDE + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < TOKENS / 8; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float y[2];
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                y[j] = __fmaf_rn(acc[4 * i + 2 * half + j], scale[half], bias[half]);
                if (IS_UP) y[j] = __fmul_rn(gelu(y[j]), p.gelu_scale);
            }
            const u32 pair = transposed(packed(y[0], y[1]));
            if (8 * i + group < left) *(u32*)(to + 8 * i * STRIDE + 8 * half) = pair;
        }
    }
}

__device__ __forceinline__ void consume(const In& p, const Ring& ring, const Tiles<QKV + UP>& tiles) {
    const int turn = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4;
    Cursor at;
    at.skip(turn * STEPS);
    u32 parity = turn;  // of the other warpgroup's tile before
#pragma unroll 1
    for (int i = tiles.first + turn * tiles.stride; i < tiles.count; i += 2 * tiles.stride) {
        const Place place = tiles[i];
        float acc[2][TOKENS / 2];
        // A barrier of the ring knows the parity of its phase only: who is turns of the ring ahead
        // would take an old phase for its own. The first tile of all has none before it.
        parity ^= 1;
        wait(ring.read(1 - turn), parity);
        sum(acc, ring, at, 0);
        if (threadIdx.x % 32 == 0) barrier_arrive(ring.read(turn));
        at.skip(STEPS);
        const int left = p.count - place.token;
#pragma unroll
        for (int block = 0; block < 2; ++block) {
            const int row = place.row + 64 * block + 16 * warp;
            if (place.row >= QKV) {
                store<true>(p, acc[block], row, p.up + (u64)place.token * UP + row - QKV, left);
            } else {
                store<false>(p, acc[block], row, p.qkv + (u64)place.token * QKV + row, left);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) IN_CLUSTERS
    prefill_in(const __grid_constant__ In p) {
    play_roles<QKV + UP>(p, 4);
}
