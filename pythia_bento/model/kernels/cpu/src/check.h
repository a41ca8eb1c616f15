// What the entry points ask of their arguments before they read or write by them. Python has
// checked all of it; this is the wall behind that one, so that no number that came from a file can
// make a kernel leave its arrays. Each function returns what is wrong, or null.
#pragma once

#include "attention.h"
#include "matmul.h"
#include "norm.h"
#include "sampling.h"

namespace pythia {

constexpr int64_t MAX_SIZE = 1 << 20;  // of a head, a row or a vocabulary: no product overflows

inline bool between(int64_t low, int64_t value, int64_t high) { return low <= value && value <= high; }

inline const char* wrong(const Shape& s) {
  if (!between(1, s.heads, MAX_SIZE)) return "heads is out of range";
  if (!between(LANES, s.head_dim, MAX_SIZE) || s.head_dim % LANES)
    return "head_dim is not a multiple of 16";
  if (!between(0, s.rotary_dims, s.head_dim) || s.rotary_dims % 2)
    return "rotary_dims is odd or larger than head_dim";
  if (!between(1, s.positions, MAX_SIZE)) return "positions is out of range";
  return nullptr;
}

inline const char* wrong(const Batch& b, int64_t s, const Cache& cache) {
  const int64_t queries = int64_t(b.query_starts[s + 1]) - b.query_starts[s];
  const int64_t context = b.context_lens[s];
  if (!between(0, queries, context)) return "query_starts does not rise, or passes context_lens";
  if (!between(0, context, b.table_width * BLOCK)) return "context_lens passes the block table";
  for (int64_t i = 0; i * BLOCK < context; i++)
    if (!between(0, b.tables[s * b.table_width + i], cache.blocks - 1))
      return "a block table names a block that the cache does not have";
  return nullptr;
}

inline const char* wrong(const Batch& b, const Shape& shape, const Cache& cache) {
  if (!between(0, b.tokens, INT32_MAX) || !between(0, b.sequences, b.tokens))
    return "tokens or sequences is out of range";
  if (!between(0, cache.blocks, INT32_MAX) || !between(0, b.table_width, INT32_MAX))
    return "blocks or table_width is out of range";
  if (b.query_starts[0] != 0 || b.query_starts[b.sequences] != b.tokens)
    return "query_starts does not reach from 0 to the tokens";
  for (int64_t t = 0; t < b.tokens; t++) {
    if (!between(0, b.positions[t], shape.positions - 1)) return "a position is out of range";
    if (!between(0, b.slots[t], cache.blocks * BLOCK - 1)) return "a slot is out of range";
  }
  for (int64_t s = 0; s < b.sequences; s++)
    if (const char* what = wrong(b, s, cache)) return what;
  return nullptr;
}

// Rows of a batch whose attention weights are asked for, `keys` of each.
inline const char* wrong(const int64_t* rows, int64_t count, int64_t keys, const Batch& b) {
  if (!between(0, count, b.tokens)) return "more rows are asked than there are tokens";
  if (keys != b.table_width * BLOCK) return "keys is not what the block tables have room for";
  for (int64_t i = 0; i < count; i++)
    if (!between(0, rows[i], b.tokens - 1)) return "a row is out of range";
  return nullptr;
}

inline bool fits(const Linear& w, int64_t out, int64_t in) {
  return w.out == out && w.in == in && between(LANES, out, 3 * MAX_SIZE) && !(out % LANES) &&
         between(LANES, in, MAX_SIZE) && !(in % LANES);
}

inline const char* wrong(const Linear& qkv, const Linear& dense, const Linear& up, const Linear& down) {
  const int64_t hidden = qkv.in, wide = up.out;
  if (!fits(qkv, 3 * hidden, hidden) || !fits(dense, hidden, hidden) || !fits(up, wide, hidden) ||
      !fits(down, hidden, wide))
    return "the linears of a layer do not fit each other";
  return nullptr;
}

// Ids from the vocabulary's end on are passed over, as ids without a token are.
inline const char* wrong(const Choice& c) {
  if (!between(0, c.biases, MAX_SIZE) || !between(0, c.seen, MAX_SIZE))
    return "there are too many biases or tokens seen";
  for (int64_t i = 0; i < c.biases; i++)
    if (c.bias_ids[i] < 0) return "a biased id is below 0";
  for (int64_t i = 0; i < c.seen; i++)
    if (c.seen_ids[i] < 0) return "an id that was seen is below 0";
  return nullptr;
}

inline const char* wrong_rows(int64_t rows, int64_t width) {
  if (!between(0, rows, INT32_MAX) || !between(1, width, MAX_SIZE)) return "a size is out of range";
  return nullptr;
}

}  // namespace pythia
