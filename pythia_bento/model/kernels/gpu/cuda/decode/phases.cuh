// The phases of a layer in the persistent decode kernel, by a block's consumer warps, and what its
// share of each is. See decode_step.cu for how they follow each other.

#pragma once

#include "attention.cuh"
#include "gelu.cuh"
#include "norm.cuh"

constexpr int WARPS_A_TOKEN = WARPS / BATCH;  // of the norm

// ---- blocks and their shares of the work ----

__device__ __forceinline__ Units in_units() {
    const int block = blockIdx.x;
    if (block < BLOCKS_Q) return Units(block, BLOCKS_Q, TILES_Q);
    return Units(block - BLOCKS_Q, BLOCKS - BLOCKS_Q, TILES_UP);
}

__device__ __forceinline__ int out_piece() { return blockIdx.x / BLOCKS_A_PIECE; }

__device__ __forceinline__ Units out_units() {
    if (out_piece() >= PIECES) return Units(0, 1, 0);
    return Units(blockIdx.x % BLOCKS_A_PIECE, BLOCKS_A_PIECE, TILES_OUT);
}

// Wait until a counter has reached ``count``; then everybody sees what was written before.
__device__ __forceinline__ void wait_for(const u32* counter, u32 count) {
    if (threadIdx.x == 0) {
        while (load_acquire(counter) < count) {
        }
    }
    consumers_sync();
}

// Say that this block wrote all of its pieces.
__device__ __forceinline__ void announce(u32* counter) {
    consumers_sync();
    if (threadIdx.x == 0) add_release(counter);
}

// When a counter has reached ``count``, bring BATCH rows of H values, of a matrix with rows of
// ``stride``, to where ``multiply`` wants them.
__device__ __forceinline__ void take_rows(Shared& shared, const u32* counter, u32 count,
                                          const u16* from, int stride, u32& taken) {
    const u32 bar = shared_address(&shared.taken);
    fence_copies();
    consumers_sync();  // nobody needs what was there
    if (threadIdx.x == 0) {
        while (load_acquire(counter) < count) {
        }
        fence_copies();
        barrier_expect(bar, BATCH * 2 * H);
#pragma unroll
        for (int token = 0; token < BATCH; ++token) {
            copy_rows(shared_address(shared.act + token * ACT_PITCH), from + token * stride, 2 * H, bar);
        }
    }
    barrier_wait(bar, taken++ & 1);
}

// Null but in the first layer, whose input is the embedding.
__device__ __forceinline__ const u16* embedded(const Step& s, const Resident& r, int layer,
                                               int token) {
    return layer == 0 ? s.table + (u64)r.token_ids[token] * H : nullptr;
}

// ---- the phases of a layer ----

// Up to two tokens every block normalises for itself; more would take longer than another wait.
constexpr bool NORM_FOR_ITSELF = BATCH <= 2;

// One block for each token, from the last one on, normalises it for all.
__device__ void norm_phase(const Step& s, int layer, Shared& shared) {
    const int token = BLOCKS - 1 - blockIdx.x;
    if (NORM_FOR_ITSELF || token >= BATCH) return;
    const float* norms = shared.resident.layers[layer].norms;
    const NormWeights<WARPS> first(norms), second(norms + 2 * H);
    wait_for(&s.counters->x, TILES_OUT * layer);
    Hidden<WARPS> hidden(s.x + token * H, embedded(s, shared.resident, layer, token));
    hidden.standardise(s.eps, shared.room);
    hidden.write(first, s.h + token * H);
    hidden.write(second, s.h + (BATCH + token) * H);
    announce(&s.counters->normed);
}

// The norm's output where ``multiply`` wants it.
__device__ __forceinline__ void take_normed(const Step& s, int layer, Shared& shared, u32& taken) {
    const bool is_up = blockIdx.x >= BLOCKS_Q;
    if (NORM_FOR_ITSELF) {
        const int token = threadIdx.x / 32 / WARPS_A_TOKEN;
        const float* norms = shared.resident.layers[layer].norms;
        const NormWeights<WARPS_A_TOKEN> norm(norms + is_up * 2 * H);
        wait_for(&s.counters->x, TILES_OUT * layer);
        Hidden<WARPS_A_TOKEN> hidden(s.x + token * H, embedded(s, shared.resident, layer, token));
        hidden.standardise(s.eps, shared.room);
        hidden.write(norm, (u16*)(shared.act + token * ACT_PITCH));
        consumers_sync();
    } else {
        take_rows(shared, &s.counters->normed, BATCH * (layer + 1), s.h + is_up * BATCH * H, H, taken);
    }
}

__device__ void in_phase(const Step& s, int layer, const Ring& ring, u32 n, Shared& shared,
                         u32& taken) {
    const Layer& l = shared.resident.layers[layer];
    const bool is_up = blockIdx.x >= BLOCKS_Q;
    const int g = threadIdx.x % 32 / 4;
    norm_phase(s, layer, shared);
    take_normed(s, layer, shared, taken);
    const Units units = in_units();
    const int offset = is_up ? QKV : 0;
#pragma unroll 1
    for (int i = threadIdx.x / 32; i < units.count; i += WARPS) {
        const int tile = units.tile(i), row = offset + tile * ROWS + g;
        const float scale[2] = {l.in_scale[row], l.in_scale[row + 8]};
        const float bias[2] = {l.in_bias[row], l.in_bias[row + 8]};
        float c[4];
        multiply(c, ring, n + units.place(i), units.width(i), shared.act);
        each_value(c, tile, [&](int r, int token, int at, float value) {
            const float y = __fmaf_rn(value, scale[at / 2], bias[at / 2]);
            if (is_up) {
                s.up[token * UP + r] = to_half(__fmul_rn(gelu(y), l.gelu_scale));
            } else {
                s.qkv[token * QKV + r] = to_half(y);
            }
        });
    }
    announce(is_up ? &s.counters->up : &s.counters->q);
}

__device__ void attend_phase(const Step& s, int layer, const Ring& ring, u32 n, Shared& shared) {
    const Resident& r = shared.resident;
    const Tiles tiles(r);
    if (tiles.count == 0) return;
    wait_for(&s.counters->q, BLOCKS_Q * (layer + 1));
    const int warp = threadIdx.x / 32;
#pragma unroll 1
    for (int i = warp; i < tiles.count; i += WARPS) {
        const Tile unit(r, tiles.first + i * BLOCKS);
        const bool is_whole = attend_tile(s, r, r.layers[layer], unit, ring, n + 4 * i,
                                          shared.attending[warp]);
        if (is_whole && threadIdx.x % 32 == 0) add_release(&s.counters->attended);
    }
}

// x += the five pieces of one tile's rows, in the order of ``norm`` in norm.py; by one warp.
__device__ __forceinline__ void add_pieces(const Step& s, const Resident& r, int layer, int tile) {
    const Layer& l = r.layers[layer];
#pragma unroll 1
    for (int i = threadIdx.x % 32; i < ROWS * BATCH; i += 32) {
        const int token = i / ROWS, row = tile * ROWS + i % ROWS;
        const u16* first = embedded(s, r, layer, token);
        float part[PIECES];
#pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) {
            part[piece] = __ldcg(s.parts + (piece * BATCH + token) * H + row);
        }
        float x = first ? to_float(first[row]) : __ldcg(s.x + token * H + row);
        x = __fadd_rn(x, l.out_bias[row]);
        x = __fmaf_rn(part[0], l.dense_scale[row], x);
#pragma unroll
        for (int piece = 1; piece < PIECES; ++piece) {
            x = __fmaf_rn(part[piece], l.down_scale[row], x);
        }
        s.x[token * H + row] = x;
    }
}

__device__ void out_phase(const Step& s, int layer, const Ring& ring, u32 n, Shared& shared,
                          u32& taken) {
    const Units units = out_units();
    if (units.count == 0) return;
    const int piece = out_piece(), lane = threadIdx.x % 32;
    if (piece == 0) {
        const u32 heads = shared.resident.num_live * HEADS;
        take_rows(shared, &s.counters->attended, heads * (layer + 1), s.attended, H, taken);
    } else {
        const u32 blocks = BLOCKS - BLOCKS_Q;
        take_rows(shared, &s.counters->up, blocks * (layer + 1), s.up + (piece - 1) * H, UP, taken);
    }
#pragma unroll 1
    for (int i = threadIdx.x / 32; i < units.count; i += WARPS) {
        const int tile = units.tile(i);
        float c[4];
        multiply(c, ring, n + units.place(i), units.width(i), shared.act);
        each_value(c, tile, [&](int row, int token, int, float value) {
            s.parts[(piece * BATCH + token) * H + row] = value;
        });
        __syncwarp();
        u32 before = 0;
        if (lane == 0) before = add_both(&s.counters->tickets[tile]);
        before = __shfl_sync(~0u, before, 0);
        if (before == PIECES - 1) {
            add_pieces(s, shared.resident, layer, tile);
            __syncwarp();
            if (lane == 0) {
                s.counters->tickets[tile] = 0;
                add_release(&s.counters->x);
            }
        }
    }
}
