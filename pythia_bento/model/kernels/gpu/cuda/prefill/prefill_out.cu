// x += both second products, for many tokens, by blocks that stay until all tiles are done.
//
// A producer fills a ring in shared memory; two warpgroups compute 64 rows of a tile each. The
// tile's part of x stays in registers through all pieces of the sum. Bits: those of
// ``prefill.prefill_add``, piece after piece.

#include "tiles.cuh"

constexpr int PIECES = 5;

struct Out {
    TensorMap weights;   // fp16 [PIECES, H, H]: dense, then the pieces of down
    TokenMaps attended;  // fp16 [count, H]
    TokenMaps up;        // fp16 [count, 4 H]
    const float *dense_scale, *down_scale, *bias;
    float* x;  // fp32 [count, H]
    int count;
};

__device__ void produce(const Out& p, const Ring& ring, const Tiles<H>& tiles) {
    Cursor at;
#pragma unroll 1
    for (int i = tiles.first; i < tiles.count; i += tiles.stride) {
        const Place place = tiles[i];
#pragma unroll 1
        for (int piece = 0; piece < PIECES; ++piece) {
            const TokenMaps& tokens = piece == 0 ? p.attended : p.up;
            const int col = piece == 0 ? 0 : (piece - 1) * H, row = piece * H + place.row;
#pragma unroll 1
            for (int k = 0; k < H; k += DEPTH) {
                fill(ring, at, p.weights, k, row, tokens, col + k, place.token);
            }
        }
    }
}

// Call ``what`` with every value's place: index, token and which of the thread's two rows.
template <class What>
__device__ __forceinline__ void each_value(What what) {
#pragma unroll
    for (int i = 0; i < TOKENS / 2; ++i) what(i, i / 4 * 8 + i % 2, i / 2 % 2);
}

__device__ __forceinline__ void consume(const Out& p, const Ring& ring, const Tiles<H>& tiles) {
    const int half = threadIdx.x / 128 - 1, lane = threadIdx.x % 32;
    Cursor at;
#pragma unroll 1
    for (int i = tiles.first; i < tiles.count; i += tiles.stride) {
        const Place place = tiles[i];
        const int row = place.row + 64 * half + threadIdx.x / 32 % 4 * 16 + lane / 4;
        const int token = place.token + lane % 4 * 2, left = p.count - token;
        float* const to = p.x + (u64)token * H + row;
        float x[TOKENS / 2];
        each_value([&](int j, int t, int r) { x[j] = t < left ? to[t * H + 8 * r] : 0.0f; });
#pragma unroll 1
        for (int piece = 0; piece < PIECES; ++piece) {
            float acc[1][TOKENS / 2];
            sum(acc, ring, at, 64 * half);
            const float* const from = piece == 0 ? p.dense_scale : p.down_scale;
            const float scale[2] = {from[row], from[row + 8]};
            if (piece == 0) {
                const float bias[2] = {p.bias[row], p.bias[row + 8]};
                each_value([&](int j, int, int r) { x[j] = __fadd_rn(x[j], bias[r]); });
            }
            each_value([&](int j, int, int r) { x[j] = __fmaf_rn(acc[0][j], scale[r], x[j]); });
        }
        each_value([&](int j, int t, int r) {
            if (t < left) to[t * H + 8 * r] = x[j];
        });
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) IN_CLUSTERS
    prefill_out(const __grid_constant__ Out p) {
    play_roles<H>(p, 8);
}
