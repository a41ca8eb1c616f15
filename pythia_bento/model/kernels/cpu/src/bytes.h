// Sums of products with activations as two rows of bytes: q = 256 h + l, for instructions that
// multiply unsigned with signed bytes (AVX-512 VNNI, AMX). All sums are exact in int32.
//
// Rows lie in groups of 8: [depth / 64][8][high, low][64], the tiles of tiles.h.
#pragma once

#include <utility>

#include "simd.h"
#include "tiles.h"

namespace pythia {

constexpr int PANEL = 64;  // output channels in a panel
constexpr int STEP = 64;   // depths in a tile
constexpr int TOGETHER = 8;
constexpr int64_t TILE_BYTES = 2 * TOGETHER * STEP;

// Quantised activations of one token.
struct Row {
  const int8_t* bytes;  // high ones, and STEP behind them low ones; TILE_BYTES to the next depths
  float scale;          // absmax / RANGE; NaN when the row is not finite
  int32_t sum;
};

// Where the rows of Rows are, and how 16 values get there.
struct Layout {
  typedef int8_t Value;
  typedef int8_t Bytes __attribute__((vector_size(LANES)));

  static int64_t padded(int64_t depth) { return (depth + STEP - 1) / STEP * STEP; }
  // Whole groups, two of them at a time.
  static int64_t size(int64_t rows, int64_t depth) {
    return (rows + 2 * TOGETHER - 1) / (2 * TOGETHER) * 2 * TOGETHER * 2 * padded(depth);
  }
  static int64_t start(int64_t row, int64_t depth) {
    return row / TOGETHER * TOGETHER * 2 * padded(depth) + row % TOGETHER * 2 * STEP;
  }
  static void put(int8_t* row, int64_t i, IVec q) {
    const IVec h = (q + 128) >> 8, l = q - (h << 8);
    const Bytes hb = __builtin_convertvector(h, Bytes), lb = __builtin_convertvector(l, Bytes);
    int8_t* to = row + i / STEP * TILE_BYTES + i % STEP;
    std::memcpy(to, &hb, sizeof hb);
    std::memcpy(to + STEP, &lb, sizeof lb);
  }
  static void finish(int8_t* row, int64_t depth) {
    for (int64_t i = depth; i < padded(depth); i += LANES) put(row, i, IVec{});
  }
};

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
struct Dot {
  __m512i v;
  static Dot zero() { return {_mm512_setzero_si512()}; }
  struct X { __m512i v; };
  static X spread(const int8_t* x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return {_mm512_set1_epi32(four)};
  }
  void add(const uint8_t* w, X x) {
    // The intrinsic would let GCC 12 copy every accumulator to another register and back.
    asm("vpdpbusd %2, %1, %0" : "+v"(v) : "v"(_mm512_load_si512(w)), "v"(x.v));
  }
  void flush(int32_t* out) const {
    _mm512_storeu_si512(out, _mm512_add_epi32(v, _mm512_loadu_si512(out)));
  }
};
#else
struct Dot {  // of emulated tiles
  int32_t v[16];
  static Dot zero() { return {}; }
  struct X { const int8_t* v; };
  static X spread(const int8_t* x) { return {x}; }
  void add(const uint8_t* w, X x) {
    for (int c = 0; c < 16; c++)
      for (int k = 0; k < 4; k++) v[c] += int32_t(w[4 * c + k]) * x.v[k];
  }
  void flush(int32_t* out) const {
    for (int c = 0; c < 16; c++) out[c] += v[c];
  }
};
#endif

constexpr int VECTORS = PANEL / LANES;

// N rows of bytes times a panel, in registers. The loops over the accumulators are written as
// folds: compilers keep an array in registers only where every index is a constant.
template <int N>
struct Block {
  Dot acc[N * VECTORS];

  template <int... I>
  inline __attribute__((always_inline)) void clear(std::integer_sequence<int, I...>) {
    ((acc[I] = Dot::zero()), ...);
  }
  template <int... C>
  inline __attribute__((always_inline)) void row(int first, const uint8_t* w, Dot::X x,
                                                 std::integer_sequence<int, C...>) {
    (acc[first + C].add(w + C * 4 * LANES, x), ...);
  }
  template <int... R>
  inline __attribute__((always_inline)) void step(const uint8_t* w, const int8_t* const* rows, int64_t k,
                                                  std::integer_sequence<int, R...>) {
    (row(R * VECTORS, w, Dot::spread(rows[R] + k), std::make_integer_sequence<int, VECTORS>{}), ...);
  }
  template <int... I>
  inline __attribute__((always_inline)) void flush(int32_t* out, std::integer_sequence<int, I...>) const {
    (acc[I].flush(out + I / VECTORS * PANEL + I % VECTORS * LANES), ...);
  }
};

// The raw sums of one panel with N rows of bytes: out[row][64] += w x.
template <int N>
inline void dot_rows(const uint8_t* panel, const int8_t* const* given, int64_t depth, int32_t* out) {
  const int8_t* rows[N];
  std::memcpy(rows, given, sizeof rows);
  Block<N> block;
  block.clear(std::make_integer_sequence<int, N * VECTORS>{});
  for (int64_t k = 0; k < depth; k += STEP) {
    const int64_t count = depth - k < STEP ? depth - k : STEP;
    for (int64_t i = 0; i < count; i += 4)
      block.step(panel + (k + i) * PANEL, rows, k / STEP * TILE_BYTES + i,
                 std::make_integer_sequence<int, N>{});
  }
  block.flush(out, std::make_integer_sequence<int, N * VECTORS>{});
}

constexpr int IN_REGISTERS = 3;  // Rows: 6 rows of bytes
#if PYTHIA_TILES
constexpr int ROWS = 2 * TOGETHER;  // Rows that share one pass over a panel
constexpr int TILED = 4;            // fewer of them are as fast without tiles
#else
constexpr int ROWS = 4 * IN_REGISTERS;
#endif

// The raw sums of `count` Rows with `depth` <= PIECE of a panel: out[row][high, low][64] += w x.
inline void dot_piece(const uint8_t* panel, int64_t depth, const Row* rows, int64_t offset, int count, int32_t* out) {
  for (int r = 0; r < count; r += IN_REGISTERS, out += 2 * IN_REGISTERS * PANEL) {
    const int n = count - r < IN_REGISTERS ? count - r : IN_REGISTERS;
    const int8_t* bytes[2 * IN_REGISTERS];
    for (int i = 0; i < n; i++) {
      bytes[2 * i] = rows[r + i].bytes + offset;
      bytes[2 * i + 1] = bytes[2 * i] + STEP;
    }
    if (n == 1) dot_rows<2>(panel, bytes, depth, out);
    else if (n == 2) dot_rows<4>(panel, bytes, depth, out);
    else dot_rows<6>(panel, bytes, depth, out);
  }
}

constexpr int64_t PIECE = 2048;  // depths that caches hold from one turn of the registers to the next

inline void dot_in_registers(const uint8_t* panel, int64_t depth, const Row* rows, int count, int32_t* out) {
  std::memset(out, 0, sizeof(int32_t) * 2 * count * PANEL);
  for (int64_t k = 0; k < depth; k += PIECE) {
    const int64_t length = depth - k < PIECE ? depth - k : PIECE;
    dot_piece(panel + k * PANEL, length, rows, k / STEP * TILE_BYTES, count, out);
  }
}

#if PYTHIA_TILES
constexpr int64_t WEIGHT_STRIDE = 4 * PANEL, SUM_STRIDE = sizeof(int32_t) * PANEL;
constexpr int64_t QUARTER = 4 * LANES;  // bytes from 16 channels to the next 16

// The last depths of a panel, with zeros behind them.
struct Tail {
  alignas(64) uint8_t bytes[STEP * PANEL];
  Tail(const uint8_t* from, int64_t depth) {
    std::memcpy(bytes, from, depth * PANEL);
    std::memset(bytes + depth * PANEL, 0, (STEP - depth) * PANEL);
  }
};

// each(weights from channel `first` on, offset of the activations) for all depths, 64 at a time.
template <class Each>
inline __attribute__((always_inline)) void each_step(const uint8_t* panel, int64_t depth, int first, const Each& each) {
  const int64_t whole = depth / STEP * STEP;
  for (int64_t k = 0; k < whole; k += STEP) each(panel + k * PANEL + 4 * first, k / STEP * TILE_BYTES);
  if (whole == depth) return;
  const Tail tail(panel + whole * PANEL, depth - whole);
  each(tail.bytes + 4 * first, whole / STEP * TILE_BYTES);
}

// One group of Rows times a panel: out[2 * 8][64] = w x.
inline void tile_group(const uint8_t* panel, int64_t depth, const int8_t* group, int32_t* out) {
  TILE_ZERO(0);
  TILE_ZERO(1);
  TILE_ZERO(2);
  TILE_ZERO(3);
  each_step(panel, depth, 0, [&](const uint8_t* w, int64_t x) {
    TILE_LOAD(4, group + x, STEP);
    TILE_LOAD(5, w, WEIGHT_STRIDE);
    TILE_MULTIPLY(0, 4, 5);
    TILE_LOAD(6, w + QUARTER, WEIGHT_STRIDE);
    TILE_MULTIPLY(1, 4, 6);
    TILE_LOAD(5, w + 2 * QUARTER, WEIGHT_STRIDE);
    TILE_MULTIPLY(2, 4, 5);
    TILE_LOAD(6, w + 3 * QUARTER, WEIGHT_STRIDE);
    TILE_MULTIPLY(3, 4, 6);
  });
  TILE_STORE(0, out, SUM_STRIDE);
  TILE_STORE(1, out + LANES, SUM_STRIDE);
  TILE_STORE(2, out + 2 * LANES, SUM_STRIDE);
  TILE_STORE(3, out + 3 * LANES, SUM_STRIDE);
}

// Two groups times 32 channels of a panel: four loads for four products.
inline void tile_pair(const uint8_t* panel, int64_t depth, int channel, const int8_t* first,
                      const int8_t* second, int32_t* out) {
  TILE_ZERO(0);
  TILE_ZERO(1);
  TILE_ZERO(2);
  TILE_ZERO(3);
  each_step(panel, depth, channel, [&](const uint8_t* w, int64_t x) {
    TILE_LOAD(4, first + x, STEP);
    TILE_LOAD(6, w, WEIGHT_STRIDE);
    TILE_MULTIPLY(0, 4, 6);
    TILE_LOAD(5, second + x, STEP);
    TILE_MULTIPLY(1, 5, 6);
    TILE_LOAD(7, w + QUARTER, WEIGHT_STRIDE);
    TILE_MULTIPLY(2, 4, 7);
    TILE_MULTIPLY(3, 5, 7);
  });
  out += channel;
  int32_t* below = out + 2 * TOGETHER * PANEL;
  TILE_STORE(0, out, SUM_STRIDE);
  TILE_STORE(1, below, SUM_STRIDE);
  TILE_STORE(2, out + LANES, SUM_STRIDE);
  TILE_STORE(3, below + LANES, SUM_STRIDE);
}

inline void dot_in_tiles(const uint8_t* panel, int64_t depth, const Row* rows, int count, int32_t* out) {
  if (count <= TOGETHER) {
    tile_group(panel, depth, rows[0].bytes, out);
    return;
  }
  const int8_t *first = rows[0].bytes, *second = rows[TOGETHER].bytes;
  for (int channel = 0; channel < PANEL; channel += 2 * LANES)
    tile_pair(panel, depth, channel, first, second, out);
}
#endif

// Sums of q w of `count` <= ROWS Rows, of which the first begins a group: sums[row][64].
inline void sum_rows(const uint8_t* panel, int64_t depth, const Row* rows, int count, double* sums) {
  alignas(64) int32_t raw[2 * ROWS * PANEL];
#if PYTHIA_TILES
  if (count >= TILED && have_tiles) dot_in_tiles(panel, depth, rows, count, raw);
  else dot_in_registers(panel, depth, rows, count, raw);
#else
  dot_in_registers(panel, depth, rows, count, raw);
#endif
  for (int r = 0; r < count; r++) {
    const int32_t *high = raw + 2 * r * PANEL, *low = high + PANEL;
    const double surplus = 128.0 * rows[r].sum;
    for (int c = 0; c < PANEL; c++)
      sums[r * PANEL + c] = 256.0 * high[c] + low[c] - surplus;
  }
}

}  // namespace pythia
