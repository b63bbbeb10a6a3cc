#pragma once
// Rows that are read and written 16 bytes at a time.
#include "cuda/launch.cuh"

namespace centroid::cuda {

template <typename T>
inline constexpr int kVector = 16 / sizeof(T);

template <typename T, int kCount = kVector<T>>
struct __align__(sizeof(T) * kCount) Vector {
  T at[kCount];
};

/// Whether all rows of x (B, H, N, E) begin and end on multiples of 16 bytes.
template <typename T>
bool in_vectors(const Tensor& x) {
  bool all = reinterpret_cast<uintptr_t>(x.data<T>()) % 16 == 0 && x.size(3) % kVector<T> == 0;
  for (int d = 0; d < 3; ++d) all = all && (x.size(d) == 1 || x.strides()[d] % kVector<T> == 0);
  return all;
}

}  // namespace centroid::cuda
