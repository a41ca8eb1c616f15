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

// Quantised activations of up to `tokens` rows of `depth` values.
class Rows {
 public:
  void resize(int64_t tokens, int64_t depth) {
    depth_ = depth;
    if (int64_t(bytes_.size()) < tokens * depth * 2) bytes_.resize(tokens * depth * 2);
    if (int64_t(rows_.size()) < tokens) rows_.resize(tokens);
  }
  const Row* data() const { return rows_.data(); }

  // x[depth] to row `t`.
  void quantise(int64_t t, const float* x) {
    int8_t* high = bytes_.data() + t * depth_ * 2;
    int8_t* low = high + depth_;
    Vec largest{};
    IVec bad{};
    for (int64_t i = 0; i < depth_; i += LANES) {
      const Vec a = abs(load(x + i));
      bad |= ~(a <= splat(std::numeric_limits<float>::max()));
      largest = max(largest, a);
    }
    const float absmax = max(largest);
    const bool finite = !any(bad);
    const float inverse = finite && absmax > 0 ? RANGE / absmax : 0.0f;
    // A denormal absmax has an infinite inverse: such a row is zero at fp32 precision.
    const bool zero = !(inverse <= std::numeric_limits<float>::max());
    int32_t high_sum = 0, low_sum = 0;
    IVec high_total{}, low_total{};
    for (int64_t i = 0; i < depth_; i += LANES) {
      const Vec scaled = finite && !zero ? load(x + i) * splat(inverse) : Vec{};
      const IVec q = round_to_int(scaled);
      const IVec h = (q + 128) >> 8, l = q - (h << 8);
      high_total += h;
      low_total += l;
      typedef int8_t Bytes __attribute__((vector_size(16)));
      const Bytes hb = __builtin_convertvector(h, Bytes), lb = __builtin_convertvector(l, Bytes);
      std::memcpy(high + i, &hb, sizeof hb);
      std::memcpy(low + i, &lb, sizeof lb);
    }
    for (int i = 0; i < LANES; i++) high_sum += high_total[i], low_sum += low_total[i];
    const float scale = finite ? absmax / RANGE : std::numeric_limits<float>::quiet_NaN();
    rows_[t] = {high, low, scale, high_sum, low_sum};
  }

 private:
  static bool any(IVec v) {
    int32_t all = 0;
    for (int i = 0; i < LANES; i++) all |= v[i];
    return all != 0;
  }

  int64_t depth_ = 0;
  std::vector<int8_t> bytes_;
  std::vector<Row> rows_;
};

}  // namespace pythia
