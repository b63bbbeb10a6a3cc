#pragma once
// Taking a set of keys away from another, for host and device.
#include <cmath>

#include "tensor/math.h"

namespace centroid {

/// The share of part 0 that parts with sign -1 leave of it, 1 where there are none: row r of lses
/// (parts, rows) holds the log-sum-exps. It is 0 where it is no larger than the rounding of those:
/// what such a difference holds is noise, times e^(lse_0) enough to drown all other parts.
template <typename T>
CENTROID_HD T share_left(const T* lses, const double* signs, int64_t parts, int64_t rows,
                         int64_t r) {
  constexpr T kRounding = sizeof(T) == 4 ? T(0x1p-20) : T(0x1p-49);  // 8 epsilon
  const T whole = lses[r];
  T left = 1;
  for (int64_t n = 1; n < parts; ++n) {
    const T piece = lses[n * rows + r];
    if (signs[n] < 0 && piece != -INFINITY) left -= math::exp(piece - whole);
  }
  const T size = whole < 0 ? -whole : whole;
  return left < 1 && left <= kRounding * (1 + size) ? T(0) : left;
}

}  // namespace centroid
