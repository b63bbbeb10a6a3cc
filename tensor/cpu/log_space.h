#pragma once
// Probabilities as logarithms in double precision, for sums over paths.
#include <cstdint>

namespace centroid::cpu {

/// The logarithm of 0: finite, so that sums and differences of it are not NaN, and far enough below
/// any sum of log probabilities to be told from them.
inline constexpr double kLogZero = -1e200;

/// e^x for x <= 0 (a rounding error above is harmless); about 1 ulp. Free of branches and calls, so
/// that the loops over states become vector code. NaN stays NaN.
inline double exp_nonpositive(double x) {
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  x = x < -708.0 ? -708.0 : x;
  const double shifted = x * 1.4426950408889634 + kRound;
  const double k = shifted - kRound;
  const double r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10;
  double p = 1.0 / 479001600;  // Taylor's series: |r| <= ln(2) / 2
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const uint64_t exponent = __builtin_bit_cast(uint64_t, shifted) + 1023;
  return p * __builtin_bit_cast(double, exponent << 52);
}

/// log m for m in [sqrt(1/2), sqrt(2)], about 1 ulp of 1: 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ...)
/// with s = (m - 1) / (m + 1).
inline double log_near_one(double m) {
  const double s = (m - 1) / (m + 1), w = s * s;
  double q = 1.0 / 19;
  q = q * w + 1.0 / 17;
  q = q * w + 1.0 / 15;
  q = q * w + 1.0 / 13;
  q = q * w + 1.0 / 11;
  q = q * w + 1.0 / 9;
  q = q * w + 1.0 / 7;
  q = q * w + 1.0 / 5;
  q = q * w + 1.0 / 3;
  return 2 * (s + s * w * q);
}

/// log z for finite z >= 1, about 1 ulp of max(1, log z): z = 2^k m with m as above. Free of
/// branches and calls. NaN stays NaN.
inline double log_from_one(double z) {
  constexpr double kSqrt2 = 1.4142135623730951, kLog2 = 0.6931471805599453;
  constexpr uint64_t kMantissa = (uint64_t{1} << 52) - 1, kOne = uint64_t{1023} << 52;
  const uint64_t bits = __builtin_bit_cast(uint64_t, z);
  // The exponent as a double without a conversion: 2^52 + e is written into the mantissa of 2^52.
  const double shifted = __builtin_bit_cast(double, (bits >> 52) | (uint64_t{1075} << 52));
  double k = shifted - (4503599627370496.0 + 1023);
  double m = __builtin_bit_cast(double, (bits & kMantissa) | kOne);
  k = m > kSqrt2 ? k + 1 : k;
  m = m > kSqrt2 ? 0.5 * m : m;
  return k * kLog2 + log_near_one(m);
}

}  // namespace centroid::cpu
