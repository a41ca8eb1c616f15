// Types, sizes and instructions of the persistent decode kernel.
//
// Compile-time constants: H, HEADS, HEAD, ROTARY, TILE, BATCH, LAYERS, TABLE (blocks of the longest
// context), BLOCKS (of the grid, one a multiprocessor) and SHARED (bytes of shared memory a block).

#pragma once

#include "base.cuh"

constexpr int UP = 4 * H, QKV = 3 * H;
constexpr int CHUNKS = 4, PIECES = 1 + CHUNKS;
constexpr int WARPS = 8, CONSUMERS = 32 * WARPS;
#define LOWEST __int_as_float(0xFF800000)

static_assert(H % 128 == 0 && WARPS % BATCH == 0, "storage of the weights, division of the norm");
static_assert(HEAD <= CONSUMERS && HEAD % 16 == 0 && TILE % 32 == 0, "tiles of the attention");

__device__ __forceinline__ float div_full(float a, float b) {
    float y;
    asm("div.full.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

__device__ __forceinline__ u32 prmt(u32 a, u32 b, u32 how) { return __byte_perm(a, b, how); }

// fp16 values of the low or high bytes of two 16-bit pairs; bytes hold q + 128.
__device__ __forceinline__ u32 widen(u32 pairs, u32 how) {
    u32 y;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(prmt(pairs, 0x64646464u, how)), "r"(0x64806480u));
    return y;
}

__device__ __forceinline__ void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void consumers_sync() {
    asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory");
}

__device__ __forceinline__ u32 load_acquire(const u32* p) {
    u32 y;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(y) : "l"(p) : "memory");
    return y;
}

__device__ __forceinline__ u32 load_shared_acquire(const u32* p) {
    u32 y;
    asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(y) : "r"(shared_address(p)) : "memory");
    return y;
}

__device__ __forceinline__ void store_shared_release(u32* p, u32 value) {
    asm volatile("st.release.cta.shared.u32 [%0], %1;" ::"r"(shared_address(p)), "r"(value) : "memory");
}

__device__ __forceinline__ void add_release(u32* p) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(p) : "memory");
}

__device__ __forceinline__ u32 add_both(u32* p) {
    u32 y;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(y) : "l"(p) : "memory");
    return y;
}

__device__ __forceinline__ void copy_bulk(u32 to, const void* from, u32 bytes, u32 bar, u64 policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
        "[%0], [%1], %2, [%3], %4;" ::"r"(to), "l"(from), "r"(bytes), "r"(bar), "l"(policy)
        : "memory");
}

__device__ __forceinline__ void copy_rows(u32 to, const void* from, u32 bytes, u32 bar) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            to),
        "l"(from), "r"(bytes), "r"(bar)
        : "memory");
}

// Between reads and writes of threads and those of bulk copies.
__device__ __forceinline__ void fence_copies() {
    asm volatile("fence.proxy.async;" ::: "memory");
}
