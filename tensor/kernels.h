#pragma once
// Kernels by device: `centroid::cpu::name` and `centroid::cuda::name` for every entry of
// kernels.def. A kernel that a device lacks is a link error in a build that has the device; a build
// without CUDA links stubs that throw (cuda/stub.cpp).
#include "tensor/attention.h"
#include "tensor/backend.h"
#include "tensor/fsa.h"
#include "tensor/optim.h"
#include "tensor/philox.h"
#include "tensor/rng.h"
#include "tensor/tensor.h"
#include "tensor/trace.h"

namespace centroid {

/// Elementwise functions of one argument; `a` and `b` are the parameters some of them have.
enum class Unary {
  neg,
  exp,
  log,
  sqrt,
  rsqrt,
  tanh,
  sigmoid,
  relu,
  gelu,
  elu,
  silu,
  softplus,
  abs,
  sin,
  cos,
  square,
  reciprocal,
  sign,
  floor,
  isnan,
  add_scalar,
  mul_scalar,
  pow_scalar,
  clamp,  // x + a, x * a, x ^ a, min(max(x, a), b)
};
/// Elementwise functions of two arguments of one dtype.
enum class Binary { add, sub, mul, div, pow, min, max };
/// Comparisons; the result is u8: 0 or 1.
enum class Compare { eq, ne, lt, le, gt, ge };
enum class Reduce { sum, max, min };

#define CENTROID_KERNEL(name, parameters, meaning) void name parameters;
namespace cpu {
#include "tensor/kernels.def"
}
namespace cuda {
#include "tensor/kernels.def"
}
#undef CENTROID_KERNEL

namespace detail {

/// Runs one kernel on its device; when tracing is on, also times it and notes the shapes. A kernel
/// of a CUDA device is only launched here, unless it is traced.
template <typename F, typename... Args>
void run_kernel(const char* name, Device device, F* on_cpu, F* on_cuda, const Args&... args) {
  const auto run = [&] {
    if (device.kind == DeviceKind::cpu) return on_cpu(args...);
    cuda::begin_kernel(device.index, name);
    on_cuda(args...);
    cuda::end_kernel(device.index);
  };
  if (!tracing()) [[likely]]
    return run();
  TraceScope scope(name, describe_arguments(args...));
  run();
  if (device.kind != DeviceKind::cpu) cuda::synchronize(device.index);
}

}  // namespace detail
}  // namespace centroid

/// Calls kernel `name` on `device`.
#define CENTROID_DISPATCH(device, name, ...)                                                     \
  ::centroid::detail::run_kernel(#name, device, &::centroid::cpu::name, &::centroid::cuda::name, \
                                 __VA_ARGS__)
