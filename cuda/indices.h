#pragma once
// Arithmetic of indices in 32 bits: division by numbers that are known before a kernel starts, and
// loops cut into parts that are small enough. For host and device.
#include <cstdint>

#include "tensor/philox.h"
#if defined(__CUDACC__)
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675  // pragmas of GCC in host code
#endif
#include "tensor/iterate.h"
#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif

namespace centroid::cuda {

/// n / d for n < 2^31 and 1 <= d <= 2^31, by a multiplication (Granlund and Montgomery, "Division
/// by invariant integers using multiplication", 1994): with s = ceil(log2 d) and m = floor(2^32
/// (2^s - d) / d) + 1, n / d = (n + floor(n m / 2^32)) / 2^s.
struct Divisor {
  uint32_t d = 1, multiplier = 1, shift = 0;

  Divisor() = default;
  explicit Divisor(int64_t divisor) : d(static_cast<uint32_t>(divisor)) {
    while ((uint64_t{1} << shift) < d) ++shift;
    multiplier = static_cast<uint32_t>((((uint64_t{1} << shift) - d) << 32) / d + 1);
  }
  CENTROID_HD uint32_t quotient(uint32_t n) const {
    const uint32_t high = static_cast<uint32_t>((uint64_t{n} * multiplier) >> 32);
    return (high + n) >> shift;
  }
};

/// n / d for n >= 0, d > 0; with a 32-bit division, several times faster, where they allow it.
CENTROID_HD int64_t quotient(int64_t n, int64_t d) {
  return ((n | d) >> 32) == 0 ? static_cast<uint32_t>(n) / static_cast<uint32_t>(d) : n / d;
}

inline constexpr int64_t kPartLimit = int64_t{1} << 30;

/// The first element of a part in each of N tensors.
template <int N>
struct Start {
  int64_t at[N] = {};
};

/// Cuts loops in halves until a part has at most `limit` elements and spans at most `limit`
/// elements of each tensor; calls f(part, start) for each.
template <int N, typename F>
void for_each_part(const Loops<N>& loops, int64_t limit, const F& f, const Start<N>& start = {}) {
  int64_t count = 1, widest = -1;
  int cut = 0;
  Start<N> span;
  for (int d = 0; d < loops.dims; ++d) {
    const int64_t steps = loops.size[d] - 1;
    count *= loops.size[d];
    for (int t = 0; t < N; ++t) {
      const int64_t reach = steps * loops.stride[t][d];
      span.at[t] += reach;
      if (steps > 0 && reach > widest) widest = reach, cut = d;
    }
  }
  bool fits = count <= limit;
  for (int t = 0; t < N; ++t) fits = fits && span.at[t] < limit;
  if (fits) return f(loops, start);
  // Halves of multiples of 64 keep the alignment of what follows.
  const int64_t n = loops.size[cut], half = n >= 128 ? n / 128 * 64 : n / 2;
  Loops<N> part = loops;
  part.size[cut] = half;
  for_each_part(part, limit, f, start);
  part.size[cut] = n - half;
  Start<N> second = start;
  for (int t = 0; t < N; ++t) second.at[t] += half * loops.stride[t][cut];
  for_each_part(part, limit, f, second);
}

}  // namespace centroid::cuda
