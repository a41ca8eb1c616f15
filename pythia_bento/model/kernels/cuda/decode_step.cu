// All layers of one decode step in one persistent kernel, for up to eight sequences.
//
// One block per multiprocessor. A producer warp streams the weights that its block will multiply,
// in the order in which it will need them and through all layers, into a ring in shared memory: it
// waits for nobody but the ring, so the memory stays busy while eight consumer warps wait for each
// other's activations. Blocks meet only through counters in global memory ("so many pieces of this
// kind are there"), which grow through the layers and are set back by the last block to leave.
//
//   in:    norm of x (every block for itself), rows of qkv and of up with bias and GELU
//   attend: one block per sequence and head; a warp per tile of the context, folded in order
//   out:   rows of dense and of the four pieces of down; whoever finishes the fifth piece of
//          sixteen rows adds them to x
//
// Bits: those of the Triton kernels (norm.py, products.py, attention.py), operation for operation.
// Products add K in groups of 16 in order; inside a group the order does not matter, so a thread
// takes four neighbours of K where the instruction's own layout would give it two pairs.
//
// Compile-time constants: H, HEADS, HEAD, ROTARY, TILE, BATCH, BLOCKS, SLOTS, SLOT_K.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;

constexpr int UP = 4 * H, QKV = 3 * H;
constexpr int CHUNKS = 4, PIECES = 1 + CHUNKS;
constexpr int WARPS = 8, CONSUMERS = 32 * WARPS;
constexpr int ROWS = 16;  // weight rows of a unit of work
constexpr int SLOTS_A_UNIT = H / SLOT_K;
constexpr int SLOT_PITCH = SLOT_K + 32;  // eight rows hit different banks
constexpr int SLOT_BYTES = ROWS * SLOT_PITCH;
constexpr int ACT_PITCH = 2 * H + 32;
constexpr int TILES_Q = QKV / ROWS, TILES_UP = UP / ROWS, TILES_OUT = H / ROWS;
constexpr int BLOCKS_Q = (BLOCKS * TILES_Q + (TILES_Q + TILES_UP) / 2) / (TILES_Q + TILES_UP);
constexpr int BLOCKS_A_PIECE = BLOCKS / PIECES;
constexpr int UNITS_ATTEND = BATCH * HEADS;
constexpr int WARPS_A_TOKEN = WARPS / BATCH;  // of the norm
#define LOWEST __int_as_float(0xFF800000)

static_assert(H % 128 == 0 && H % SLOT_K == 0 && SLOT_K % 128 == 0, "storage of the weights");
static_assert(WARPS % BATCH == 0 && HEAD <= CONSUMERS && HEAD % 16 == 0 && TILE % 32 == 0, "shape");

struct Layer {
    const u16 *w_in, *dense, *down;  // int16 pairs, see packing.py
    const float *in_scale, *in_bias, *dense_scale, *down_scale, *out_bias;
    const float* norms;  // [2, 2, H]
    u16 *keys, *values;  // fp16 [blocks, HEADS, TILE, HEAD]
    float gelu_scale, score_scale;
};

struct Counters {  // all 0 between launches
    u32 q, up, attended, x, done;
    u32 tickets[TILES_OUT];
};

struct Attention {
    u16 q[HEAD], k[HEAD], v[HEAD];
    float best[WARPS], total[WARPS];
    float score[WARPS][TILE];
    u16 p[WARPS][TILE];
    float acc[WARPS][HEAD];
};

constexpr int ACT_BYTES = BATCH * ACT_PITCH;
constexpr int MOST_BYTES = ACT_BYTES > (int)sizeof(Attention) ? ACT_BYTES : (int)sizeof(Attention);
constexpr int SHARED_BYTES = (MOST_BYTES + 15) / 16 * 16;

// ---- instructions ----

__device__ __forceinline__ u32 shared_address(const void* p) {
    return (u32)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ float div_full(float a, float b) {
    float y;
    asm("div.full.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

__device__ __forceinline__ float exp2_approx(float a) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(a));
    return y;
}

__device__ __forceinline__ float fma_ftz(float a, float b, float c) {
    float y;
    asm("fma.rn.ftz.f32 %0, %1, %2, %3;" : "=f"(y) : "f"(a), "f"(b), "f"(c));
    return y;
}

__device__ __forceinline__ u16 to_half(float a) {
    u16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(a));
    return y;
}

__device__ __forceinline__ float to_float(u16 a) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(a));
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

__device__ __forceinline__ void add_release(u32* p) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(p) : "memory");
}

__device__ __forceinline__ u32 add_both(u32* p) {
    u32 y;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(y) : "l"(p) : "memory");
    return y;
}

__device__ __forceinline__ void prefetch(const void* p) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

__device__ __forceinline__ void barrier_init(u32 bar, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}

__device__ __forceinline__ void barrier_wait(u32 bar, u32 parity) {
    asm volatile(
        "{ .reg .pred p;\n"
        "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        "@!p bra again; }" ::"r"(bar), "r"(parity)
        : "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

__device__ __forceinline__ void barrier_expect(u32 bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void copy_bulk(u32 to, const void* from, u32 bytes, u32 bar, u64 policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
        "[%0], [%1], %2, [%3], %4;" ::"r"(to), "l"(from), "r"(bytes), "r"(bar), "l"(policy)
        : "memory");
}

// ---- the ring ----

struct Ring {
    char* slots;
    u32 full, empty;  // shared addresses of SLOTS barriers each

    __device__ __forceinline__ u32 full_at(u32 n) const { return full + 8 * (n % SLOTS); }
    __device__ __forceinline__ u32 empty_at(u32 n) const { return empty + 8 * (n % SLOTS); }
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

__device__ __forceinline__ Units in_units() {
    int block = blockIdx.x;
    if (block < BLOCKS_Q) return Units(block, BLOCKS_Q, TILES_Q);
    return Units(block - BLOCKS_Q, BLOCKS - BLOCKS_Q, TILES_UP);
}

__device__ __forceinline__ int out_piece() { return blockIdx.x / BLOCKS_A_PIECE; }

__device__ __forceinline__ Units out_units() {
    if (out_piece() >= PIECES) return Units(0, 1, 0);
    return Units(blockIdx.x % BLOCKS_A_PIECE, BLOCKS_A_PIECE, TILES_OUT);
}

__device__ void produce_phase(const Ring& ring, const u16* weights, const Units& units, u32& n,
                              u64 policy) {
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < units.count; i += WARPS) {
        const int width = units.width(i);
        for (int part = 0; part < SLOTS_A_UNIT; ++part) {
            for (int j = 0; j < width; ++j, ++n) {
                if (n >= SLOTS) barrier_wait(ring.empty_at(n), (n / SLOTS - 1) & 1);
                const u32 bar = ring.full_at(n);
                if (lane == 0) barrier_expect(bar, ROWS * SLOT_K);
                __syncwarp();
                if (lane < ROWS) {
                    const char* row = (const char*)weights +
                                      (u64)(units.tile(i + j) * ROWS + lane) * H + part * SLOT_K;
                    const char* to = ring.slots + n % SLOTS * SLOT_BYTES + lane * SLOT_PITCH;
                    copy_bulk(shared_address(to), row, SLOT_K, bar, policy);
                }
            }
        }
    }
}

__device__ void produce(const Ring& ring, const Layer* layers, int num_layers) {
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    const Units first = in_units(), second = out_units();
    const int piece = out_piece();
    u32 n = 0;
    for (int i = 0; i < num_layers; ++i) {
        const Layer& layer = layers[i];
        const u16* up_rows = layer.w_in + (u64)QKV * H / 2;
        produce_phase(ring, blockIdx.x < BLOCKS_Q ? layer.w_in : up_rows, first, n, policy);
        const u16* down = layer.down + (u64)(piece - 1) * H * H / 2;
        produce_phase(ring, piece == 0 ? layer.dense : down, second, n, policy);
    }
}

// ---- products ----

// Sixteen rows of weights times the tokens in ``act``: the warp's mma accumulator.
__device__ __forceinline__ void multiply(float (&c)[4], const Ring& ring, u32 n, int width,
                                         const char* act) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const bool is_token = g < BATCH;
    const char* x = act + g * ACT_PITCH + 8 * t;
    c[0] = c[1] = c[2] = c[3] = 0.0f;
    for (int part = 0; part < SLOTS_A_UNIT; ++part, n += width) {
        barrier_wait(ring.full_at(n), n / SLOTS & 1);
        const char* w = ring.slots + n % SLOTS * SLOT_BYTES + g * SLOT_PITCH + 8 * t;
#pragma unroll
        for (int k = 0; k < SLOT_K; k += 128) {
            uint2 upper[4], lower[4], xs[8];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                upper[j] = *(const uint2*)(w + k + 32 * j);
                lower[j] = *(const uint2*)(w + k + 32 * j + 8 * SLOT_PITCH);
            }
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                xs[j] = is_token ? *(const uint2*)(x + 2 * k + 32 * j) : make_uint2(0, 0);
            }
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

// ---- norm ----

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

// LayerNorm of one token by COUNT neighbouring warps; ``norm`` are weight and bias, fp32 [2, H].
template <int COUNT>
__device__ __forceinline__ void normalise(const float* x, const u16* embedded, const float* norm,
                                          float eps, u16* out, long long* room) {
    constexpr int EACH = (H + 128 * COUNT - 1) / (128 * COUNT);
    const int place = threadIdx.x % (32 * COUNT);
    float4 v[EACH];
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int col = (i * 32 * COUNT + place) * 4;
        v[i] = make_float4(0, 0, 0, 0);
        if (col < H) {
            if (embedded) {
                const ushort4 e = *(const ushort4*)(embedded + col);
                v[i] = make_float4(to_float(e.x), to_float(e.y), to_float(e.z), to_float(e.w));
            } else {
                v[i] = __ldcg((const float4*)(x + col));
            }
        }
        largest = fmaxf(fmaxf(largest, fmaxf(fabsf(v[i].x), fabsf(v[i].y))),
                        fmaxf(fabsf(v[i].z), fabsf(v[i].w)));
    }
#pragma unroll
    for (int i = 16; i > 0; i /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, i));
    largest = across_warps(largest, (float*)room, COUNT, [](float a, float b) { return fmaxf(a, b); });
    const auto add = [](long long a, long long b) { return a + b; };
    const float failed = __fmul_rn(largest, 0.0f);
    const int exponent = min(max((__float_as_int(largest) >> 23) - 126, -30), 60);
    const float up = power_of_two(48 - exponent), down = power_of_two(exponent - 48);
    long long sum = 0;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        sum += __float2ll_rz(__fmul_rn(v[i].x, up)) + __float2ll_rz(__fmul_rn(v[i].y, up)) +
               __float2ll_rz(__fmul_rn(v[i].z, up)) + __float2ll_rz(__fmul_rn(v[i].w, up));
    }
    sum = across_warps(warp_sum(sum), room, COUNT, add);
    const float mean =
        __fadd_rn(div_full(__fmul_rn(__ll2float_rn(sum), down), (float)H), failed);
    const int square = 2 * exponent + 2;
    const float up2 = power_of_two(48 - square), down2 = power_of_two(square - 48);
    sum = 0;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const bool is_in = (i * 32 * COUNT + place) * 4 < H;
        float* c = (float*)&v[i];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            c[j] = is_in ? __fadd_rn(c[j], -mean) : 0.0f;
            sum += __float2ll_rz(__fmul_rn(__fmul_rn(c[j], c[j]), up2));
        }
    }
    sum = across_warps(warp_sum(sum), room, COUNT, add);
    const float variance = div_full(__fmul_rn(__ll2float_rn(sum), down2), (float)H);
    const float scale = div_full(1.0f, __fsqrt_rn(__fadd_rn(variance, eps)));
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int col = (i * 32 * COUNT + place) * 4;
        if (col >= H) continue;
        const float4 w = *(const float4*)(norm + col), b = *(const float4*)(norm + H + col);
        ushort4 h;
        h.x = to_half(__fmaf_rn(__fmul_rn(v[i].x, scale), w.x, b.x));
        h.y = to_half(__fmaf_rn(__fmul_rn(v[i].y, scale), w.y, b.y));
        h.z = to_half(__fmaf_rn(__fmul_rn(v[i].z, scale), w.z, b.z));
        h.w = to_half(__fmaf_rn(__fmul_rn(v[i].w, scale), w.w, b.w));
        *(ushort4*)(out + col) = h;
    }
}

// ---- in ----

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

struct Step {
    const Layer* layers;
    const u16* table;  // fp16 [V, H]
    const int* token_ids;  // [BATCH]
    const int* context_lens;  // [BATCH], with the new token; 0 for a row that is not in use
    const int* block_tables;  // [BATCH, table_stride]
    const float *cosine, *sine;  // [positions, ROTARY / 2]
    const float* head_norm;  // [2, H]
    float* x;  // [BATCH, H]
    u16 *h, *qkv, *up, *attended;  // h: normed for the head, [BATCH, H]
    float* parts;  // [PIECES, BATCH, H]
    Counters* counters;
    int table_stride, num_layers;
    float eps;
};

__device__ __forceinline__ const u16* embedded(const Step& s, int layer, int token) {
    return layer == 0 ? s.table + (u64)s.token_ids[token] * H : nullptr;
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
    if (threadIdx.x == 0) {
        __threadfence();
        add_release(counter);
    }
}

__device__ void in_phase(const Step& s, int layer, const Ring& ring, u32 n, char* act,
                         long long* room) {
    const Layer& l = s.layers[layer];
    const bool is_up = blockIdx.x >= BLOCKS_Q;
    const int warp = threadIdx.x / 32, token = warp / WARPS_A_TOKEN;
    normalise<WARPS_A_TOKEN>(s.x + token * H, embedded(s, layer, token), l.norms + is_up * 2 * H,
                             s.eps, (u16*)(act + token * ACT_PITCH), room);
    consumers_sync();
    const Units units = in_units();
    const int g = threadIdx.x % 32 / 4;
    const int offset = is_up ? QKV : 0;
    for (int i = warp; i < units.count; i += WARPS) {
        const int tile = units.tile(i), row = offset + tile * ROWS + g;
        const float scale[2] = {l.in_scale[row], l.in_scale[row + 8]};
        const float bias[2] = {l.in_bias[row], l.in_bias[row + 8]};
        float c[4];
        multiply(c, ring, n + units.place(i), units.width(i), act);
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

// ---- attend ----

__device__ __forceinline__ u64 tile_offset(const Step& s, int token, int head, int tile) {
    return ((u64)s.block_tables[token * s.table_stride + tile] * HEADS + head) * TILE * HEAD;
}

// Bring the warps' first tiles into the L2 cache while others still compute q.
__device__ void fetch_context(const Step& s, int layer) {
    constexpr int LINES = TILE * HEAD * 2 / 128;
    for (int unit = BLOCKS - 1 - blockIdx.x; unit < UNITS_ATTEND; unit += BLOCKS) {
        const int token = unit / HEADS, head = unit % HEADS, tile = threadIdx.x / 32;
        if (tile * TILE >= s.context_lens[token] - 1) continue;
        const u64 offset = tile_offset(s, token, head, tile);
        for (int i = threadIdx.x % 32; i < LINES; i += 32) {
            prefetch((const char*)(s.layers[layer].keys + offset) + 128 * i);
            prefetch((const char*)(s.layers[layer].values + offset) + 128 * i);
        }
    }
}

// GPT-NeoX: dimension i < ROTARY / 2 pairs with i + ROTARY / 2; the rest stays.
__device__ __forceinline__ u16 rotate(const Step& s, const u16* from, int dim, int position) {
    constexpr int HALF = ROTARY / 2;
    const bool is_first = dim < HALF, does_rotate = dim < ROTARY;
    const int partner = !does_rotate ? dim : is_first ? dim + HALF : dim - HALF;
    const int angle = position * HALF + (is_first ? dim : dim - HALF);
    const float a = to_float(__ldcg(from + dim)), b = to_float(__ldcg(from + partner));
    const float cosine = does_rotate ? s.cosine[angle] : 1.0f;
    const float sine = does_rotate ? s.sine[angle] : 0.0f;
    return to_half(__fmaf_rn(a, cosine, __fmul_rn(is_first ? -b : b, sine)));
}

// Rotate q and k of the new token and put its k and v into the cache.
__device__ __forceinline__ void take_token(const Step& s, const Layer& l, int token, int head,
                                           int last, Attention& a) {
    const int dim = threadIdx.x;
    if (dim < HEAD) {
        const u16* q = s.qkv + token * QKV + head * 3 * HEAD;
        const u64 to = tile_offset(s, token, head, last / TILE) + last % TILE * HEAD + dim;
        a.q[dim] = rotate(s, q, dim, last);
        a.k[dim] = rotate(s, q + HEAD, dim, last);
        a.v[dim] = __ldcg(q + 2 * HEAD + dim);
        l.keys[to] = a.k[dim];
        l.values[to] = a.v[dim];
    }
}

// One tile of the context by one warp: its own sum, largest score and sum of weights.
__device__ void attend_tile(const Layer& l, u64 offset, int start, int context_len, Attention& a) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int here = context_len - start;  // positions of this tile that exist
    const int newest = here - 1;  // in this tile the new token's, if it is less than TILE
    constexpr int MS = TILE / 16, GROUPS = HEAD / 16;
    float c[MS][4];
#pragma unroll
    for (int m = 0; m < MS; ++m) c[m][0] = c[m][1] = c[m][2] = c[m][3] = 0.0f;
    const u16* keys = l.keys + offset + 4 * t;
    constexpr int AT_ONCE = 32 / (2 * MS) < GROUPS ? 32 / (2 * MS) : GROUPS;
#pragma unroll
    for (int first = 0; first < GROUPS; first += AT_ONCE) {
        uint2 k[AT_ONCE][MS][2];
#pragma unroll
        for (int j = 0; j < AT_ONCE; ++j) {
#pragma unroll
            for (int m = 0; m < 2 * MS; ++m) {
                const int at = m / 2 * 16 + m % 2 * 8 + g, dim = (first + j) * 16;
                uint2 value = make_uint2(0, 0);
                if (first + j < GROUPS && at < newest) {
                    value = __ldcg((const uint2*)(keys + at * HEAD + dim));
                } else if (first + j < GROUPS && at == newest) {
                    value = *(const uint2*)(a.k + dim + 4 * t);
                }
                k[j][m / 2][m % 2] = value;
            }
        }
#pragma unroll
        for (int j = 0; j < AT_ONCE; ++j) {
            if (first + j >= GROUPS) break;
            uint2 q = make_uint2(0, 0);
            if (g == 0) q = *(const uint2*)(a.q + (first + j) * 16 + 4 * t);
#pragma unroll
            for (int m = 0; m < MS; ++m) {
                mma(c[m], k[j][m][0].x, k[j][m][1].x, k[j][m][0].y, k[j][m][1].y, q.x, q.y);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < MS; ++m) {
        if (t == 0) {
            const int at = m * 16 + g;
            a.score[warp][at] = at < here ? __fmul_rn(c[m][0], l.score_scale) : LOWEST;
            a.score[warp][at + 8] = at + 8 < here ? __fmul_rn(c[m][2], l.score_scale) : LOWEST;
        }
    }
    __syncwarp();
    float best = LOWEST;
#pragma unroll
    for (int i = 0; i < TILE; i += 32) best = fmaxf(best, a.score[warp][i + lane]);
#pragma unroll
    for (int i = 16; i > 0; i /= 2) best = fmaxf(best, __shfl_xor_sync(~0u, best, i));
    const float base = best == LOWEST ? 0.0f : best;
    int total = 0;
#pragma unroll
    for (int i = 0; i < TILE; i += 32) {
        const u16 p = to_half(exp2_approx(__fadd_rn(a.score[warp][i + lane], -base)));
        a.p[warp][i + lane] = p;
        total += __float2int_rz(__fmul_rn(to_float(p), 16777216.0f));
    }
    total = __reduce_add_sync(~0u, total);
    if (lane == 0) {
        a.best[warp] = best;
        a.total[warp] = __fmul_rn(__int2float_rn(total), 5.9604644775390625e-08f);
    }
    __syncwarp();
    constexpr int VECTORS = HEAD / 8;
    const u16* values = l.values + offset;
#pragma unroll
    for (int block = 0; block < VECTORS; block += 8) {
        const int vector = block + g;
        float o[4][4];
#pragma unroll
        for (int j = 0; j < 4; ++j) o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0.0f;
#pragma unroll
        for (int m = 0; m < MS; ++m) {
            uint2 p = make_uint2(0, 0);
            if (g == 0) p = *(const uint2*)(a.p[warp] + 16 * m + 4 * t);
            uint4 v[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int at = 16 * m + 4 * t + i;
                v[i] = make_uint4(0, 0, 0, 0);
                if (vector < VECTORS && at < newest) {
                    v[i] = __ldcg((const uint4*)(values + at * HEAD + 8 * vector));
                } else if (vector < VECTORS && at == newest) {
                    v[i] = *(const uint4*)(a.v + 8 * vector);
                }
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const u32 w0 = (&v[0].x)[j], w1 = (&v[1].x)[j], w2 = (&v[2].x)[j], w3 = (&v[3].x)[j];
                mma(o[j], prmt(w0, w1, 0x5410), prmt(w0, w1, 0x7632), prmt(w2, w3, 0x5410),
                    prmt(w2, w3, 0x7632), p.x, p.y);
            }
        }
        if (t == 0 && vector < VECTORS) {
            float4* to = (float4*)(a.acc[warp] + 8 * vector);
            to[0] = make_float4(o[0][0], o[0][2], o[1][0], o[1][2]);
            to[1] = make_float4(o[2][0], o[2][2], o[3][0], o[3][2]);
        }
    }
}

__device__ void attend(const Step& s, const Layer& l, int token, int head, Attention& a) {
    const int context_len = s.context_lens[token];
    if (context_len == 0) return;
    const int warp = threadIdx.x / 32, dim = threadIdx.x;
    const int tiles = (context_len + TILE - 1) / TILE;
    take_token(s, l, token, head, context_len - 1, a);
    consumers_sync();
    float acc = 0.0f, best = LOWEST, total = 0.0f;
    for (int first = 0; first < tiles; first += WARPS) {
        const int tile = first + warp;
        if (tile < tiles) {
            attend_tile(l, tile_offset(s, token, head, tile), tile * TILE, context_len, a);
        }
        consumers_sync();
        for (int i = 0; dim < HEAD && i < min(tiles - first, WARPS); ++i) {
            const float highest = fmaxf(best, a.best[i]);
            const float base = highest == LOWEST ? 0.0f : highest;
            const float keep = exp2_approx(__fadd_rn(best, -base));
            const float take = exp2_approx(__fadd_rn(a.best[i], -base));
            acc = __fmaf_rn(acc, keep, __fmul_rn(a.acc[i][dim], take));
            total = __fmaf_rn(total, keep, __fmul_rn(a.total[i], take));
            best = highest;
        }
        consumers_sync();
    }
    if (dim < HEAD) s.attended[token * H + head * HEAD + dim] = to_half(div_full(acc, total));
}

__device__ void attend_phase(const Step& s, int layer, Attention& a) {
    int unit = BLOCKS - 1 - blockIdx.x;
    if (unit >= UNITS_ATTEND) return;
    wait_for(&s.counters->q, BLOCKS_Q * (layer + 1));
    for (; unit < UNITS_ATTEND; unit += BLOCKS) {
        attend(s, s.layers[layer], unit / HEADS, unit % HEADS, a);
        announce(&s.counters->attended);
    }
}

// ---- out ----

// Copy BATCH rows of H values, of a matrix with rows of ``stride``, where ``multiply`` wants them.
__device__ __forceinline__ void take_activations(char* act, const u16* from, int stride) {
    constexpr int VECTORS = H / 8;
#pragma unroll 4
    for (int i = threadIdx.x; i < BATCH * VECTORS; i += CONSUMERS) {
        const int token = i / VECTORS, vector = i % VECTORS;
        const uint4 value = __ldcg((const uint4*)(from + token * stride) + vector);
        *(uint4*)(act + token * ACT_PITCH + 16 * vector) = value;
    }
    consumers_sync();
}

// x += the five pieces of one tile's rows, in the order of ``norm`` in norm.py; by one warp.
__device__ __forceinline__ void add_pieces(const Step& s, int layer, int tile) {
    const Layer& l = s.layers[layer];
    for (int i = threadIdx.x % 32; i < ROWS * BATCH; i += 32) {
        const int token = i / ROWS, row = tile * ROWS + i % ROWS;
        const u16* first = embedded(s, layer, token);
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

__device__ void out_phase(const Step& s, int layer, const Ring& ring, u32 n, char* act) {
    const Units units = out_units();
    if (units.count == 0) return;
    const int piece = out_piece(), lane = threadIdx.x % 32;
    if (piece == 0) {
        wait_for(&s.counters->attended, UNITS_ATTEND * (layer + 1));
        take_activations(act, s.attended, H);
    } else {
        wait_for(&s.counters->up, (BLOCKS - BLOCKS_Q) * (layer + 1));
        take_activations(act, s.up + (piece - 1) * H, UP);
    }
    for (int i = threadIdx.x / 32; i < units.count; i += WARPS) {
        const int tile = units.tile(i);
        float c[4];
        multiply(c, ring, n + units.place(i), units.width(i), act);
        each_value(c, tile, [&](int row, int token, int, float value) {
            s.parts[(piece * BATCH + token) * H + row] = value;
        });
        __syncwarp();
        u32 before = 0;
        if (lane == 0) {
            __threadfence();
            before = add_both(&s.counters->tickets[tile]);
            __threadfence();
        }
        before = __shfl_sync(~0u, before, 0);
        if (before == PIECES - 1) {
            add_pieces(s, layer, tile);
            __syncwarp();
            if (lane == 0) {
                s.counters->tickets[tile] = 0;
                __threadfence();
                add_release(&s.counters->x);
            }
        }
    }
}

// ---- all of it ----

__device__ void consume(const Step& s, const Ring& ring, char* act, long long* room) {
    const u32 slots_in = in_units().count * SLOTS_A_UNIT, slots_out = out_units().count * SLOTS_A_UNIT;
    u32 n = 0;
    for (int layer = 0; layer < s.num_layers; ++layer) {
        fetch_context(s, layer);
        wait_for(&s.counters->x, TILES_OUT * layer);
        in_phase(s, layer, ring, n, act, room);
        attend_phase(s, layer, *(Attention*)act);
        out_phase(s, layer, ring, n + slots_in, act);
        n += slots_in + slots_out;
    }
    if (blockIdx.x < BATCH) {
        wait_for(&s.counters->x, TILES_OUT * s.num_layers);
        normalise<WARPS>(s.x + blockIdx.x * H, nullptr, s.head_norm, s.eps, s.h + blockIdx.x * H, room);
    }
    consumers_sync();
    if (threadIdx.x == 0 && add_both(&s.counters->done) == BLOCKS - 1) {
        s.counters->q = s.counters->up = s.counters->attended = s.counters->x = 0;
        s.counters->done = 0;
    }
}

extern "C" __global__ void __launch_bounds__(CONSUMERS + 32, 1) decode_step(const Step s) {
    extern __shared__ __align__(128) char memory[];
    char* act = memory + SLOTS * SLOT_BYTES;
    long long* room = (long long*)(act + SHARED_BYTES);
    u64* barriers = (u64*)(room + WARPS);
    const Ring ring{memory, shared_address(barriers), shared_address(barriers + SLOTS)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < SLOTS; ++i) {
            barrier_init(ring.full_at(i), 1);
            barrier_init(ring.empty_at(i), 1);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x >= CONSUMERS) {
        produce(ring, s.layers, s.num_layers);
    } else {
        consume(s, ring, act, room);
    }
}

