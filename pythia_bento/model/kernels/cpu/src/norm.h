// LayerNorm and the quantisation of activation rows.
#pragma once

#include <vector>

#include "matmul.h"

namespace pythia {

struct Norm {
  const float* weight;
  const float* bias;
};

struct Moments {
  float mean, inverse_deviation;
};

// Mean and 1 / sqrt(variance + eps) of a row, in two passes.
inline Moments moments(const float* x, int64_t n, float eps) {
  Vec total{};
  for (int64_t i = 0; i < n; i += LANES) total += load(x + i);
  const float mean = sum(total) / float(n);
  Vec square{};
  for (int64_t i = 0; i < n; i += LANES) {
    const Vec d = load(x + i) - splat(mean);
    square = fma(d, d, square);
  }
  return {mean, 1.0f / std::sqrt(sum(square) / float(n) + eps)};
}

inline void normalise(const float* x, int64_t n, Moments m, Norm norm, float* y) {
  for (int64_t i = 0; i < n; i += LANES) {
    const Vec z = (load(x + i) - splat(m.mean)) * splat(m.inverse_deviation);
    store(y + i, fma(z, load(norm.weight + i), load(norm.bias + i)));
  }
}

// Quantised activations of up to `tokens` rows of `depth` values; see Activations for `fine`.
class Rows {
 public:
  explicit Rows(bool fine) : per_token_(fine ? 2 : 1) {}

  void resize(int64_t tokens, int64_t depth) {
    depth_ = depth;
    tokens_ = tokens;
    const int64_t rows = tokens * per_token_;
    if (int64_t(bytes_.size()) < rows * depth * 2) bytes_.resize(rows * depth * 2);
    if (int64_t(rows_.size()) < rows) rows_.resize(rows);
  }

  Activations get() const { return {rows_.data(), int(tokens_), per_token_ == 2}; }

  // x[depth] becomes token t.
  void quantise(int64_t t, const float* x) {
    const int64_t row = t * per_token_;
    quantise_row(row, x);
    if (per_token_ == 1) return;
    static thread_local std::vector<float> rest;
    rest.resize(depth_);
    const Row& first = rows_[row];
    for (int64_t i = 0; i < depth_; i += LANES) {
      const Vec q = fma(widen(first.high + i), splat(256.0f), widen(first.low + i));
      store(rest.data() + i, fma(-q, splat(first.scale), load(x + i)));
    }
    quantise_row(row + 1, rest.data());
  }

 private:
  typedef int8_t Bytes __attribute__((vector_size(LANES)));

  static Vec widen(const int8_t* p) {
    Bytes bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    return to_float(__builtin_convertvector(bytes, IVec));
  }

  // The largest |x|; NaN where a value is not finite.
  float absmax(const float* x) const {
    Vec largest{};
    IVec bad{};
    for (int64_t i = 0; i < depth_; i += LANES) {
      const Vec a = abs(load(x + i));
      bad |= ~(a <= splat(std::numeric_limits<float>::max()));
      largest = max(largest, a);
    }
    int32_t any = 0;
    for (int i = 0; i < LANES; i++) any |= bad[i];
    return any ? std::numeric_limits<float>::quiet_NaN() : max(largest);
  }

  void quantise_row(int64_t index, const float* x) {
    int8_t* high = bytes_.data() + index * depth_ * 2;
    int8_t* low = high + depth_;
    const float largest = absmax(x);
    // Nothing is left of a row whose absmax is so small that its inverse overflows.
    const float inverse = RANGE / largest;
    const bool usable = inverse <= std::numeric_limits<float>::max();
    IVec high_sum{}, low_sum{};
    for (int64_t i = 0; i < depth_; i += LANES) {
      const IVec q = usable ? round_to_int(load(x + i) * splat(inverse)) : IVec{};
      const IVec h = (q + 128) >> 8, l = q - (h << 8);
      high_sum += h;
      low_sum += l;
      const Bytes hb = __builtin_convertvector(h, Bytes), lb = __builtin_convertvector(l, Bytes);
      std::memcpy(high + i, &hb, sizeof hb);
      std::memcpy(low + i, &lb, sizeof lb);
    }
    rows_[index] = {high, low, largest / RANGE, 0, 0};
    for (int i = 0; i < LANES; i++) {
      rows_[index].high_sum += high_sum[i];
      rows_[index].low_sum += low_sum[i];
    }
  }

  int per_token_;
  int64_t depth_ = 0, tokens_ = 0;
  std::vector<int8_t> bytes_;
  std::vector<Row> rows_;
};

}  // namespace pythia
