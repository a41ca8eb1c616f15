// Sums of products with activations of 16 bits, for machines without dot products of bytes: one
// product of words does what two of bytes would.
//
// Words of four depths are in the order 0, 2, 1, 3: weights unpack into words of even and of odd
// depths. A sum of 256 depths fits int32; it then moves to fp64, which holds all of it exactly.
#pragma once

#include <utility>

#include "simd.h"

namespace pythia {

constexpr int PANEL = 64;  // output channels in a panel
constexpr int ROWS = 16;   // Rows that share one pass over a panel
constexpr int PIECE = 256;  // depths: 256 * 255 * RANGE < 2^31

// Quantised activations of one token.
struct Row {
  const int16_t* words;
  float scale;  // absmax / RANGE; NaN when the row is not finite
  int32_t sum;
};

// Where the rows of Rows are, and how 16 values get there.
struct Layout {
  typedef int16_t Value;
  static int64_t size(int64_t rows, int64_t depth) { return rows * depth; }
  static int64_t start(int64_t row, int64_t depth) { return row * depth; }
  static void put(int16_t* row, int64_t i, IVec q) {
    for (int k = 0; k < LANES; k++) row[i + k] = int16_t(q[(k & ~3) | (k & 1) << 1 | (k >> 1 & 1)]);
  }
  static void finish(int16_t*, int64_t) {}
};

#if defined(__AVX2__)
struct Dot {  // 16 channels
  __m256i a, b;
  struct W { __m256i even, odd; };
  struct X { __m256i even, odd; };
  static constexpr int VECTORS = 2;  // of weights for 16 channels

  static __m256i spread(const int16_t* two) {
    int32_t pair;
    std::memcpy(&pair, two, 4);
    return _mm256_set1_epi32(pair);
  }
  static X spread_four(const int16_t* x) { return {spread(x), spread(x + 2)}; }
  static W unpack(const uint8_t* w) {
    const __m256i bytes = _mm256_load_si256(reinterpret_cast<const __m256i*>(w));
    return {_mm256_and_si256(bytes, _mm256_set1_epi16(255)), _mm256_srli_epi16(bytes, 8)};
  }
  static __m256i add(__m256i sum, __m256i w, __m256i x) {
#if defined(__AVXVNNI__)
    asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));
    return sum;
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(w, x));
#endif
  }
  void clear() { a = b = _mm256_setzero_si256(); }
  void add(const W* w, X x) {
    a = add(add(a, w[0].even, x.even), w[0].odd, x.odd);
    b = add(add(b, w[1].even, x.even), w[1].odd, x.odd);
  }
  static void flush(double* out, __m128i four) {
    _mm256_storeu_pd(out, _mm256_add_pd(_mm256_cvtepi32_pd(four), _mm256_loadu_pd(out)));
  }
  void flush(double* out) const {
    flush(out, _mm256_castsi256_si128(a));
    flush(out + 4, _mm256_extracti128_si256(a, 1));
    flush(out + 8, _mm256_castsi256_si128(b));
    flush(out + 12, _mm256_extracti128_si256(b, 1));
  }
};
#else
struct Dot {  // 16 channels
  int32_t v[16];
  struct W { const uint8_t* v; };
  struct X { const int16_t* v; };
  static constexpr int VECTORS = 1;

  static X spread_four(const int16_t* x) { return {x}; }
  static W unpack(const uint8_t* w) { return {w}; }
  void clear() { std::memset(v, 0, sizeof v); }
  void add(const W* w, X x) {
    for (int c = 0; c < 16; c++) {
      const uint8_t* four = w->v + 4 * c;
      v[c] += four[0] * x.v[0] + four[2] * x.v[1] + four[1] * x.v[2] + four[3] * x.v[3];
    }
  }
  void flush(double* out) const {
    for (int c = 0; c < 16; c++) out[c] += v[c];
  }
};
#endif

// N Rows times 16 channels, in registers. The loops over the accumulators are written as folds:
// compilers keep an array in registers only where every index is a constant.
template <int N>
struct Block {
  Dot acc[N];

  template <int... R>
  inline __attribute__((always_inline)) void run(const uint8_t* w, const int16_t* const* rows, int64_t depth,
                                                 double* out, std::integer_sequence<int, R...>) {
    (acc[R].clear(), ...);
    for (int64_t k = 0; k < depth; k += 4, w += 4 * PANEL) {
      Dot::W unpacked[Dot::VECTORS];
      for (int i = 0; i < Dot::VECTORS; i++) unpacked[i] = Dot::unpack(w + 32 * i);
      (acc[R].add(unpacked, Dot::spread_four(rows[R] + k)), ...);
    }
    (acc[R].flush(out + R * PANEL), ...);
  }
};

// out[row][64] += w x for N Rows and `depth` <= PIECE.
template <int N>
inline void dot_rows(const uint8_t* panel, const int16_t* const* given, int64_t depth, double* out) {
  const int16_t* rows[N];
  std::memcpy(rows, given, sizeof rows);
  for (int c = 0; c < PANEL; c += LANES)
    Block<N>().run(panel + 4 * c, rows, depth, out + c, std::make_integer_sequence<int, N>{});
}

constexpr int IN_REGISTERS = 4;  // Rows

// Sums of q w of `count` <= ROWS Rows: sums[row][64].
inline void sum_rows(const uint8_t* panel, int64_t depth, const Row* rows, int count, double* sums) {
  for (int i = 0; i < count * PANEL; i++) sums[i] = -128.0 * rows[i / PANEL].sum;
  for (int64_t k = 0; k < depth; k += PIECE, panel += PIECE * PANEL) {
    const int64_t length = depth - k < PIECE ? depth - k : PIECE;
    for (int r = 0; r < count; r += IN_REGISTERS) {
      const int16_t* words[IN_REGISTERS] = {};
      const int n = count - r < IN_REGISTERS ? count - r : IN_REGISTERS;
      for (int i = 0; i < n; i++) words[i] = rows[r + i].words + k;
      double* out = sums + r * PANEL;
      if (n == 1) dot_rows<1>(panel, words, length, out);
      else if (n == 2) dot_rows<2>(panel, words, length, out);
      else if (n == 3) dot_rows<3>(panel, words, length, out);
      else dot_rows<4>(panel, words, length, out);
    }
  }
}

}  // namespace pythia
