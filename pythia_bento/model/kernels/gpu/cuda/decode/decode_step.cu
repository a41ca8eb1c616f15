// All layers of one decode step in one persistent kernel, for up to eight sequences.
//
// One block per multiprocessor. A producer warp streams the weights that its block will multiply,
// in the order in which it will need them and through all layers, into a ring in shared memory: it
// waits for nobody but the ring, so the memory stays busy while eight consumer warps wait for each
// other's activations. Blocks meet only through counters in global memory ("so many pieces of this
// kind are there"), which grow through the layers and are set back by the last block to leave.
//
//   in:    norm of x (every block for itself), rows of qkv and of up with bias and GELU
//   attend: a warp per tile of the context; the last one of a sequence and head folds them in order
//   out:   rows of dense and of the four pieces of down; whoever finishes the fifth piece of
//          sixteen rows adds them to x
//
// Bits: those of the Triton kernels (norm.py, products.py, attention.py), operation for operation.
// Products add K in groups of 16 in order; inside a group the order does not matter, so a thread
// takes four neighbours of K where the instruction's own layout would give it two pairs.

#include "phases.cuh"

__device__ void produce(const Ring& ring, const Resident& r) {
    u64 once, again;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(once));
    asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(again));
    const Units first = in_units(), second = out_units();
    const int piece = out_piece();
    u32 n = 0;
#pragma unroll 1
    for (int i = 0; i < LAYERS; ++i) {
        const Layer& layer = r.layers[i];
        const u16* up_rows = layer.w_in + (u64)QKV * H / 2;
        produce_phase(ring, blockIdx.x < BLOCKS_Q ? layer.w_in : up_rows, first, n, once);
        produce_context(ring, r, layer, n, again);
        const u16* down = layer.down + (u64)(piece - 1) * H * H / 2;
        produce_phase(ring, piece == 0 ? layer.dense : down, second, n, once);
    }
}

__device__ void consume(const Step& s, const Ring& ring, Shared& shared) {
    const u32 slots_in = in_units().count * SLOTS_A_UNIT;
    const u32 slots_attend = 4 * Tiles(shared.resident).count;
    const u32 slots_out = out_units().count * SLOTS_A_UNIT;
    u32 n = 0, taken = 0;  // slots of the ring, fillings of ``act``
#pragma unroll 1
    for (int layer = 0; layer < LAYERS; ++layer) {
        in_phase(s, layer, ring, n, shared, taken);
        attend_phase(s, layer, ring, n + slots_in, shared);
        out_phase(s, layer, ring, n + slots_in + slots_attend, shared, taken);
        n += slots_in + slots_attend + slots_out;
    }
    if (blockIdx.x < BATCH) {
        const NormWeights<WARPS> norm(s.head_norm);
        wait_for(&s.counters->x, TILES_OUT * LAYERS);
        Hidden<WARPS> hidden(s.x + blockIdx.x * H, nullptr);
        hidden.standardise(s.eps, shared.room);
        hidden.write(norm, s.h + blockIdx.x * H);
    }
    consumers_sync();
    if (threadIdx.x == 0 && add_both(&s.counters->done) == BLOCKS - 1) {
        s.counters->normed = s.counters->q = s.counters->up = 0;
        s.counters->attended = s.counters->x = s.counters->done = 0;
    }
}

template <class T>
__device__ __forceinline__ void copy_words(T* to, const T* from, int bytes) {
    for (int i = threadIdx.x; i < bytes / 4; i += blockDim.x) ((u32*)to)[i] = ((const u32*)from)[i];
}

__device__ __forceinline__ void fill(Resident& r, const Step& s) {
    copy_words(r.layers, s.layers, sizeof(r.layers));
    copy_words(r.token_ids, s.token_ids, sizeof(r.token_ids));
    copy_words(r.context_lens, s.context_lens, sizeof(r.context_lens));
    copy_words(&r.tables[0][0], s.block_tables, sizeof(r.tables));
    constexpr int HALF = ROTARY / 2;
    for (int i = threadIdx.x; i < BATCH * HALF; i += blockDim.x) {
        const int at = max(s.context_lens[i / HALF] - 1, 0) * HALF + i % HALF;
        r.cosine[i / HALF][i % HALF] = s.cosine[at];
        r.sine[i / HALF][i % HALF] = s.sine[at];
    }
    if (threadIdx.x == 0) {
        r.num_tiles = r.num_live = 0;
        for (int i = 0; i < BATCH; ++i) {
            r.num_tiles += tiles_of(s.context_lens[i]) * HEADS;
            r.num_live += s.context_lens[i] > 0;
        }
    }
}

extern "C" __global__ void __launch_bounds__(CONSUMERS + 32, 1) decode_step(const Step s) {
    extern __shared__ __align__(128) char memory[];
    Shared& shared = *(Shared*)(memory + SLOTS * SLOT_BYTES);
    u64* barriers = (u64*)((char*)&shared + SHARED_BYTES);
    const Ring ring{memory, shared_address(barriers), shared_address(barriers + SLOTS),
                    &shared.opened};
    if (threadIdx.x == 0) {
        shared.opened = 0;
        barrier_init(shared_address(&shared.taken), 1);
        for (int i = 0; i < SLOTS; ++i) {
            barrier_init(ring.full_at(i), 1);
            barrier_init(ring.empty_at(i), 1);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    fill(shared.resident, s);
    __syncthreads();
    if (threadIdx.x >= CONSUMERS) {
        produce(ring, shared.resident);
    } else {
        consume(s, ring, shared);
    }
}
