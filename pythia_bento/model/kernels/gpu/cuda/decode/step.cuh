// What a launch is given, and what a block keeps in its shared memory.

#pragma once

#include "device.cuh"

constexpr int ROWS = 16;  // weight rows of a unit of work
// Inputs of a row in a slot: the most up to 512 that divide H.
__device__ constexpr int widest(int k) { return H % k == 0 ? k : widest(k - 128); }
constexpr int SLOT_K = widest(H < 512 ? H : 512);
constexpr int SLOTS_A_UNIT = H / SLOT_K;
// A tile of keys, or of values, takes two slots. Its rows come in eight groups, apart by so much
// that rows of different groups are in different banks.
constexpr int GROUP_ROWS = TILE / 8;
constexpr int GROUP_BYTES = GROUP_ROWS * 2 * HEAD, GROUP_PITCH = GROUP_BYTES + 32;
constexpr int SLOT_BYTES = ROWS * SLOT_K > 4 * GROUP_PITCH ? ROWS * SLOT_K : 4 * GROUP_PITCH;
constexpr int ACT_PITCH = 2 * H + 32;  // eight rows hit different banks
constexpr int TILES_Q = QKV / ROWS, TILES_UP = UP / ROWS, TILES_OUT = H / ROWS;
constexpr int BLOCKS_Q = (BLOCKS * TILES_Q + (TILES_Q + TILES_UP) / 2) / (TILES_Q + TILES_UP);
constexpr int BLOCKS_A_PIECE = BLOCKS / PIECES;

struct Layer {
    const u16 *w_in, *dense, *down;  // int16 pairs in blocks of ROWS x 64, see packing.py
    const float *in_scale, *in_bias, *dense_scale, *down_scale, *out_bias;
    const float* norms;  // [2, 2, H]
    u16 *keys, *values;  // fp16 [blocks, HEADS, TILE, HEAD]
    float gelu_scale, score_scale;
};

struct Counters {  // all 0 between launches
    u32 normed, q, up, attended, x, done;
    u32 tickets[TILES_OUT];
};

struct Step {
    const Layer* layers;  // [LAYERS]
    const u16* table;  // fp16 [V, H]
    const int* token_ids;  // [BATCH]
    const int* context_lens;  // [BATCH], with the new token; 0 for a row that is not in use
    const int* block_tables;  // [BATCH, TABLE]
    const float *cosine, *sine;  // [positions, ROTARY / 2]
    const float* head_norm;  // [2, H]
    float* x;  // [BATCH, H]
    u16* h;  // [2, BATCH, H], normed for qkv and for up; in the end the first for the head
    u16 *qkv, *up, *attended;
    float* parts;  // [PIECES, BATCH, H]
    float* tile_acc;  // [BATCH, HEADS, TABLE, HEAD]
    float2* tile_sums;  // [BATCH, HEADS, TABLE]: largest score, sum of weights
    u32* tile_tickets;  // [BATCH, HEADS], 0 between launches
    Counters* counters;
    float eps;
};

// One warp's tile of the context.
struct Attending {
    u16 q[HEAD], k[HEAD], v[HEAD];
    float score[TILE];
    u16 p[TILE];
};

// Copied once: after every wait for other blocks the first-level cache is empty.
struct Resident {
    Layer layers[LAYERS];
    int token_ids[BATCH], context_lens[BATCH];
    int tables[BATCH][TABLE];
    float cosine[BATCH][ROTARY / 2], sine[BATCH][ROTARY / 2];  // at the new token's position
    int num_tiles, num_live;  // of all sequences and heads; sequences
};

struct Shared {
    union {
        char act[BATCH * ACT_PITCH];  // what ``multiply`` multiplies
        Attending attending[WARPS];
    };
    Resident resident;
    long long room[WARPS];  // of sums across warps
    u64 taken;  // barrier of ``act``
    u32 opened;  // of the ring
};

constexpr int SHARED_BYTES = (sizeof(Shared) + 15) / 16 * 16;
constexpr int SLOTS = (SHARED - SHARED_BYTES) / (SLOT_BYTES + 16);
static_assert(SLOTS >= 4, "room for the weights");
