#pragma once
// Reductions over warps and blocks, in an order that depends on nothing but the block's size.
#include "cuda/launch.cuh"

namespace centroid::cuda {

struct Sum {
  template <typename T>
  CENTROID_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
/// NaN wins.
struct Max {
  template <typename T>
  CENTROID_DEVICE T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

/// The whole warp must call it; every lane receives the result.
template <typename T, typename Op>
CENTROID_DEVICE T warp_reduce(T value, Op op) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value = op(value, __shfl_xor_sync(kFullMask, value, step));
  }
  return value;
}

/// The whole block of kBlock threads (a multiple of 32) must call it; every thread receives the
/// result. `shared` holds kBlock / 32 elements, free for reuse after the next __syncthreads.
template <int kBlock, typename T, typename Op>
CENTROID_DEVICE T block_reduce(T value, Op op, T* shared) {
  static_assert(kBlock % kWarp == 0 && kBlock <= 1024);
  value = warp_reduce(value, op);
  if constexpr (kBlock > kWarp) {
    constexpr int kWarps = kBlock / kWarp;
    if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
    __syncthreads();
    value = shared[0];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) value = op(value, shared[w]);
  }
  return value;
}

}  // namespace centroid::cuda
