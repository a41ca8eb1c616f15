// Exact products of int8 weights with activations of 15 bits and a sign.
//
// An activation row x is scaled by its absmax to integers q, and y = (q W) * scale. The sums are exact
// integers, of which the first rounding is the one to fp32, so a row's result depends neither on the
// rows beside it, nor on any tile size, nor on the instructions: bytes.h or words.h.
//
// Weights are packed in panels of 64 output channels: [panel][k / 4][channel][4 k], as w + 128,
// because the dot-product instructions multiply unsigned with signed bytes; the surplus
// 128 * sum(q) is subtracted afterwards. All variants read these bytes.
#pragma once

#include "tiles.h"
#if defined(__AVX512VNNI__) || PYTHIA_TILES
#include "bytes.h"
#else
#include "words.h"
#endif

namespace pythia {

constexpr float RANGE = 32639.0f;  // largest |q|: 127 * 256 + 127

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

// 16 channels of q W, rounded to fp32.
inline Vec rounded(const double* sums) {
  float y[LANES];
  for (int i = 0; i < LANES; i++) y[i] = float(sums[i]);
  return load(y);
}

// Calls use(token, channel, vec) with x W + bias for every token and 16 channels of one panel.
template <class Use>
inline void multiply_panel(const Linear& w, int64_t panel, const Activations& x, const Use& use) {
  alignas(64) double buffer[ROWS * PANEL];
  x.each_group([&](int first, int tokens, const Row* row, int rows) {
    sum_rows(w.packed + panel * PANEL * w.in, w.in, row, rows, buffer);
    const double* sums = buffer;
    for (int t = first; t < first + tokens; t++) {
      for (int c = 0; c < PANEL; c += LANES) {
        Vec y = rounded(sums + c) * splat(row[0].scale);
        if (x.fine) y = fma(rounded(sums + PANEL + c), splat(row[1].scale), y);
        const int64_t channel = panel * PANEL + c;
        use(t, channel, fma(y, load(w.scale + channel), load(w.bias + channel)));
      }
      row += x.per_token();
      sums += PANEL * x.per_token();
    }
  });
}

// The head keeps 15 bits and a sign of its fp16 weights: two panels, high and low, one after the
// other. The sums with both are exact; they meet in fp64.
struct Head {
  const uint8_t* packed;
  const float* scale;  // [padded out], absmax of the row / RANGE
  int64_t out, in;
};

inline void head_panel(const Head& w, int64_t panel, const Activations& x, float* logits) {
  alignas(64) double high[ROWS * PANEL], low[ROWS * PANEL];
  const uint8_t* base = w.packed + panel * 2 * PANEL * w.in;
  const int64_t first_channel = panel * PANEL;
  const int64_t count = w.out - first_channel < PANEL ? w.out - first_channel : PANEL;
  x.each_group([&](int first, int tokens, const Row* row, int rows) {
    sum_rows(base, w.in, row, rows, high);
    sum_rows(base + PANEL * w.in, w.in, row, rows, low);
    for (int t = 0, at = 0; t < tokens; t++, at += PANEL * x.per_token()) {
      float* out = logits + (first + t) * w.out + first_channel;
      for (int64_t c = 0; c < count; c++) {
        double y = (256.0 * high[at + c] + low[at + c]) * row[0].scale;
        if (x.fine) y += (256.0 * high[at + PANEL + c] + low[at + PANEL + c]) * row[1].scale;
        out[c] = float(y * w.scale[first_channel + c]);
      }
      row += x.per_token();
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
