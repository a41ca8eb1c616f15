// The weights' way through shared memory, and the products at its end.

#pragma once

#include "step.cuh"

struct Ring {
    char* data;
    u32 full, empty;  // shared addresses of SLOTS barriers each
    u32* opened;  // slots that the producer has begun to fill

    __device__ __forceinline__ u32 full_at(u32 n) const { return full + 8 * (n % SLOTS); }
    __device__ __forceinline__ u32 empty_at(u32 n) const { return empty + 8 * (n % SLOTS); }
    __device__ __forceinline__ u32 parity(u32 n) const { return n / SLOTS & 1; }
    __device__ __forceinline__ char* at(u32 n) const { return data + n % SLOTS * SLOT_BYTES; }

    // A barrier knows the parity of its phase only: a warp that is a whole turn of the ring ahead
    // would take an old phase for its own, so it waits first until its own has begun.
    __device__ __forceinline__ void wait_full(u32 n) const {
        while (load_shared_acquire(opened) <= n) {
        }
        barrier_wait(full_at(n), parity(n));
    }

    // Wait until a slot may be filled; its barrier, which ``bytes`` will complete. By a warp.
    __device__ __forceinline__ u32 open(u32 n, u32 bytes) const {
        if (n >= SLOTS) barrier_wait(empty_at(n), parity(n) ^ 1);
        if (threadIdx.x % 32 == 0) {
            barrier_expect(full_at(n), bytes);
            store_shared_release(opened, n + 1);
        }
        __syncwarp();
        return full_at(n);
    }
};

// What a block multiplies in one phase: rows of tiles first, first + step, ...
struct Units {
    int first, step, count;

    __device__ __forceinline__ Units(int first, int step, int tiles)
        : first(first), step(step), count(first < tiles ? (tiles - first + step - 1) / step : 0) {}
    __device__ __forceinline__ int tile(int i) const { return first + i * step; }
    // Units of the round of eight that unit i is in: their slots alternate.
    __device__ __forceinline__ int width(int i) const {
        int left = count - i / WARPS * WARPS;
        return left < WARPS ? left : WARPS;
    }
    // Place of the first slot of unit i among those of the phase.
    __device__ __forceinline__ int place(int i) const {
        return i / WARPS * WARPS * SLOTS_A_UNIT + i % WARPS;
    }
};

__device__ void produce_phase(const Ring& ring, const u16* weights, const Units& units, u32& n,
                              u64 policy) {
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int i = 0; i < units.count; i += WARPS) {
        const int width = units.width(i);
#pragma unroll 1
        for (int part = 0; part < SLOTS_A_UNIT; ++part) {
#pragma unroll 1
            for (int j = 0; j < width; ++j, ++n) {
                const u32 bar = ring.open(n, ROWS * SLOT_K);
                if (lane == 0) {
                    const char* from = (const char*)weights + (u64)units.tile(i + j) * ROWS * H;
                    copy_bulk(shared_address(ring.at(n)), from + part * ROWS * SLOT_K, ROWS * SLOT_K,
                              bar, policy);
                }
            }
        }
    }
}

// Sixteen rows of weights times the tokens in ``act``: the warp's mma accumulator.
__device__ __forceinline__ void multiply(float (&c)[4], const Ring& ring, u32 n, int width,
                                         const char* act) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    // Columns past the last token repeat it: nobody reads their results.
    const char* x = act + min(g, BATCH - 1) * ACT_PITCH + 8 * t;
    c[0] = c[1] = c[2] = c[3] = 0.0f;
#pragma unroll 1
    for (int part = 0; part < SLOTS_A_UNIT; ++part, n += width) {
        ring.wait_full(n);
        const char* w = ring.at(n) + 128 * g + 8 * t;
#pragma unroll 4
        for (int k = 0; k < SLOT_K; k += 128) {
            uint2 upper[4], lower[4], xs[8];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const char* segment = w + ROWS * k + 32 * (j ^ g % 4);
                upper[j] = *(const uint2*)segment;
                lower[j] = *(const uint2*)(segment + 8 * 128);
            }
#pragma unroll
            for (int j = 0; j < 8; ++j) xs[j] = *(const uint2*)(x + 2 * k + 32 * j);
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const u32 how = j < 4 ? 0x4240 : 0x4341;
                const uint2 a = upper[j % 4], b = lower[j % 4];
                mma(c, widen(a.x, how), widen(b.x, how), widen(a.y, how), widen(b.y, how), xs[j].x,
                    xs[j].y);
            }
        }
        x += 2 * SLOT_K;
        __syncwarp();
        if (lane == 0) barrier_arrive(ring.empty_at(n));
    }
}

// Calls use(row, token, value) for this thread's values of a unit.
template <class Use>
__device__ __forceinline__ void each_value(const float (&c)[4], int tile, Use use) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int token = 2 * t + i % 2;
        if (token < BATCH) use(tile * ROWS + g + i / 2 * 8, token, i, c[i]);
    }
}
