#pragma once
// 16-bit floats, NaNs and flushing, as the PTX ISA has them.
#include <immintrin.h>

#include <array>
#include <bit>
#include <cmath>

#include "ptx.h"

namespace vgpu {

/// PTX does not keep the payload of a NaN in single precision: results are this one.
constexpr float kCanonicalNan = std::bit_cast<float>(0x7fffffffu);
constexpr u16 kCanonicalHalfNan = 0x7fff;

inline float canonical(float x) { return x != x ? kCanonicalNan : x; }
inline double canonical(double x) { return x; }

/// Subnormal numbers become zeros of the same sign.
inline float flushed(float x) {
  const u32 bits = std::bit_cast<u32>(x);
  return std::bit_cast<float>((bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits);
}
/// For rcp and rsqrt only: elsewhere .ftz concerns single precision.
inline double flushed(double x) {
  const u64 bits = std::bit_cast<u64>(x);
  return std::bit_cast<double>((bits & 0x7ff0'0000'0000'0000) == 0 ? bits & (u64{1} << 63) : bits);
}

/// To [0, 1]; NaN becomes 0.
template <class T>
T saturated(T x) {
  return x > 0 ? (x < 1 ? x : T{1}) : T{0};
}

// A zero is smaller than another when it is negative. With `propagate` a NaN operand makes a NaN,
// without it the other operand is the result.
template <class T>
T minimum(T a, T b, bool propagate = false) {
  using Bits = std::conditional_t<sizeof(T) == 8, u64, u32>;
  const T equal = std::bit_cast<T>(std::bit_cast<Bits>(a) | std::bit_cast<Bits>(b));
  const T r = a < b ? a : a == b ? equal : b < a ? b : a != a ? b : a;
  return canonical(propagate && a != a ? a : propagate && b != b ? b : r);
}
template <class T>
T maximum(T a, T b, bool propagate = false) {
  using Bits = std::conditional_t<sizeof(T) == 8, u64, u32>;
  const T equal = std::bit_cast<T>(std::bit_cast<Bits>(a) & std::bit_cast<Bits>(b));
  const T r = a > b ? a : a == b ? equal : b > a ? b : a != a ? b : a;
  return canonical(propagate && a != a ? a : propagate && b != b ? b : r);
}

struct Half {
  u16 bits;
};
struct Bfloat {
  u16 bits;
};

inline float to_float(Half h) { return _cvtsh_ss(h.bits); }
inline float to_float(Bfloat b) { return std::bit_cast<float>(static_cast<u32>(b.bits) << 16); }

/// Rounds to 16 bits, to nearest even unless told otherwise.
inline void round_to(Half& h, float x, Rounding r = Rounding::kNearest) {
  switch (r) {
    case Rounding::kZero: h.bits = _cvtss_sh(x, _MM_FROUND_TO_ZERO); break;
    case Rounding::kDown: h.bits = _cvtss_sh(x, _MM_FROUND_TO_NEG_INF); break;
    case Rounding::kUp: h.bits = _cvtss_sh(x, _MM_FROUND_TO_POS_INF); break;
    default: h.bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); break;
  }
  if (x != x) h.bits = kCanonicalHalfNan;
}
inline void round_to(Bfloat& b, float x, Rounding r = Rounding::kNearest) {
  const u32 bits = std::bit_cast<u32>(x);
  const bool negative = bits >> 31;
  u32 add = 0x7fff + (bits >> 16 & 1);
  if (r == Rounding::kZero) add = 0;
  if (r == Rounding::kDown) add = negative ? 0xffff : 0;
  if (r == Rounding::kUp) add = negative ? 0 : 0xffff;
  if (r == Rounding::kNearestAway) add = 0x8000;
  if ((bits & 0x7fffffff) == 0x7f800000) add = 0;
  b.bits = x != x ? kCanonicalHalfNan : static_cast<u16>((bits + add) >> 16);
}

/// x as a float whose last bit is sticky (rounding to odd): rounding that to 16 bits gives what
/// rounding x at once would.
inline float to_odd(double x) {
  const float f = static_cast<float>(x);
  u32 bits = std::bit_cast<u32>(f);
  const bool inexact = static_cast<double>(f) != x && x == x;
  bits -= inexact && std::fabs(static_cast<double>(f)) > std::fabs(x);
  bits |= inexact;
  return std::bit_cast<float>(bits);
}

/// a * b + c for values of 16-bit formats, rounded to odd: the product is exact in double
/// precision, and the error of the sum goes into its last bit.
inline float fma_to_odd(float a, float b, float c) {
  const double product = static_cast<double>(a) * b, sum = product + c;
  const double part = sum - product;
  const double error = (product - (sum - part)) + (c - part);
  u64 bits = std::bit_cast<u64>(sum);
  if (error != 0 && error == error) {
    if ((error < 0) != (sum < 0)) --bits;  // the sum was rounded away from zero
    bits |= 1;
  }
  return to_odd(std::bit_cast<double>(bits));
}

/// 2^x to within an error of 1e-11 before rounding: a polynomial on [-1/2, 1/2].
inline float exp2_of(float x) {
  const double clamped = x > 200 ? 200.0 : x < -200 ? -200.0 : static_cast<double>(x);
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  const double shifted = clamped + kRound;
  const double r = clamped - (shifted - kRound);
  // ln(2)^k / k!
  constexpr std::array<double, 10> kTerms = [] {
    std::array<double, 10> terms{1};
    for (int k = 1; k < 10; ++k) terms[k] = terms[k - 1] * 0.69314718055994530942 / k;
    return terms;
  }();
  double p = kTerms[9];
  for (int k = 8; k >= 0; --k) p = p * r + kTerms[k];
  const u64 exponent = std::bit_cast<u64>(shifted) << 52;
  const double scaled = std::bit_cast<double>(std::bit_cast<u64>(p) + exponent);
  return x != x ? kCanonicalNan : static_cast<float>(scaled);
}

}  // namespace vgpu
