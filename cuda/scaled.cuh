#pragma once
// Numbers m 2^e with a 64-bit exponent: products and sums of probabilities that leave the range of
// any float, for the price of a few integer instructions beside the arithmetic of their mantissas.
// A sum of logarithms' exponentials would take some fifty operations in f64, of which many devices
// do one for every 32 or 64 in f32. Never negative, infinite or NaN.
#include <cmath>

#include "cuda/launch.cuh"

namespace centroid::cuda {

/// m in [1, 2); or m = 0, with an exponent below all others.
struct alignas(16) Scaled {
  double m;
  long long e;

  CENTROID_DEVICE static Scaled zero() { return {0, -(1ll << 60)}; }
  CENTROID_DEVICE static Scaled one() { return {1, 0}; }

  /// m 2^e for any m >= 0 that is not subnormal.
  CENTROID_DEVICE static Scaled of(double m, long long e) {
    if (m == 0) return zero();
    const int high = __double2hiint(m), k = (high >> 20) - 1023;
    return {__hiloint2double(high - (k << 20), __double2loint(m)), e + k};
  }

  /// The value / 2^top, top >= e: 0 where a sum with a number of exponent top would not notice.
  CENTROID_DEVICE double below(long long top) const {
    const long long d = e - top;
    if (d < -64) return 0;
    return __hiloint2double(__double2hiint(m) + (static_cast<int>(d) << 20), __double2loint(m));
  }
};

CENTROID_DEVICE Scaled operator*(const Scaled& a, const Scaled& b) {
  return Scaled::of(a.m * b.m, a.e + b.e);
}
CENTROID_DEVICE Scaled operator+(const Scaled& a, const Scaled& b) {
  const long long top = a.e > b.e ? a.e : b.e;
  return Scaled::of(a.below(top) + b.below(top), top);
}
/// (a + b + c) w
CENTROID_DEVICE Scaled sum_times(const Scaled& a, const Scaled& b, const Scaled& c,
                                 const Scaled& w) {
  const long long pair = a.e > b.e ? a.e : b.e, top = pair > c.e ? pair : c.e;
  return Scaled::of((a.below(top) + b.below(top) + c.below(top)) * w.m, top + w.e);
}

/// e^z for z <= 0; 0 for -inf and NaN; z below -2^34 counts as -2^34, so that exponents of long
/// products do not overflow. Relative error 7e-12 with a polynomial of degree 9, for results in
/// f32; rounding only with degree 12.
template <int kDegree>
CENTROID_DEVICE Scaled scaled_exp(double z) {
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  constexpr double kTaylor[] = {1.0,
                                1.0,
                                0.5,
                                1.0 / 6,
                                1.0 / 24,
                                1.0 / 120,
                                1.0 / 720,
                                1.0 / 5040,
                                1.0 / 40320,
                                1.0 / 362880,
                                1.0 / 3628800,
                                1.0 / 39916800,
                                1.0 / 479001600};
  if (!(z >= -1.7e308)) return Scaled::zero();
  z = fmax(z, -0x1p34);
  const double shifted = fma(z, 1.4426950408889634, kRound), k = shifted - kRound;
  const double r = fma(k, -1.9082149292705877e-10, fma(k, -0.6931471803691238, z));
  double p = kTaylor[kDegree];
#pragma unroll
  for (int i = kDegree - 1; i >= 0; --i) p = fma(p, r, kTaylor[i]);
  return Scaled::of(p, __double_as_longlong(shifted) - __double_as_longlong(kRound));
}

/// How a Scaled is kept in memory: in f64 as it is; for f32 results in 8 bytes, 40 bits of exponent
/// above 24 of mantissa (a carry out of the mantissa's rounding arrives where it belongs).
template <typename T>
struct StoredScaled;

template <>
struct StoredScaled<double> {
  Scaled value;
  CENTROID_DEVICE static StoredScaled of(const Scaled& x) { return {x}; }
  CENTROID_DEVICE Scaled get() const { return value; }
};
template <>
struct StoredScaled<float> {
  static constexpr long long kZero = INT64_MIN, kLowest = -(1ll << 38);
  long long bits;

  CENTROID_DEVICE static StoredScaled of(const Scaled& x) {
    if (x.m == 0) return {kZero};
    const long long e = x.e < kLowest ? kLowest : x.e;
    const long long fraction = __double_as_longlong(x.m) & ((1ll << 52) - 1);
    return {e * (1ll << 24) + ((fraction + (1ll << 27)) >> 28)};
  }
  CENTROID_DEVICE Scaled get() const {
    if (bits == kZero) return Scaled::zero();
    const long long fraction = bits & ((1ll << 24) - 1);
    return {__longlong_as_double((1023ll << 52) | fraction << 28), bits >> 24};
  }
};

}  // namespace centroid::cuda
