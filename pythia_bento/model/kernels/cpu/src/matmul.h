// Exact products of int8 weights with activations of 15 bits and a sign.
//
// An activation row x is scaled by its absmax to integers q = 256 h + l with h, l int8, and
// y = (256 (h W) + (l W)) * scale. Both products accumulate in int32 without rounding, so a row's
// result does not depend on which rows are beside it, nor on any tile size.
//
// Weights are packed in panels of 64 output channels: [panel][k / 4][channel][4 k], as w + 128,
// because the dot-product instructions multiply unsigned with signed bytes; the surplus
// 128 * sum(x) is subtracted afterwards.
#pragma once

#include <utility>

#include "simd.h"

namespace pythia {

constexpr int PANEL = 64;          // output channels in a panel
constexpr int TILE = 3;            // tokens in a register tile: 6 int8 rows
constexpr float RANGE = 32639.0f;  // largest |q|: 127 * 256 + 127

// One token's activations, quantised.
struct Row {
  const int8_t* high;  // [K]
  const int8_t* low;   // [K]
  float scale;         // absmax / RANGE; NaN when the row is not finite
  int32_t high_sum, low_sum;
};

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
constexpr int GROUP = 4;  // vectors of 16 channels that share the registers
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
#elif defined(__AVX2__)
constexpr int GROUP = 1;
struct Dot {
  __m256i a, b;
  static Dot zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  struct X { __m256i even, odd; };  // 16-bit: the saturating 8-bit product is not exact
  static X spread(const int8_t* x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    const __m256i all = _mm256_set1_epi32(four);
    return {_mm256_srai_epi16(_mm256_slli_epi16(all, 8), 8), _mm256_srai_epi16(all, 8)};
  }
  static __m256i step(__m256i sum, const uint8_t* w, X x) {
    const __m256i bytes = _mm256_load_si256(reinterpret_cast<const __m256i*>(w));
    const __m256i even = _mm256_and_si256(bytes, _mm256_set1_epi16(255));
    const __m256i odd = _mm256_srli_epi16(bytes, 8);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even, x.even));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(odd, x.odd));
  }
  void add(const uint8_t* w, X x) {
    a = step(a, w, x);
    b = step(b, w + 32, x);
  }
  void flush(int32_t* out) const {
    __m256i* p = reinterpret_cast<__m256i*>(out);
    _mm256_storeu_si256(p, _mm256_add_epi32(a, _mm256_loadu_si256(p)));
    _mm256_storeu_si256(p + 1, _mm256_add_epi32(b, _mm256_loadu_si256(p + 1)));
  }
};
#else
constexpr int GROUP = 1;
struct Dot {
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

// N rows times GROUP vectors of 16 channels, in registers. The loops over the accumulators are
// written as folds: compilers keep an array in registers only where every index is a constant.
template <int N>
struct Block {
  Dot acc[N * GROUP];

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
    (row(R * GROUP, w, Dot::spread(rows[R] + k), std::make_integer_sequence<int, GROUP>{}), ...);
  }
  template <int... I>
  inline __attribute__((always_inline)) void flush(int32_t* out, std::integer_sequence<int, I...>) const {
    (acc[I].flush(out + I / GROUP * PANEL + I % GROUP * LANES), ...);
  }
};

// The raw sums of one panel with N int8 rows: out[row][64] += w x.
template <int N>
inline void dot_rows(const uint8_t* panel, const int8_t* const* given, int64_t depth, int32_t* out) {
  const int8_t* rows[N];
  std::memcpy(rows, given, sizeof rows);
  // Where the registers hold only a part of the channels, panels go through the first-level cache
  // in chunks, so that memory is still read once and in order.
  const int64_t chunk = GROUP == PANEL / LANES ? depth : 256;
  for (int64_t k0 = 0; k0 < depth; k0 += chunk) {
    const int64_t k1 = k0 + chunk < depth ? k0 + chunk : depth;
    for (int g = 0; g < PANEL / LANES; g += GROUP) {
      Block<N> block;
      block.clear(std::make_integer_sequence<int, N * GROUP>{});
      for (int64_t k = k0; k < k1; k += 4) {
        const uint8_t* w = panel + k * PANEL + g * 4 * LANES;
        block.step(w, rows, k, std::make_integer_sequence<int, N>{});
      }
      block.flush(out + g * LANES, std::make_integer_sequence<int, N * GROUP>{});
    }
  }
}

constexpr int ROWS = 4 * TILE;     // Rows that share one pass over a panel
constexpr int64_t DEPTH = 2048;    // and walk it in pieces that the caches hold

// Raw sums of `count` <= ROWS Rows, the surplus of the unsigned weights removed:
// sums[row][high, low][64].
inline void sum_rows(const uint8_t* panel, int64_t depth, const Row* rows, int count, int32_t* sums) {
  std::memset(sums, 0, sizeof(int32_t) * 2 * count * PANEL);
  for (int64_t k = 0; k < depth; k += DEPTH) {
    const int64_t length = depth - k < DEPTH ? depth - k : DEPTH;
    for (int r = 0; r < count; r += TILE) {
      const int n = count - r < TILE ? count - r : TILE;
      const int8_t* bytes[2 * TILE];
      for (int i = 0; i < n; i++) {
        bytes[2 * i] = rows[r + i].high + k;
        bytes[2 * i + 1] = rows[r + i].low + k;
      }
      int32_t* out = sums + 2 * r * PANEL;
      if (n == 1) dot_rows<2>(panel + k * PANEL, bytes, length, out);
      else if (n == 2) dot_rows<4>(panel + k * PANEL, bytes, length, out);
      else dot_rows<6>(panel + k * PANEL, bytes, length, out);
    }
  }
  for (int r = 0; r < count; r++)
    for (int c = 0; c < PANEL; c++) {
      sums[2 * r * PANEL + c] -= 128 * rows[r].high_sum;
      sums[(2 * r + 1) * PANEL + c] -= 128 * rows[r].low_sum;
    }
}

// An int8 linear as packed by pack(); scale is SCB / 127. Channels beyond `out` are padding.
struct Linear {
  const uint8_t* packed;
  const float* scale;  // [padded out]
  const float* bias;   // [padded out]
  int64_t out, in;
};

// One token's activations as one Row, or where `fine` is set as two: the second is what rounding
// took from the first, so that the pair holds the row exactly enough for fp32.
struct Activations {
  const Row* rows;
  int tokens;
  bool fine;
  int per_token() const { return fine ? 2 : 1; }

  // use(first token, number of tokens, their first Row, number of Rows) for all tokens in groups.
  template <class Use>
  void each_group(const Use& use) const {
    const int step = ROWS / per_token();
    for (int t = 0; t < tokens; t += step) {
      const int count = tokens - t < step ? tokens - t : step;
      use(t, count, rows + t * per_token(), count * per_token());
    }
  }
};

// 16 channels of x W / scale for one Row.
inline Vec combine(const int32_t* sums, int channel) {
  IVec high, low;
  std::memcpy(&high, sums + channel, sizeof high);
  std::memcpy(&low, sums + PANEL + channel, sizeof low);
  return fma(to_float(high), splat(256.0f), to_float(low));
}

// Calls use(token, channel, vec) with x W + bias for every token and 16 channels of one panel.
template <class Use>
inline void multiply_panel(const Linear& w, int64_t panel, const Activations& x, const Use& use) {
  alignas(64) int32_t buffer[ROWS * 2 * PANEL];
  x.each_group([&](int first, int tokens, const Row* row, int rows) {
    sum_rows(w.packed + panel * PANEL * w.in, w.in, row, rows, buffer);
    const int32_t* sums = buffer;
    for (int t = first; t < first + tokens; t++) {
      for (int c = 0; c < PANEL; c += LANES) {
        Vec y = combine(sums, c) * splat(row[0].scale);
        if (x.fine) y = fma(combine(sums + 2 * PANEL, c), splat(row[1].scale), y);
        const int64_t channel = panel * PANEL + c;
        use(t, channel, fma(y, load(w.scale + channel), load(w.bias + channel)));
      }
      row += x.per_token();
      sums += 2 * PANEL * x.per_token();
    }
  });
}

// The head keeps 15 bits and a sign of its fp16 weights: two panels, high and low, one after the
// other. All four partial products are exact; they meet in fp64.
struct Head {
  const uint8_t* packed;
  const float* scale;  // [padded out], absmax of the row / RANGE
  int64_t out, in;
};

// x W for one Row and one channel, from the sums with the high and the low plane of the weights.
inline double combine(const int32_t* high, const int32_t* low, int64_t c) {
  return 65536.0 * high[c] + 256.0 * (double(low[c]) + high[PANEL + c]) + low[PANEL + c];
}

inline void head_panel(const Head& w, int64_t panel, const Activations& x, float* logits) {
  alignas(64) int32_t high[ROWS * 2 * PANEL], low[ROWS * 2 * PANEL];
  const uint8_t* base = w.packed + panel * 2 * PANEL * w.in;
  const int64_t first_channel = panel * PANEL;
  const int64_t count = w.out - first_channel < PANEL ? w.out - first_channel : PANEL;
  x.each_group([&](int first, int tokens, const Row* row, int rows) {
    sum_rows(base, w.in, row, rows, high);
    sum_rows(base + PANEL * w.in, w.in, row, rows, low);
    for (int t = 0, at = 0; t < tokens; t++) {
      const int next = at + 2 * PANEL;
      float* out = logits + (first + t) * w.out + first_channel;
      for (int64_t c = 0; c < count; c++) {
        double y = combine(high + at, low + at, c) * row[0].scale;
        if (x.fine) y += combine(high + next, low + next, c) * row[1].scale;
        out[c] = float(y * w.scale[first_channel + c]);
      }
      row += x.per_token();
      at += 2 * PANEL * x.per_token();
    }
  });
}

// int8 [out, in] row-major to panels; `stride` bytes from one panel to the next.
inline void pack(const int8_t* w, int64_t out, int64_t in, int64_t panel, uint8_t* to) {
  for (int64_t k = 0; k < in; k += 4)
    for (int c = 0; c < PANEL; c++) {
      const int64_t row = panel * PANEL + c;
      uint8_t* four = to + k * PANEL + 4 * c;
      for (int i = 0; i < 4; i++) four[i] = row < out ? uint8_t(w[row * in + k + i] + 128) : 128;
    }
}

}  // namespace pythia
