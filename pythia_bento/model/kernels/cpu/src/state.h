// What one pythia_open holds, and how its work is shared out.
#pragma once

#include <algorithm>
#include <vector>

#include "check.h"
#include "norm.h"
#include "pool.h"

namespace pythia {

struct Layer {
  Norm input_norm, post_attention_norm;
  Linear qkv, dense, up, down;
};

struct FinalLayer {
  Norm norm;
  Head head;
};

struct State {
  State(int threads, bool fine) : pool(threads), first(fine), second(fine) {}
  Pool pool;
  Rows first, second;
  std::vector<float> logits;  // of the rows that are scored at a time
};

inline int64_t panels(int64_t out) { return (out + PANEL - 1) / PANEL; }

inline const char* wrong(const Layer& layer, int64_t tokens) {
  if (const char* what = wrong_rows(tokens, layer.qkv.in)) return what;
  return wrong(layer.qkv, layer.dense, layer.up, layer.down);
}

inline const char* wrong(const Head& head, int64_t rows) {
  if (const char* what = wrong_rows(rows, head.in)) return what;
  if (const char* what = wrong_rows(rows, head.out)) return what;
  if (head.in % LANES) return "the head's depth is not a multiple of 16";
  return nullptr;
}

// Rows that are scored at a time: more of them read the head less often.
constexpr int64_t SCORED = 128;

// Waking the other threads costs more than this many multiply-adds.
constexpr int64_t SMALL = 1 << 16;

template <class Body>
void parallel(State& state, int64_t tasks, int64_t work, const Body& body) {
  if (work < SMALL)
    for (int64_t i = 0; i < tasks; i++) body(int(i));
  else
    state.pool.run(int(tasks), body);
}

// body(first, last) for runs of panels of `bytes` each. Memory streams at full speed only over
// long contiguous runs, while several runs for each thread keep the threads in balance.
template <class Body>
void parallel_panels(State& state, int64_t count, int64_t bytes, int64_t work, const Body& body) {
  constexpr int64_t LONG = 512 << 10;
  const int64_t fair = count / (4 * state.pool.size());
  const int64_t run = std::max<int64_t>(1, std::min(fair, LONG / bytes));
  parallel(state, (count + run - 1) / run, work, [&](int r) {
    const Tiles tiles;
    body(r * run, std::min(count, (r + 1) * run));
  });
}

}  // namespace pythia
