#pragma once
// The random numbers themselves, for host and device: integers of Philox 4x32-10 and normals that
// are bit-identical everywhere, because they use nothing but IEEE additions, multiplications,
// divisions, square roots and explicit fma.
#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define CENTROID_HD __host__ __device__ inline
#else
#define CENTROID_HD inline
#endif

namespace centroid {

struct PhiloxBlock {
  uint32_t word[4];
  CENTROID_HD uint32_t operator[](int i) const { return word[i]; }
};

/// One block of 128 random bits for (key, counter, lane); the counter's two halves are words 0 and
/// 1 of Philox's counter, `lane` its words 2 and 3.
CENTROID_HD PhiloxBlock philox(uint64_t key, uint64_t counter, uint64_t lane) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = static_cast<uint32_t>(lane), c3 = static_cast<uint32_t>(lane >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

namespace detail {

// Natural logarithm of a normal positive double: mantissa m in [sqrt(1/2), sqrt(2)), then
// log m = 2 atanh((m - 1) / (m + 1)) by its series; about 1e-12 relative, the same on every device.
CENTROID_HD double portable_log(double x) {
  uint64_t bits;
  __builtin_memcpy(&bits, &x, 8);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  bits = (bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull;
  double m;
  __builtin_memcpy(&m, &bits, 8);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 1.0 / 15;
  p = fma(p, z, 1.0 / 13);
  p = fma(p, z, 1.0 / 11);
  p = fma(p, z, 1.0 / 9);
  p = fma(p, z, 1.0 / 7);
  p = fma(p, z, 1.0 / 5);
  p = fma(p, z, 1.0 / 3);
  p = fma(p, z, 1.0);
  return fma(static_cast<double>(exponent), 0.6931471805599453, 2.0 * s * p);
}

}  // namespace detail

/// The standard normal quantile of (bits + 1/2) / 2^32: sqrt(2) erfinv(2u - 1) with the polynomials
/// of Giles, "Approximating the erfinv function" (GPU Computing Gems, 2011); relative error < 4e-7.
CENTROID_HD double normal_from_bits(uint32_t bits) {
  const double u = (bits + 0.5) * 0x1p-32;
  double w = -detail::portable_log(4.0 * u * (1.0 - u));
  double p;
  if (w < 5.0) {
    w -= 2.5;
    p = 2.81022636e-08;
    p = fma(p, w, 3.43273939e-07);
    p = fma(p, w, -3.5233877e-06);
    p = fma(p, w, -4.39150654e-06);
    p = fma(p, w, 0.00021858087);
    p = fma(p, w, -0.00125372503);
    p = fma(p, w, -0.00417768164);
    p = fma(p, w, 0.246640727);
    p = fma(p, w, 1.50140941);
  } else {
    w = sqrt(w) - 3.0;
    p = -0.000200214257;
    p = fma(p, w, 0.000100950558);
    p = fma(p, w, 0.00134934322);
    p = fma(p, w, -0.00367342844);
    p = fma(p, w, 0.00573950773);
    p = fma(p, w, -0.0076224613);
    p = fma(p, w, 0.00943887047);
    p = fma(p, w, 1.00167406);
    p = fma(p, w, 2.83297682);
  }
  return 1.4142135623730951 * p * (2.0 * u - 1.0);
}

}  // namespace centroid
