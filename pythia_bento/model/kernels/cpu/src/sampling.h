// Choosing a token and reporting log-probabilities, one row of logits at a time.
//
// The definition is pythia_bento/model/sampling.py's: bias, penalties, temperature, top-k, top-p,
// min-p, then the largest of scaled logit + Gumbel noise, where the noise is a function of (seed,
// position, token).
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "simd.h"

namespace pythia {

// Philox-4x32-10 (Salmon et al., SC 2011), word 0 for the counters (token + lane, position, 0, 0).
inline UVec philox(uint32_t token, uint32_t position, uint64_t seed) {
  uint32_t c0[LANES], c1[LANES], c2[LANES] = {}, c3[LANES] = {};
  for (int i = 0; i < LANES; i++) c0[i] = token + i, c1[i] = position;
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < LANES; i++) {
      const uint64_t a = uint64_t(0xD2511F53u) * c0[i], b = uint64_t(0xCD9E8D57u) * c2[i];
      c0[i] = uint32_t(b >> 32) ^ c1[i] ^ k0;
      c2[i] = uint32_t(a >> 32) ^ c3[i] ^ k1;
      c1[i] = uint32_t(b);
      c3[i] = uint32_t(a);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  UVec out;
  std::memcpy(&out, c0, sizeof out);
  return out;
}

// -ln(-ln u) with u = (2 * (word >> 9) + 1) / 2^24, which fp32 holds exactly and is never 0 or 1.
inline Vec gumbel(uint32_t token, uint32_t position, uint64_t seed) {
  const UVec word = philox(token, position, seed) >> 9;
  const Vec u = __builtin_convertvector(word, Vec) * splat(0x1p-23f) + splat(0x1p-24f);
  return -log(-log(u));
}

struct Choice {
  float temperature, top_p, min_p;
  int32_t top_k, position;
  uint64_t seed;
  int64_t biases;
  const int32_t* bias_ids;
  const float* bias_values;
  float repetition, frequency, presence;
  int64_t seen;
  const int32_t* seen_ids;
  const int32_t* seen_counts;
};

inline bool finite(const float* x, int64_t n) {
  IVec bad{};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    bad |= ~(abs(load(x + i)) <= splat(std::numeric_limits<float>::max()));
  int32_t any = 0;
  for (int lane = 0; lane < LANES; lane++) any |= bad[lane];
  for (; i < n; i++) any |= !std::isfinite(x[i]);
  return any == 0;
}

// The lowest id of a value that is there.
inline int32_t first_of(const float* x, int64_t n, float value) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const IVec found = load(x + i) == splat(value);
    int32_t any = 0;
    for (int lane = 0; lane < LANES; lane++) any |= found[lane];
    if (any) break;
  }
  return int32_t(std::find(x + i, x + n, value) - x);
}

// The lowest id among the largest values.
inline int32_t argmax(const float* x, int64_t n) {
  Vec best = splat(-std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) best = max(best, load(x + i));
  float top = max(best);
  for (; i < n; i++) top = std::max(top, x[i]);
  return first_of(x, n, top);
}

// Ids by falling value, then rising id; sorted only as far as somebody asked.
class Ranking {
 public:
  Ranking(const float* x, std::vector<int32_t> ids) : x_(x), ids_(std::move(ids)) {}
  int64_t size() const { return int64_t(ids_.size()); }
  const std::vector<int32_t>& first(int64_t count) {
    count = std::min(count, size());
    if (count > sorted_) {
      const int64_t goal = std::min(size(), std::max(count, sorted_ * 4));
      std::partial_sort(ids_.begin() + sorted_, ids_.begin() + goal, ids_.end(),
                        [this](int32_t a, int32_t b) { return x_[a] > x_[b] || (x_[a] == x_[b] && a < b); });
      sorted_ = goal;
    }
    return ids_;
  }
  void truncate(int64_t count) { ids_.resize(std::min(count, size())); }

 private:
  const float* x_;
  std::vector<int32_t> ids_;
  int64_t sorted_ = 0;
};

inline std::vector<int32_t> iota(int64_t n) {
  std::vector<int32_t> ids(n);
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

// Ids that top-k, top-p and min-p leave, given tempered logits z.
inline std::vector<int32_t> candidates(const std::vector<float>& z, const Choice& choice) {
  const int64_t n = int64_t(z.size());
  Ranking ranking(z.data(), iota(n));
  if (choice.top_k > 0 && choice.top_k < n) {
    ranking.first(choice.top_k);
    ranking.truncate(choice.top_k);
  }
  const float best = z[ranking.first(1)[0]];
  auto weight = [&](int32_t id) { return exp(splat(z[id] - best))[0]; };
  if (choice.top_p < 1.0f) {
    double total = 0, seen = 0;
    // Rising ids, so that the order of the sum does not depend on how far the ranking is sorted.
    std::vector<int32_t> ids = ranking.first(1);
    std::sort(ids.begin(), ids.end(), [](int32_t a, int32_t b) { return a < b; });
    for (int32_t id : ids) total += weight(id);
    int64_t kept = 0;
    while (kept < ranking.size() && seen < choice.top_p * total) {
      if (kept % 64 == 0) ranking.first(kept + 64);
      seen += weight(ranking.first(kept + 1)[kept]);
      kept++;
    }
    ranking.truncate(std::max<int64_t>(kept, 1));
  }
  std::vector<int32_t> ids = ranking.first(1);
  if (choice.min_p > 0)
    ids.erase(std::remove_if(ids.begin(), ids.end(),
                             [&](int32_t id) { return weight(id) < choice.min_p; }), ids.end());
  return ids;
}

inline int32_t noisiest(const std::vector<float>& z, const std::vector<int32_t>& ids, const Choice& c) {
  int32_t winner = -1;
  float best = 0;
  for (int32_t id : ids) {
    const float value = z[id] + gumbel(uint32_t(id), uint32_t(c.position), c.seed)[0];
    if (winner < 0 || value > best || (value == best && id < winner)) winner = id, best = value;
  }
  return winner;
}

// Noise for every token at once, where nothing is filtered.
inline int32_t noisiest(std::vector<float>& z, const Choice& c) {
  const int64_t n = int64_t(z.size());
  for (int64_t i = 0; i < n; i += LANES) {
    const Vec noise = gumbel(uint32_t(i), uint32_t(c.position), c.seed);
    for (int64_t j = i; j < std::min(n, i + LANES); j++) z[j] += noise[j - i];
  }
  return argmax(z.data(), n);
}

// Bias and penalties; each operation is rounded by itself (no contraction).
inline void adjust(std::vector<float>& raw, const Choice& c) {
  const int64_t tokens = int64_t(raw.size());
  for (int64_t i = 0; i < c.biases; i++)
    if (c.bias_ids[i] < tokens) raw[c.bias_ids[i]] += c.bias_values[i];
  for (int64_t i = 0; i < c.seen; i++) {
    if (c.seen_ids[i] >= tokens) continue;
    float& value = raw[c.seen_ids[i]];
    value = value > 0 ? value / c.repetition : value * c.repetition;
    value -= float(c.seen_counts[i]) * c.frequency;
    if (c.seen_counts[i] > 0) value -= c.presence;
  }
}

// The next token among ids below `tokens`; -1 where a logit is not finite.
inline int32_t choose(const float* logits, int64_t vocab, int64_t tokens, const Choice& choice) {
  if (!finite(logits, vocab)) return -1;
  if (choice.temperature == 0 && choice.biases == 0 && choice.seen == 0) return argmax(logits, tokens);
  std::vector<float> z(logits, logits + tokens);
  adjust(z, choice);
  if (choice.temperature == 0) return argmax(z.data(), tokens);
  for (float& value : z) value /= choice.temperature;
  if (choice.top_k <= 0 && choice.top_p >= 1 && choice.min_p <= 0) return noisiest(z, choice);
  return noisiest(z, candidates(z, choice), choice);
}

// What log-probabilities need of one row first.
struct Extremes {
  bool finite;
  float top;
};

inline Extremes extremes(const float* x, int64_t n) {
  Vec best = splat(-std::numeric_limits<float>::infinity());
  IVec bad{};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const Vec v = load(x + i);
    bad |= ~(abs(v) <= splat(std::numeric_limits<float>::max()));
    best = max(best, v);
  }
  int32_t any = 0;
  for (int lane = 0; lane < LANES; lane++) any |= bad[lane];
  float top = max(best);
  for (; i < n; i++) {
    any |= !std::isfinite(x[i]);
    top = std::max(top, x[i]);
  }
  return {any == 0, top};
}

// ln sum e^x over one row, lane sums from 0 upwards, then the tree; and the rank of one token:
// 1 + the ids whose value is greater, or equal and the id lower.
struct Normaliser {
  float log_sum;
  int32_t rank;
};

inline Normaliser normaliser(const float* x, int64_t n, float top, int32_t token) {
  const Vec own = splat(x[token]), largest = splat(top);
  Vec total{};
  IVec above{};  // minus their number: a true lane is -1
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const Vec v = load(x + i);
    total += exp(v - largest);
    above += v > own;
  }
  int32_t rank = 1;
  for (int lane = 0; lane < LANES; lane++) rank -= above[lane];
  if (i < n) {
    Vec rest = splat(-std::numeric_limits<float>::infinity());
    for (int64_t j = i; j < n; j++) {
      rest[j - i] = x[j];
      rank += x[j] > x[token];
    }
    total += exp(rest - largest);
  }
  return {top + log(splat(sum(total)))[0], rank + int32_t(std::count(x, x + token, x[token]))};
}

inline void log_probabilities(const float* x, int64_t n, int32_t token, int64_t count, float* chosen,
                              int32_t* rank, int32_t* top_ids, float* top) {
  const Extremes found = extremes(x, n);
  if (!found.finite || token < 0 || token >= n) {
    const float none = std::numeric_limits<float>::quiet_NaN();
    *chosen = none;
    *rank = 0;
    std::fill(top_ids, top_ids + count, -1);
    std::fill(top, top + count, none);
    return;
  }
  const Normaliser norm = normaliser(x, n, found.top, token);
  *chosen = x[token] - norm.log_sum;
  *rank = norm.rank;
  if (count == 1) {
    *top_ids = norm.rank == 1 ? token : first_of(x, n, found.top);
  } else if (count > 1) {
    Ranking ranking(x, iota(n));
    std::copy_n(ranking.first(count).begin(), count, top_ids);
  }
  for (int64_t i = 0; i < count; i++) top[i] = x[top_ids[i]] - norm.log_sum;
}

}  // namespace pythia
