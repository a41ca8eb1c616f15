// Tiles of products for many tokens: a ring of inputs in shared memory, filled by the copy engine
// and multiplied by ``wgmma``. See ``prefill_in.cu`` and ``prefill_out.cu``.
//
// Compile-time constants: H; TOKENS of a tile; CLUSTER, the blocks (1 or 2) that share a tile of
// tokens and take one tile of weights each; SHARED, bytes of shared memory of a block; and CHECKED,
// 1 where a wait of two seconds shall end in an error.

#pragma once

#include "base.cuh"
#include "multiply.cuh"  // generated: ``multiply_add`` for TOKENS, see prefill_constants.py

constexpr int ROWS = 128;                     // of weights of a tile
constexpr int DEPTH = 64;                     // inputs of a slot: rows of 128 bytes, as wide as the swizzle
constexpr int STEPS = H / DEPTH;              // slots of a whole sum
constexpr int WEIGHT_BYTES = ROWS * DEPTH * 2, SLOT_BYTES = WEIGHT_BYTES + TOKENS * DEPTH * 2;
constexpr int SLOTS = (SHARED - 1024 - 512) / SLOT_BYTES;
constexpr int PART = CLUSTER == 1 ? TOKENS : (TOKENS / 2 + 7) / 8 * 8;  // tokens the first block loads
constexpr int THREADS = 3 * 128;  // a producer and two multiplying warpgroups
constexpr int GROUP = 8;          // tiles of tokens that are computed together, for the L2 cache

static_assert(H % 128 == 0 && TOKENS % 8 == 0 && TOKENS <= 256, "shapes of the instruction");
static_assert(SLOTS >= 3 && SLOTS <= 16, "room for the ring and its barriers");

struct alignas(64) TensorMap {
    u64 words[16];
};

// The same matrix, in tiles of what each block of a cluster loads.
struct TokenMaps {
    TensorMap of_block[CLUSTER];
};

__device__ __forceinline__ int cluster_rank() { return CLUSTER == 1 ? 0 : blockIdx.x % CLUSTER; }

// Wait until the phase of this parity is over.
__device__ __forceinline__ void wait(u32 bar, u32 parity) {
#if CHECKED
    u64 begin, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
    for (u32 done = 0; !done;) {
        asm volatile(
            "{ .reg .pred p;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.u32 %0, 1, 0, p; }"
            : "=r"(done)
            : "r"(bar), "r"(parity)
            : "memory");
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
        if (now - begin > 2000000000ull) __trap();
    }
#else
    barrier_wait(bar, parity);
#endif
}

// Where in the ring one is, and how often one has been round.
struct Cursor {
    u32 slot = 0, phase = 0;

    __device__ __forceinline__ void next() {
        if (++slot == SLOTS) slot = 0, phase ^= 1;
    }

    __device__ __forceinline__ void skip(u32 count) {
        slot += count;
        phase ^= slot / SLOTS & 1;
        slot %= SLOTS;
    }
};

struct Ring {
    u32 data, barriers;

    __device__ __forceinline__ u32 slot(u32 i) const { return data + i * SLOT_BYTES; }
    __device__ __forceinline__ u32 full(u32 i) const { return barriers + 8 * i; }
    __device__ __forceinline__ u32 empty(u32 i) const { return barriers + 8 * (SLOTS + i); }
    // Of warpgroups that take turns: a tile of this one has been read.
    __device__ __forceinline__ u32 read(u32 turn) const { return barriers + 8 * (2 * SLOTS + turn); }

    // By all threads of a warp that is done with a slot: its blocks may fill it again.
    __device__ __forceinline__ void release(u32 i) const {
        const u32 lane = threadIdx.x % 32;
        if (CLUSTER == 1) {
            if (lane == 0) barrier_arrive(empty(i));
        } else if (lane < CLUSTER) {
            asm volatile(
                "{ .reg .b32 there;\n"
                "mapa.shared::cluster.u32 there, %0, %1;\n"
                "mbarrier.arrive.shared::cluster.b64 _, [there]; }" ::"r"(empty(i)),
                "r"(lane)
                : "memory");
        }
    }
};

__device__ __forceinline__ void copy_tile(u32 to, const TensorMap& map, int col, int row, u32 bar) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(&map), "r"(col), "r"(row), "r"(bar)
        : "memory");
}

// The same into all blocks of the cluster, at the same place.
__device__ __forceinline__ void copy_to_all(u32 to, const TensorMap& map, int col, int row, u32 bar) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
        "l"(&map), "r"(col), "r"(row), "r"(bar), "h"((u16)((1 << CLUSTER) - 1))
        : "memory");
}

// Fill the next slot: DEPTH inputs of ROWS weights and of TOKENS tokens.
__device__ __forceinline__ void fill(const Ring& ring, Cursor& at, const TensorMap& weights,
                                     int weight_col, int weight_row, const TokenMaps& tokens,
                                     int token_col, int token) {
    const u32 to = ring.slot(at.slot), full = ring.full(at.slot), rank = cluster_rank();
    wait(ring.empty(at.slot), at.phase ^ 1);
    barrier_expect(full, SLOT_BYTES);
    copy_tile(to, weights, weight_col, weight_row, full);
    if (CLUSTER == 1) {
        copy_tile(to + WEIGHT_BYTES, tokens.of_block[0], token_col, token, full);
    } else {
        const u32 part = to + WEIGHT_BYTES + rank * PART * DEPTH * 2;
        copy_to_all(part, tokens.of_block[rank], token_col, token + rank * PART, full);
    }
    at.next();
}

// What ``wgmma`` is told of a matrix at an address: rows of 128 bytes, swizzled, in groups of eight.
__device__ __forceinline__ u64 matrix_at(u32 address) {
    return (u64)(address >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// The compiler must not move anything that uses the sums over this.
template <int BLOCKS>
__device__ __forceinline__ void pin(float (&acc)[BLOCKS][TOKENS / 2]) {
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
#pragma unroll
        for (int i = 0; i < TOKENS / 2; ++i) asm volatile("" : "+f"(acc[block][i])::"memory");
    }
}

// Sums over the next STEPS slots: BLOCKS times 64 rows of weights, from ``row`` of the slots on,
// times TOKENS tokens. By a warpgroup. K is added in groups of 16 in order.
template <int BLOCKS>
__device__ __forceinline__ void sum(float (&acc)[BLOCKS][TOKENS / 2], const Ring& ring, Cursor& at,
                                    int row) {
    u32 before = 0;
#pragma unroll 1
    for (int step = 0; step < STEPS; ++step) {
        wait(ring.full(at.slot), at.phase);
        const u32 slot = ring.slot(at.slot);
        const u64 weights = matrix_at(slot + row * DEPTH * 2), tokens = matrix_at(slot + WEIGHT_BYTES);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int k = 0; k < DEPTH / 16; ++k) {
#pragma unroll
            for (int block = 0; block < BLOCKS; ++block) {
                multiply_add(acc[block], weights + block * (64 * DEPTH * 2 / 16) + 2 * k,
                             tokens + 2 * k, step + k);
            }
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        if (step > 0) {
            asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
            ring.release(before);
        }
        before = at.slot;
        at.next();
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    pin(acc);
    ring.release(before);
}

struct Place {
    int token, row;
};

// The tiles of a product with RESULTS rows of weights, and which of them are this block's: those
// from ``first`` on, ``stride`` apart.
template <int RESULTS>
struct Tiles {
    static constexpr int ACROSS = RESULTS / ROWS / CLUSTER;
    static_assert(RESULTS % (ROWS * CLUSTER) == 0, "whole tiles of weights for every cluster");
    int down, count, first, stride;

    __device__ __forceinline__ explicit Tiles(int tokens)
        : down((tokens + TOKENS - 1) / TOKENS),
          count(down * ACROSS),
          first(blockIdx.x / CLUSTER),
          stride(gridDim.x / CLUSTER) {}

    __device__ __forceinline__ Place operator[](int i) const {
        const int top = i / (GROUP * ACROSS) * GROUP, inside = i % (GROUP * ACROSS);
        const int height = min(down - top, GROUP);
        return {(top + inside % height) * TOKENS, (inside / height * CLUSTER + cluster_rank()) * ROWS};
    }
};

__device__ __forceinline__ void meet() {
    if (CLUSTER == 1) {
        __syncthreads();
    } else {
        asm volatile("barrier.cluster.arrive.release.aligned;\n"
                     "barrier.cluster.wait.acquire.aligned;" ::: "memory");
    }
}

// By all threads. ``readers`` warps of each block read a slot.
__device__ __forceinline__ Ring make_ring(const char* memory, int readers) {
    Ring ring;
    ring.data = shared_address(memory) + 1023 & ~1023u;
    ring.barriers = ring.data + SLOTS * SLOT_BYTES;
    if (threadIdx.x == 0) {
        for (int i = 0; i < SLOTS; ++i) {
            barrier_init(ring.full(i), 1);
            barrier_init(ring.empty(i), readers * CLUSTER);
        }
        for (int turn = 0; turn < 2; ++turn) barrier_init(ring.read(turn), 4);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    meet();
    return ring;
}

// Registers of a thread, from the 168 that all start with: the producer needs few.
__device__ __forceinline__ void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 40;"); }
__device__ __forceinline__ void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 232;"); }

// A kernel with its parameters: one thread does ``produce``, two warpgroups ``consume``, both found
// by the parameters' type. ``readers`` as of ``make_ring``.
template <int RESULTS, class Params>
__device__ __forceinline__ void play_roles(const Params& p, int readers) {
    extern __shared__ char memory[];
    const Ring ring = make_ring(memory, readers);
    const Tiles<RESULTS> tiles(p.count);
    if (threadIdx.x < 128) {
        give_registers();
        if (threadIdx.x == 0) produce(p, ring, tiles);
        __syncwarp();
    } else {
        take_registers();
        consume(p, ring, tiles);
    }
    meet();
}

#if CLUSTER > 1
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
#else
#define IN_CLUSTERS
#endif
