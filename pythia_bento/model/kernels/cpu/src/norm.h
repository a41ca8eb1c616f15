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
    const int64_t rows = tokens * per_token_, size = Layout::size(rows, depth) + 64;
    if (int64_t(values_.size()) < size) values_.resize(size);
    if (int64_t(rows_.size()) < rows) rows_.resize(rows);
  }

  Activations get() const { return {rows_.data(), int(tokens_), per_token_ == 2}; }

  // x[depth] becomes token t.
  void quantise(int64_t t, const float* x) {
    const int64_t row = t * per_token_;
    if (per_token_ == 1) {
      quantise_row(row, x, nullptr);
      return;
    }
    static thread_local std::vector<float> rest;
    rest.resize(depth_);
    quantise_row(row, x, rest.data());
    quantise_row(row + 1, rest.data(), nullptr);
  }

 private:
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

  // `rest`, where it is wanted, is what rounding takes from x.
  void quantise_row(int64_t index, const float* x, float* rest) {
    Layout::Value* row = first() + Layout::start(index, depth_);
    const float largest = absmax(x), scale = largest / RANGE;
    // Nothing is left of a row whose absmax is so small that its inverse overflows.
    const float inverse = RANGE / largest;
    const bool usable = inverse <= std::numeric_limits<float>::max();
    IVec sums{};
    for (int64_t i = 0; i < depth_; i += LANES) {
      const IVec q = usable ? round_to_int(load(x + i) * splat(inverse)) : IVec{};
      sums += q;
      Layout::put(row, i, q);
      if (rest) store(rest + i, fma(-to_float(q), splat(scale), load(x + i)));
    }
    Layout::finish(row, depth_);
    rows_[index] = {row, scale, 0};
    for (int i = 0; i < LANES; i++) rows_[index].sum += sums[i];
  }

  // On a boundary of the cache's lines, which tiles are loaded by.
  Layout::Value* first() {
    const auto at = reinterpret_cast<uintptr_t>(values_.data());
    return values_.data() + (64 - at % 64) % 64 / sizeof(Layout::Value);
  }

  int per_token_;
  int64_t depth_ = 0, tokens_ = 0;
  std::vector<Layout::Value> values_;
  std::vector<Row> rows_;
};

}  // namespace pythia
