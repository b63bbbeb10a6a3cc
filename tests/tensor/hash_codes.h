#pragma once
// Hash codes for the tests of clustering.
#include "tests/tensor/reference.h"

namespace centroid::test {

inline constexpr int kBits = 64;
using Codes = std::vector<int64_t>;

inline int distance(int64_t a, int64_t b) {
  return __builtin_popcountll(static_cast<uint64_t>(a ^ b));
}

inline int64_t low_bits(int64_t code, int bits) {
  return bits == kBits ? code : code & static_cast<int64_t>((uint64_t{1} << bits) - 1);
}

inline int64_t random_code(Rng& rng, int bits = kBits) {
  return low_bits(static_cast<int64_t>(uint64_t{rng.next()} << 32 | rng.next()), bits);
}

// The majority of the codes for which `among` holds in each bit, ties to 0.
template <typename F>
int64_t majority(const Codes& codes, const F& among) {
  int64_t ones[kBits] = {}, members = 0;
  for (size_t l = 0; l < codes.size(); ++l) {
    if (!among(l)) continue;
    ++members;
    for (int b = 0; b < kBits; ++b) ones[b] += codes[l] >> b & 1;
  }
  uint64_t code = 0;
  for (int b = 0; b < kBits; ++b) code |= uint64_t{2 * ones[b] > members} << b;
  return static_cast<int64_t>(code);
}

// The first of the nearest centroids.
inline int32_t nearest(int64_t code, const Codes& centroids) {
  size_t best = 0;
  for (size_t c = 1; c < centroids.size(); ++c) {
    if (distance(code, centroids[c]) < distance(code, centroids[best])) best = c;
  }
  return static_cast<int32_t>(best);
}

// Codes around a few centres.
inline Codes lumpy_codes(size_t n, int centres, int noise, Rng& rng) {
  Codes centre(centres), codes(n);
  for (int64_t& c : centre) c = random_code(rng);
  for (int64_t& code : codes) {
    code = centre[rng.below(centres)];
    for (int i = 0; i < noise; ++i) code ^= int64_t{1} << rng.below(63);
  }
  return codes;
}

inline Codes shuffled(Codes codes, Rng& rng) {
  const std::vector<int64_t> order = rng.permutation(static_cast<int64_t>(codes.size()));
  Codes result;
  for (int64_t l : order) result.push_back(codes[l]);
  return result;
}

}  // namespace centroid::test
