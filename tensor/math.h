#pragma once
// Elementary functions for host and device. The float forms are free of branches, so that a plain
// loop over them becomes vector code; their polynomials are minimax fits (Remez exchange) on the
// interval named beside them. The double forms are the standard library's: they serve gradient
// checks.
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "tensor/philox.h"

namespace centroid::math {

CENTROID_HD uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
CENTROID_HD float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }

namespace detail {

// x = k ln 2 + r with |r| <= ln(2)/2. Adding 1.5 * 2^23 rounds to an integer and leaves it in the
// low bits of the sum: no conversion, no libm call, so loops vectorise.
struct ExpParts {
  float r;
  uint32_t k;  // two's complement
};
CENTROID_HD ExpParts reduce_exp(float x) {
  constexpr float kRound = 12582912.0f;
  const float shifted = x * 1.44269504f + kRound;
  const float k = shifted - kRound;
  return {(x - k * 0.693145752f) - k * 1.42860677e-6f, bits_of(shifted) - bits_of(kRound)};
}

// e^r - 1 = r + r^2 q(r) on |r| <= ln(2)/2, relative error 2.5e-10.
// F is float, or a vector of floats.
template <typename F>
CENTROID_HD F expm1_polynomial(F r) {
  F q = r * 0.0001991456097f + 0.001394127235f;
  q = q * r + 0.008333272414f;
  q = q * r + 0.04166635167f;
  q = q * r + 0.1666666682f;
  q = q * r + 0.5000000047f;
  return q * (r * r) + r;
}

// e^x - 1 for x in [-25, 88]; relative error a few ulp, also around 0: 2^k (e^r - 1) + (2^k - 1).
CENTROID_HD float expm1_moderate(float x) {
  const ExpParts p = reduce_exp(x);
  const float scale = float_of((p.k + 127u) << 23);
  return scale * expm1_polynomial(p.r) + (scale - 1.0f);
}

}  // namespace detail

/// e^x within 2 ulp; exactly 1 at 0; subnormal results are kept.
CENTROID_HD float exp(float x) {
  // Beyond these bounds the result is 0 or infinite; NaN passes both comparisons.
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const detail::ExpParts p = detail::reduce_exp(x);
  // 2^k in two factors, because k reaches -150 and 128, beyond a float's exponent.
  const uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(p.k) >> 1);
  const float scale1 = float_of((half + 127u) << 23);
  const float scale2 = float_of((p.k - half + 127u) << 23);
  return (1.0f + detail::expm1_polynomial(p.r)) * scale1 * scale2;
}
CENTROID_HD double exp(double x) { return std::exp(x); }

/// Natural logarithm within 2 ulp; -inf at 0, NaN below.
CENTROID_HD float log(float x) {
  // x = 2^k m with m in [sqrt(1/2), sqrt(2)); subnormal numbers are scaled up first.
  const bool tiny = x < 1.17549435e-38f;
  const uint32_t bits = bits_of(tiny ? x * 16777216.0f : x);
  const uint32_t above = bits - 0x3f3504f3u;  // exponent counted from sqrt(1/2)
  const float k = static_cast<float>(static_cast<int32_t>(above) >> 23) - (tiny ? 24.0f : 0.0f);
  const float f = float_of((above & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  // log(1 + f) = f - f^2 / 2 + f^3 q(f), relative error 1e-9.
  float q = 0.06928354432f;
  q = q * f - 0.1180753418f;
  q = q * f + 0.1187652074f;
  q = q * f - 0.123817816f;
  q = q * f + 0.1421792613f;
  q = q * f - 0.1666936478f;
  q = q * f + 0.2000226104f;
  q = q * f - 0.2499998503f;
  q = q * f + 0.3333331004f;
  const float f2 = f * f;
  float y = f + (f2 * (q * f - 0.5f) + k * 1.42860677e-6f) + k * 0.693145752f;
  y = x == INFINITY ? INFINITY : y;
  y = x == 0.0f ? -INFINITY : y;
  return x >= 0.0f ? y : NAN;
}
CENTROID_HD double log(double x) { return std::log(x); }

/// log(1 + z) for z in [0, 1]: 2 atanh(z / (2 + z)), whose odd series is even in s = z / (2 + z).
CENTROID_HD float log1p_unit(float z) {
  const float s = z / (2.0f + z), w = s * s;
  float q = 0.1220653409f;
  q = q * w + 0.1069662536f;
  q = q * w + 0.1431036104f;
  q = q * w + 0.1999934545f;
  q = q * w + 0.3333333965f;
  return 2.0f * (q * w * s + s);
}
CENTROID_HD double log1p_unit(double z) { return std::log1p(z); }

/// e^x - 1 for x <= 0 (larger x count as 0).
CENTROID_HD float expm1_nonpositive(float x) {
  x = x > 0.0f ? 0.0f : x;
  return detail::expm1_moderate(x < -25.0f ? -25.0f : x);
}
CENTROID_HD double expm1_nonpositive(double x) { return std::expm1(x > 0 ? 0 : x); }

/// tanh within 3 ulp: with u = e^(2|x|) - 1, tanh |x| = u / (u + 2), accurate also near 0.
CENTROID_HD float tanh(float x) {
  const float magnitude = std::fabs(x);
  const float u = detail::expm1_moderate(2.0f * (magnitude > 10.0f ? 10.0f : magnitude));
  return std::copysign(u / (u + 2.0f), x);
}
CENTROID_HD double tanh(double x) { return std::tanh(x); }

/// 1 / (1 + e^-x), written with z = e^-|x| <= 1 so that nothing overflows and small results keep
/// their relative accuracy.
template <typename T>
CENTROID_HD T sigmoid(T x) {
  const T z = exp(-std::fabs(x));
  return (x < 0 ? z : T(1)) / (1 + z);
}

/// The normal distribution at x: its density and the probability below x.
template <typename T>
struct Normal {
  T density, probability;
};

/// P(below x) = (1 + erf(x / sqrt 2)) / 2. For x = -t < 0 it is w(t) e^(-t^2/2), and w(t) is
/// (1 - v) q(v - 0.375) with v = 0.3 t / (1 + 0.3 t) and q a polynomial, relative error 4e-9 on
/// [0, 15]; beyond, the result is 0.
CENTROID_HD Normal<float> normal(float x) {
  float t = std::fabs(x);
  t = t > 15.0f ? 15.0f : t;
  const float bell = exp(-0.5f * (t * t));
  const float v = 0.3f * t / (1.0f + 0.3f * t), u = v - 0.375f;
  float q = 0.02062864663f;
  q = q * u - 0.003571418728f;
  q = q * u - 0.0439486261f;
  q = q * u + 0.0001723009572f;
  q = q * u + 0.09159905187f;
  q = q * u - 0.02524725206f;
  q = q * u - 0.2234031096f;
  q = q * u + 0.4305804541f;
  q = q * u - 0.4262454902f;
  q = q * u + 0.2689632028f;
  const float tail = bell * (q * (1.0f - v));
  return {0.398942280f * bell, x < 0.0f ? tail : 1.0f - tail};
}
CENTROID_HD Normal<double> normal(double x) {
  return {0.3989422804014327 * std::exp(-0.5 * x * x), 0.5 * std::erfc(-0.7071067811865476 * x)};
}

// Integer arithmetic modulo 2^bits: signed overflow, undefined in C++, is carried out unsigned.
template <typename T>
using Unsigned = typename std::conditional_t<std::is_integral_v<T> && (sizeof(T) >= 4),
                                             std::make_unsigned<T>, std::type_identity<T>>::type;
template <typename T>
CENTROID_HD T add(T a, T b) {
  return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
}
template <typename T>
CENTROID_HD T sub(T a, T b) {
  return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
}
template <typename T>
CENTROID_HD T mul(T a, T b) {
  return static_cast<T>(static_cast<Unsigned<T>>(a) * static_cast<Unsigned<T>>(b));
}
/// Integers truncate towards zero; MIN / -1 wraps to MIN, and x / 0 is 0 here (raw::div refuses
/// it).
template <typename T>
CENTROID_HD T div(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    if (b == 0) return 0;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return sub(T(0), a);
    }
  }
  return static_cast<T>(a / b);
}
/// Integers by repeated squaring; negative exponents, which raw::pow refuses, count as 0.
template <typename T>
CENTROID_HD T pow(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    T result = 1;
    for (; b > 0; b = static_cast<T>(b >> 1), a = mul(a, a)) {
      if (b & 1) result = mul(result, a);
    }
    return result;
  } else {
    return std::pow(a, b);
  }
}

}  // namespace centroid::math
