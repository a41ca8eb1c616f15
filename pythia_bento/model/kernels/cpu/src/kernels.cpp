// The C interface that library.py calls; see pythia_bento/model/kernels/base.py for the contract.
//
// Every function that computes returns null, or what is wrong with its arguments (check.h): then it
// has read and written nothing. Calls on one State come from one thread at a time. Every function that can work in parallel
// splits its work into tasks whose results do not depend on who runs them.

#include "attention.h"
#include "check.h"
#include "runtime.h"
#include "sampling.h"
#include "state.h"

using namespace pythia;

namespace {

// Calls dense(token, channel, 16 values) and down(...) with the products of a layer's second half.
template <class Dense, class Down>
void second_products(State& state, const Layer& layer, int64_t tokens, const float* attended,
                     const float* up, const Dense& dense, const Down& down) {
  const int64_t hidden = layer.dense.out, wide = layer.down.in;
  state.first.resize(tokens, hidden);
  state.second.resize(tokens, wide);
  parallel(state, 2 * tokens, tokens * (hidden + wide), [&](int i) {
    const int64_t t = i / 2;
    if (i % 2) state.first.quantise(t, attended + t * hidden);
    else state.second.quantise(t, up + t * wide);
  });
  const int64_t bytes = PANEL * (hidden + wide), work = tokens * hidden * (hidden + wide);
  parallel_panels(state, panels(hidden), bytes, work, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; p++)
      multiply_panel(layer.dense, p, state.first.get(), dense);
    for (int64_t p = first; p < last; p++)
      multiply_panel(layer.down, p, state.second.get(), down);
  });
}

// x [rows, hidden] -> logits [rows, vocab].
void multiply_head(State& state, const FinalLayer& final, const float* x, int64_t rows, float eps, float* logits) {
  const int64_t hidden = final.head.in;
  state.first.resize(rows, hidden);
  parallel(state, rows, rows * hidden, [&](int t) {
    static thread_local std::vector<float> y;
    y.resize(hidden);
    normalise(x + t * hidden, hidden, moments(x + t * hidden, hidden, eps), final.norm, y.data());
    state.first.quantise(t, y.data());
  });
  const int64_t count = panels(final.head.out), work = rows * hidden * final.head.out;
  parallel_panels(state, count, 2 * PANEL * hidden, work, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; p++)
      head_panel(final.head, p, state.first.get(), logits);
  });
}

void score_rows(State& state, const float* logits, int64_t rows, int64_t vocab, const int32_t* chosen, int64_t count,
                float* values, int32_t* ranks, int32_t* top_ids, float* top) {
  parallel(state, rows, rows * vocab, [&](int r) {
    log_probabilities(logits + r * vocab, vocab, chosen[r], count, values + r, ranks + r,
                      top_ids + r * count, top + r * count);
  });
}

// 16 channels to a row of `width` values, of which the last may be padding.
void put(float* row, int64_t width, int64_t channel, Vec y) {
  if (channel + LANES <= width) store(row + channel, y);
  else for (int64_t c = channel; c < width; c++) row[c] = y[c - channel];
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void* pythia_open(int threads, int fine) { return new State(threads, fine != 0); }
void pythia_close(void* state) { delete static_cast<State*>(state); }
int pythia_threads(void* state) { return static_cast<State*>(state)->pool.size(); }

const char* pythia_pack(void* handle, const int8_t* w, int64_t out, int64_t in, int64_t stride, uint8_t* to) {
  if (const char* what = wrong_rows(out, in)) return what;
  if (in % 4 || stride < PANEL * in) return "the rows of a linear do not fit its panels";
  State& state = *static_cast<State*>(handle);
  state.pool.run(int(panels(out)), [&](int p) { pack(w, out, in, p, to + p * stride); });
  return nullptr;
}

// x [tokens, hidden] -> qkv [tokens, 3 hidden] and up [tokens, intermediate], after GELU.
const char* pythia_project_in(void* handle, const Layer* layer, const float* x, int64_t tokens, float eps,
                       float* qkv, float* up) {
  if (const char* what = wrong(*layer, tokens)) return what;
  State& state = *static_cast<State*>(handle);
  const int64_t hidden = layer->qkv.in;
  state.first.resize(tokens, hidden);
  state.second.resize(tokens, hidden);
  parallel(state, tokens, tokens * hidden, [&](int t) {
    static thread_local std::vector<float> y;
    y.resize(hidden);
    const Moments m = moments(x + t * hidden, hidden, eps);
    normalise(x + t * hidden, hidden, m, layer->input_norm, y.data());
    state.first.quantise(t, y.data());
    normalise(x + t * hidden, hidden, m, layer->post_attention_norm, y.data());
    state.second.quantise(t, y.data());
  });
  const int64_t a = panels(layer->qkv.out), b = panels(layer->up.out);
  const int64_t work = tokens * hidden * (layer->qkv.out + layer->up.out);
  parallel_panels(state, a + b, PANEL * hidden, work, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < std::min(a, last); p++)
      multiply_panel(layer->qkv, p, state.first.get(), [&](int t, int64_t c, Vec y) {
        put(qkv + t * layer->qkv.out, layer->qkv.out, c, y);
      });
    for (int64_t p = std::max(a, first); p < last; p++)
      multiply_panel(layer->up, p - a, state.second.get(), [&](int t, int64_t c, Vec y) {
        put(up + t * layer->up.out, layer->up.out, c, gelu(y));
      });
  });
  return nullptr;
}

// qkv [tokens, heads, 3, head_dim] (changed in place) -> out [tokens, heads * head_dim].
const char* pythia_attend(void* handle, const Shape* shape, const Cache* cache, const Batch* batch, float* qkv,
                   float* out) {
  if (const char* what = wrong(*shape)) return what;
  if (const char* what = wrong(*batch, *shape, *cache)) return what;
  State& state = *static_cast<State*>(handle);
  const int64_t D = shape->head_dim, hidden = shape->heads * D;
  parallel(state, batch->tokens, batch->tokens * hidden * 4, [&](int t) {
    place(qkv + int64_t(t) * 3 * hidden, *shape, *cache, batch->positions[t], batch->slots[t]);
  });
  std::vector<int64_t> starts(batch->sequences + 1, 0);  // first query tile of each sequence
  int64_t work = 0;
  for (int64_t s = 0; s < batch->sequences; s++) {
    const int64_t queries = batch->query_starts[s + 1] - batch->query_starts[s];
    starts[s + 1] = starts[s] + (queries + QUERIES - 1) / QUERIES;
    work += queries * batch->context_lens[s] * hidden;
  }
  parallel(state, starts.back() * shape->heads, work, [&](int task) {
    const int64_t tile = task / shape->heads, head = task % shape->heads;
    const int64_t s = std::upper_bound(starts.begin(), starts.end(), tile) - starts.begin() - 1;
    const int64_t end = batch->query_starts[s + 1];
    const int64_t row = batch->query_starts[s] + (tile - starts[s]) * QUERIES;
    const int count = int(std::min<int64_t>(QUERIES, end - row));
    const float* q[QUERIES];
    float* o[QUERIES];
    for (int i = 0; i < count; i++) {
      q[i] = qkv + ((row + i) * shape->heads + head) * 3 * D;
      o[i] = out + (row + i) * hidden + head * D;
    }
    Attention attention(*shape, *cache, batch->tables + s * batch->table_width, head);
    attention.run(count, q, batch->context_lens[s] - (end - row), o);
  });
  return nullptr;
}

// The weights with which some rows attended, after pythia_attend and with the qkv that it left:
// out [count, heads, keys], 0 beyond each row's own position.
const char* pythia_patterns(void* handle, const Shape* shape, const Cache* cache, const Batch* batch, const float* qkv,
                     const int64_t* rows, int64_t count, int64_t keys, float* out) {
  if (const char* what = wrong(*shape)) return what;
  if (const char* what = wrong(*batch, *shape, *cache)) return what;
  if (const char* what = wrong(rows, count, keys, *batch)) return what;
  State& state = *static_cast<State*>(handle);
  const int32_t *starts = batch->query_starts, *end = starts + batch->sequences + 1;
  const int64_t work = count * shape->heads * shape->head_dim * keys;
  parallel(state, count * shape->heads, work, [&](int task) {
    const int64_t row = rows[task / shape->heads], head = task % shape->heads;
    const int64_t s = std::upper_bound(starts, end, row) - starts - 1;
    const float* q = qkv + (row * shape->heads + head) * 3 * shape->head_dim;
    Attention attention(*shape, *cache, batch->tables + s * batch->table_width, head);
    attention.weights(q, batch->context_lens[s] - (starts[s + 1] - row), keys, out + task * keys);
  });
  return nullptr;
}

// x [tokens, hidden] += dense(attended) + down(up).
const char* pythia_project_out(void* handle, const Layer* layer, float* x, int64_t tokens, const float* attended,
                        const float* up) {
  if (const char* what = wrong(*layer, tokens)) return what;
  const int64_t hidden = layer->dense.out;
  const auto add = [&](int t, int64_t c, Vec y) {
    float* row = x + t * hidden;
    Vec residual{};
    for (int64_t i = c; i < std::min(hidden, c + LANES); i++) residual[i - c] = row[i];
    put(row, hidden, c, residual + y);
  };
  second_products(*static_cast<State*>(handle), *layer, tokens, attended, up, add, add);
  return nullptr;
}

// What pythia_project_out adds, one after the other: dense(attended) and down(up), [tokens, hidden].
const char* pythia_project_out_parts(void* handle, const Layer* layer, int64_t tokens, const float* attended,
                              const float* up, float* attn_out, float* mlp_out) {
  if (const char* what = wrong(*layer, tokens)) return what;
  const int64_t hidden = layer->dense.out;
  const auto to = [&](float* out) {
    return [=](int t, int64_t c, Vec y) { put(out + t * hidden, hidden, c, y); };
  };
  State& state = *static_cast<State*>(handle);
  second_products(state, *layer, tokens, attended, up, to(attn_out), to(mlp_out));
  return nullptr;
}

// x [rows, hidden] -> y, what pythia_logits multiplies by the head's weights.
const char* pythia_normalise(void* handle, const FinalLayer* final, const float* x, int64_t rows, float eps, float* y) {
  if (const char* what = wrong(final->head, rows)) return what;
  State& state = *static_cast<State*>(handle);
  const int64_t hidden = final->head.in;
  parallel(state, rows, rows * hidden, [&](int t) {
    normalise(x + t * hidden, hidden, moments(x + t * hidden, hidden, eps), final->norm, y + t * hidden);
  });
  return nullptr;
}

// x [rows, hidden] -> logits [rows, vocab].
const char* pythia_logits(void* handle, const FinalLayer* final, const float* x, int64_t rows, float eps,
                   float* logits) {
  if (const char* what = wrong(final->head, rows)) return what;
  multiply_head(*static_cast<State*>(handle), *final, x, rows, eps, logits);
  return nullptr;
}

const char* pythia_sample(void* handle, const float* logits, int64_t rows, int64_t vocab, int64_t tokens,
                   const Choice* choices, int32_t* out) {
  if (const char* what = wrong_rows(rows, vocab)) return what;
  if (!between(1, tokens, vocab)) return "there are more tokens than logits";
  for (int64_t r = 0; r < rows; r++)
    if (const char* what = wrong(choices[r])) return what;
  State& state = *static_cast<State*>(handle);
  parallel(state, rows, rows * vocab, [&](int r) {
    out[r] = choose(logits + r * vocab, vocab, tokens, choices[r]);
  });
  return nullptr;
}

const char* pythia_logprobs(void* handle, const float* logits, int64_t rows, int64_t vocab, const int32_t* chosen,
                     int64_t count, float* values, int32_t* ranks, int32_t* top_ids, float* top) {
  if (const char* what = wrong_rows(rows, vocab)) return what;
  if (!between(0, count, vocab)) return "more alternatives are asked than there are logits";
  score_rows(*static_cast<State*>(handle), logits, rows, vocab, chosen, count, values, ranks, top_ids, top);
  return nullptr;
}

// What pythia_logits and then pythia_logprobs find, of rows of which there are logits of few at a
// time, which caches hold and which no memory has to be mapped for anew.
const char* pythia_scores(void* handle, const FinalLayer* final, const float* x, int64_t rows, float eps,
                   const int32_t* chosen, int64_t count, float* values, int32_t* ranks, int32_t* top_ids, float* top) {
  if (const char* what = wrong(final->head, rows)) return what;
  const int64_t hidden = final->head.in, vocab = final->head.out;
  if (!between(0, count, vocab)) return "more alternatives are asked than there are logits";
  State& state = *static_cast<State*>(handle);
  for (int64_t r = 0; r < rows; r += SCORED) {
    const int64_t here = std::min<int64_t>(SCORED, rows - r), size = here * vocab;
    if (int64_t(state.logits.size()) < size) state.logits.resize(size);
    multiply_head(state, *final, x + r * hidden, here, eps, state.logits.data());
    score_rows(state, state.logits.data(), here, vocab, chosen + r, count, values + r, ranks + r,
               top_ids + r * count, top + r * count);
  }
  return nullptr;
}

}  // extern "C"
#pragma GCC visibility pop
