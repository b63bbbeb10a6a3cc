#pragma once
// How kernels are started, and the small device functions they share. Device code only.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "cuda/runtime.h"
#include "tensor/kernels.h"

/// Device functions are inlined always: a call costs registers that the limits of
/// cuda/resources.txt are read without.
#define CENTROID_DEVICE __device__ __forceinline__

namespace centroid::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kFullMask = 0xffffffffu;
inline constexpr int kThreads = 256;  ///< per block of kernels that do not say otherwise
inline constexpr size_t kDefaultSharedBytes = 48 * 1024;

inline int64_t div_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

/// A grid dimension for `blocks` blocks of a kernel that strides over its work: enough to fill any
/// device, few enough for any grid.
inline unsigned grid_for(int64_t blocks) {
  return static_cast<unsigned>(std::min<int64_t>(blocks, 65535));
}

/// Starts a kernel on the current device's stream with `shared` bytes of dynamic shared memory. An
/// empty grid starts nothing. Throws, naming the kernel, when the launch fails.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
            Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared > kDefaultSharedBytes) {
    CENTROID_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(shared)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream();
  CENTROID_CUDA(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

namespace detail {

template <typename F>
__global__ void __launch_bounds__(kThreads) for_each_kernel(int64_t n, F f) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += step) f(i);
}

}  // namespace detail

/// f(i) for every i in [0, n), one thread each, in any order. F is a device lambda or functor.
template <typename F>
void for_each(int64_t n, const F& f) {
  launch(detail::for_each_kernel<F>, grid_for(div_up(n, kThreads)), kThreads, 0, n, f);
}

/// The dynamic shared memory of the running kernel, aligned to 16 bytes.
template <typename T>
CENTROID_DEVICE T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char centroid_dynamic_shared[];
  return reinterpret_cast<T*>(centroid_dynamic_shared);
}

/// Memory of a tensor (B, H, N, E) whose last dimension has stride 1: where rows begin.
template <typename T>
struct Rows4 {
  T* data;
  int64_t batch, head, row;  // strides, in elements

  CENTROID_DEVICE T* at(int64_t b, int64_t h, int64_t n) const {
    return data + b * batch + h * head + n * row;
  }
};
/// Null for an undefined tensor.
template <typename T>
Rows4<T> rows4(const Tensor& x) {
  if (!x.defined()) return {nullptr, 0, 0, 0};
  return {x.data<std::remove_const_t<T>>(), x.strides()[0], x.strides()[1], x.strides()[2]};
}

/// The memory of an optional tensor; null when it is undefined.
template <typename T>
T* data_or_null(const Tensor& x) {
  return x.defined() ? x.data<std::remove_const_t<T>>() : nullptr;
}

/// Records an index outside [0, bound) at `position`; the first record stays.
CENTROID_DEVICE void record_fault(Fault* fault, unsigned long long op, long long index,
                                  long long position, long long bound) {
  if (atomicCAS(&fault->op, 0ull, op) != 0ull) return;
  fault->index = index;
  fault->position = position;
  fault->bound = bound;
}

}  // namespace centroid::cuda
