// Sixteen fp32 lanes and the transcendental functions on them.
//
// Every function is a fixed sequence of IEEE operations with explicit fused multiply-adds, so a
// result depends on its input alone and not on the vector width it was compiled for. Build with
// -ffp-contract=off: the compiler must not choose where to fuse.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace pythia {

constexpr int LANES = 16;
typedef float Vec __attribute__((vector_size(64), aligned(64)));
typedef int32_t IVec __attribute__((vector_size(64), aligned(64)));
typedef uint32_t UVec __attribute__((vector_size(64), aligned(64)));

inline Vec splat(float value) { return Vec{} + value; }
inline Vec load(const float* p) { Vec v; std::memcpy(&v, p, sizeof v); return v; }
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline Vec bits_to_float(IVec v) { Vec r; std::memcpy(&r, &v, sizeof r); return r; }
inline IVec float_to_bits(Vec v) { IVec r; std::memcpy(&r, &v, sizeof r); return r; }
inline Vec select(IVec mask, Vec yes, Vec no) {
  return bits_to_float((mask & float_to_bits(yes)) | (~mask & float_to_bits(no)));
}

// a * b + c with one rounding.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  union { Vec v; __m256 h[2]; } x{a}, y{b}, z{c};
  z.h[0] = _mm256_fmadd_ps(x.h[0], y.h[0], z.h[0]);
  z.h[1] = _mm256_fmadd_ps(x.h[1], y.h[1], z.h[1]);
  return z.v;
#else
  for (int i = 0; i < LANES; i++) c[i] = std::fma(a[i], b[i], c[i]);
  return c;
#endif
}

inline Vec max(Vec a, Vec b) { return select(a > b, a, b); }
inline Vec abs(Vec a) { return bits_to_float(float_to_bits(a) & 0x7fffffff); }

// Nearest integer, ties to even, for |a| < 2^22: adding 1.5 * 2^23 leaves the integer in the low bits.
inline IVec round_to_int(Vec a) {
  return float_to_bits(a + splat(12582912.0f)) - float_to_bits(splat(12582912.0f));
}
inline Vec to_float(IVec v) { return __builtin_convertvector(v, Vec); }

// Sum of the lanes in the order of a balanced tree.
inline float sum(Vec v) {
  float t[LANES];
  std::memcpy(t, &v, sizeof t);
  for (int width = LANES / 2; width; width /= 2)
    for (int i = 0; i < width; i++) t[i] += t[i + width];
  return t[0];
}
inline float max(Vec v) {
  float best = v[0];
  for (int i = 1; i < LANES; i++) best = v[i] > best ? v[i] : best;
  return best;
}

// e^x for x <= 88; 0 below -87. Cody-Waite reduction and the Taylor polynomial of degree 7 on
// |r| <= ln(2) / 2: within 2 ulp.
inline Vec exp(Vec x) {
  const IVec tiny = x < splat(-87.0f);
  x = select(tiny, splat(-87.0f), x);
  const IVec n = round_to_int(x * splat(1.44269504f));
  const Vec whole = to_float(n);
  Vec r = fma(whole, splat(-0.693359375f), x);
  r = fma(whole, splat(2.12194440e-4f), r);
  Vec p = splat(1.0f / 5040);
  for (float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    p = fma(p, r, splat(c));
  p = p * bits_to_float((n + 127) << 23);  // a product, so that NaN stays NaN
  return select(tiny, Vec{}, p);
}

// ln x for normal x > 0: x = m * 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m-1)/(m+1)).
inline Vec log(Vec x) {
  IVec bits = float_to_bits(x);
  IVec e = (bits >> 23) - 127;
  Vec m = bits_to_float((bits & 0x007fffff) | 0x3f800000);
  const IVec high = m > splat(1.41421356f);
  m = select(high, m * splat(0.5f), m);
  e = e - high;  // a true lane is -1
  const Vec s = (m - splat(1.0f)) / (m + splat(1.0f));
  const Vec z = s * s;
  Vec p = splat(2.0f / 11);
  for (float c : {2.0f / 9, 2.0f / 7, 2.0f / 5, 2.0f / 3}) p = fma(p, z, splat(c));
  const Vec tail = fma(p * z, s, s + s);
  return fma(to_float(e), splat(0.693147181f), tail);
}

// Abramowitz and Stegun 7.1.26: |error| <= 1.5e-7.
inline Vec erf(Vec x) {
  const Vec a = abs(x);
  const Vec t = splat(1.0f) / fma(a, splat(0.3275911f), splat(1.0f));
  Vec p = splat(1.061405429f);
  for (float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f})
    p = fma(p, t, splat(c));
  const Vec y = splat(1.0f) - p * t * exp(-(a * a));
  return select(x < Vec{}, -y, y);
}

// The exact (erf) GELU that Pythia was trained with.
inline Vec gelu(Vec x) {
  return splat(0.5f) * x * (splat(1.0f) + erf(x * splat(0.707106781f)));
}

}  // namespace pythia
