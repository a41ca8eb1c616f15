// Rotary embedding, the paged KV cache, and causal attention over it, all in fp32.
//
// The cache of one layer is two arrays: keys [block][head][head_dim][16] (tokens in the lanes) and
// values [block][head][16][head_dim]. A score is a chain of fused multiply-adds over head_dim, a
// value sum a chain over the positions from 0 upwards, the softmax denominator a sum of lanes by
// block: all depend on the query's own position alone, so neither the chunk a query arrived in nor
// the sequences beside it can change a bit.
#pragma once

#include <vector>

#include "simd.h"

namespace pythia {

constexpr int BLOCK = 16;  // tokens in a KV block: one vector
constexpr int QUERIES = 4;  // queries that share one pass over the cache

struct Shape {
  int64_t heads, head_dim, rotary_dims, positions;
  const float* cosine;  // [positions][rotary_dims / 2]
  const float* sine;
};

struct Cache {
  float* keys;
  float* values;
  int64_t blocks;
};

struct Batch {
  int64_t tokens, sequences, table_width;
  const int32_t* positions;     // [tokens]
  const int32_t* slots;         // [tokens]
  const int32_t* query_starts;  // [sequences + 1]
  const int32_t* context_lens;  // [sequences]
  const int32_t* tables;        // [sequences][table_width]
};

// GPT-NeoX rotates halves: (a, b) -> (a cos - b sin, b cos + a sin).
inline void rotate(float* x, const Shape& shape, int32_t position) {
  const int64_t half = shape.rotary_dims / 2;
  const float* c = shape.cosine + position * half;
  const float* s = shape.sine + position * half;
  for (int64_t i = 0; i < half; i++) {
    const float a = x[i], b = x[i + half];
    x[i] = a * c[i] - b * s[i];
    x[i + half] = b * c[i] + a * s[i];
  }
}

// Rotates and scales q in place, rotates k, and writes k and v of one token to its slot.
inline void place(float* qkv, const Shape& shape, const Cache& cache, int32_t position, int32_t slot) {
  const int64_t D = shape.head_dim;
  const float scale = 1.0f / std::sqrt(float(D));
  for (int64_t h = 0; h < shape.heads; h++) {
    float *q = qkv + h * 3 * D, *k = q + D, *v = k + D;
    rotate(q, shape, position);
    rotate(k, shape, position);
    for (int64_t d = 0; d < D; d++) q[d] *= scale;
    const int64_t at = (int64_t(slot / BLOCK) * shape.heads + h) * D * BLOCK;
    float* keys = cache.keys + at + slot % BLOCK;
    for (int64_t d = 0; d < D; d++) keys[d * BLOCK] = k[d];
    std::memcpy(cache.values + at + (slot % BLOCK) * D, v, D * sizeof(float));
  }
}

// Scores of Q queries against B blocks of keys.
template <int Q, int B>
inline void score(const float* const* q, const float* const* keys, int64_t D, float* const* out) {
  Vec acc[Q][B] = {};
  for (int64_t d = 0; d < D; d++) {
    Vec k[B];
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) k[b] = load(keys[b] + d * BLOCK);
#pragma GCC unroll 8
    for (int i = 0; i < Q; i++) {
      const Vec x = splat(q[i][d]);
#pragma GCC unroll 8
      for (int b = 0; b < B; b++) acc[i][b] = fma(x, k[b], acc[i][b]);
    }
  }
  for (int i = 0; i < Q; i++)
    for (int b = 0; b < B; b++) store(out[i] + b * BLOCK, acc[i][b]);
}

// Turns the scores of positions 0 .. last into exponentials; returns 1 / their sum.
inline float soften(float* scores, int64_t last) {
  const int64_t end = last / BLOCK * BLOCK + BLOCK;
  for (int64_t t = last + 1; t < end; t++) scores[t] = -std::numeric_limits<float>::infinity();
  Vec best = load(scores), total{};
  for (int64_t t = BLOCK; t < end; t += BLOCK) best = max(best, load(scores + t));
  const Vec largest = splat(max(best));
  for (int64_t t = 0; t < end; t += BLOCK) {
    const Vec e = exp(load(scores + t) - largest);
    store(scores + t, e);
    total += e;
  }
  return 1.0f / sum(total);
}

// acc[Q][C] += p[t] * v[t] for t in [from, to) of one block.
template <int Q, int C>
inline void weigh(Vec (&acc)[Q][C], const float* const* p, const float* v, int64_t D, int from, int to) {
  for (int t = from; t < to; t++) {
    Vec row[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) row[c] = load(v + t * D + c * LANES);
#pragma GCC unroll 8
    for (int i = 0; i < Q; i++) {
      const Vec x = splat(p[i][t]);
#pragma GCC unroll 8
      for (int c = 0; c < C; c++) acc[i][c] = fma(x, row[c], acc[i][c]);
    }
  }
}

// One head of one sequence with up to QUERIES queries at consecutive positions.
class Attention {
 public:
  Attention(const Shape& shape, const Cache& cache, const int32_t* table, int64_t head)
      : D_(shape.head_dim), stride_(shape.heads * shape.head_dim * BLOCK),
        keys_(cache.keys + head * shape.head_dim * BLOCK),
        values_(cache.values + head * shape.head_dim * BLOCK), table_(table) {}

  // q[i] is at position first + i; out[i] receives head_dim values.
  void run(int count, const float* const* q, int64_t first, float* const* out) {
    static thread_local std::vector<float> scratch;
    const int64_t last = first + count - 1, width = last / BLOCK * BLOCK + BLOCK;
    if (int64_t(scratch.size()) < QUERIES * width) scratch.resize(QUERIES * width);
    float* scores[QUERIES];
    for (int i = 0; i < count; i++) scores[i] = scratch.data() + i * width;
    if (count == QUERIES) scores_of<QUERIES, 2>(q, width / BLOCK, scores);
    else for (int i = 0; i < count; i++) scores_of<1, 4>(q + i, width / BLOCK, scores + i);
    float inverse[QUERIES];
    for (int i = 0; i < count; i++) inverse[i] = soften(scores[i], first + i);
    int64_t d = 0;
    for (; d + 4 * LANES <= D_; d += 4 * LANES) values_of<4>(count, scores, first, inverse, d, out);
    for (; d < D_; d += LANES) values_of<1>(count, scores, first, inverse, d, out);
  }

  // What run() multiplies the values by: weights[t] for t < width, 0 from position + 1 on.
  void weights(const float* q, int64_t position, int64_t width, float* weights) {
    scores_of<1, 4>(&q, position / BLOCK + 1, &weights);
    const float inverse = soften(weights, position);
    for (int64_t t = 0; t <= position; t++) weights[t] *= inverse;
    std::memset(weights + position + 1, 0, sizeof(float) * (width - position - 1));
  }

 private:
  template <int Q, int B>
  void scores_of(const float* const* q, int64_t blocks, float* const* scores) {
    for (int64_t b = 0; b < blocks;) {
      float* out[Q];
      for (int i = 0; i < Q; i++) out[i] = scores[i] + b * BLOCK;
      const float* keys[B];
      const bool full = b + B <= blocks;
      for (int j = 0; j < (full ? B : 1); j++) keys[j] = keys_ + table_[b + j] * stride_;
      if (full) score<Q, B>(q, keys, D_, out);
      else score<Q, 1>(q, keys, D_, out);
      b += full ? B : 1;
    }
  }

  template <int C>
  void values_of(int count, float* const* scores, int64_t first, const float* inverse, int64_t d,
                 float* const* out) {
    if (count == QUERIES) values_of<QUERIES, C>(scores, first, inverse, d, out);
    else for (int i = 0; i < count; i++)
      values_of<1, C>(scores + i, first + i, inverse + i, d, out + i);
  }

  // Positions that every query sees go together; the last ones, at most Q - 1, one by one.
  template <int Q, int C>
  void values_of(float* const* scores, int64_t first, const float* inverse, int64_t d,
                 float* const* out) {
    Vec acc[Q][C] = {};
    for (int64_t t = 0; t <= first; t += BLOCK) {
      const float* p[Q];
      for (int i = 0; i < Q; i++) p[i] = scores[i] + t;
      const int64_t end = first + 1 - t < BLOCK ? first + 1 - t : BLOCK;
      weigh<Q, C>(acc, p, value(t) + d, D_, 0, int(end));
    }
    for (int i = 1; i < Q; i++) {
      Vec one[1][C];
      std::memcpy(one[0], acc[i], sizeof one[0]);
      for (int64_t t = first + 1; t <= first + i; t++) {
        const float* p[1] = {scores[i] + t / BLOCK * BLOCK};
        const int at = int(t % BLOCK);
        weigh<1, C>(one, p, value(t) + d, D_, at, at + 1);
      }
      std::memcpy(acc[i], one[0], sizeof one[0]);
    }
    for (int i = 0; i < Q; i++)
      for (int c = 0; c < C; c++) store(out[i] + d + c * LANES, acc[i][c] * splat(inverse[i]));
  }

  const float* value(int64_t t) const { return values_ + table_[t / BLOCK] * stride_; }

  int64_t D_, stride_;
  const float *keys_, *values_;
  const int32_t* table_;
};

}  // namespace pythia
