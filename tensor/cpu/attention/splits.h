#pragma once
// Sums that several tasks share: the first task writes into the result, each other one into a
// partial result of its own, and these are added in order. Shapes alone decide how many there are.
#include "tensor/cpu/attention/visible.h"
#include "tensor/parallel.h"

namespace centroid::cpu {

template <typename T>
void zero_rows(const Rows<T>& rows, int64_t first, int64_t last, int64_t width) {
  if (!rows.data) return;
  for (int64_t r = first; r < last; ++r) std::fill_n(rows[r], width, T(0));
}

/// total (B, H, N, E), any strides with 1 in the last dimension += the sum over splits of partial
/// (splits, B, H, N, E), contiguous.
template <typename T>
void add_partials(const Tensor& partial, const Tensor& total) {
  if (!total.defined()) return;
  const int64_t n = total.size(2), width = total.size(3);
  const int64_t count = total.size(0) * total.size(1) * n;
  parallel_for(0, count, std::max<int64_t>(1, 16384 / width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      T* __restrict to = Rows<T>(total, r / n)[r % n];
      for (int64_t p = 0; p < partial.size(0); ++p) {
        const T* __restrict from = partial.data<T>() + (p * count + r) * width;
        for (int64_t e = 0; e < width; ++e) to[e] += from[e];
      }
    }
  });
}

}  // namespace centroid::cpu
