#pragma once
// Comparing a CUDA device with the CPU.
//
// The rule for floats: the device's f32 result, against the f64 result of the CPU on the same
// numbers, is off by at most twice what the CPU's own f32 result is off by, plus 4 ulp of the
// largest magnitude; f64 results agree to 1e-11 of the largest magnitude. Integers are equal.
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/support.h"

namespace centroid::test {

using Tensors = std::vector<Tensor>;
using Computation = std::function<Tensors(const Tensors&)>;

/// The device that tests of the backend run on.
inline constexpr Device kCuda{DeviceKind::cuda, 0};

inline Tensors moved(const Tensors& xs, Device device) {
  Tensors result;
  for (const Tensor& x : xs) {
    // Strides are kept, where x is a transposed matrix, so that kernels meet them on the device
    // too.
    const bool dense = !x.defined() || x.is_contiguous() || x.dim() < 2;
    result.push_back(!x.defined() ? x
                     : dense      ? raw::to(x, device)
                             : raw::transpose(raw::to(raw::transpose(x, 0, -1), device), 0, -1));
  }
  return result;
}

inline Tensors with_floats(const Tensors& xs, DType dtype) {
  Tensors result;
  for (const Tensor& x : xs) {
    const bool convert = x.defined() && is_float(x.dtype()) && x.dtype() != dtype;
    result.push_back(!convert ? x
                     : x.is_contiguous() || x.dim() < 2
                         ? raw::cast(x, dtype)
                         : raw::transpose(raw::cast(raw::transpose(x, 0, -1), dtype), 0, -1));
  }
  return result;
}

namespace detail {

inline double largest_magnitude(const std::vector<double>& xs) {
  double largest = 0;
  for (double x : xs) largest = std::isfinite(x) ? std::max(largest, std::fabs(x)) : largest;
  return largest;
}
inline bool alike(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

inline double worst_error(const std::vector<double>& got, const std::vector<double>& wanted) {
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (alike(got[i], wanted[i])) continue;
    const double error = std::fabs(got[i] - wanted[i]);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  return worst;
}

}  // namespace detail

/// Empty when f gives the same on the CPU and the CUDA device for these f64 (or integer) inputs, by
/// the rule above; else what differs. Undefined outputs have to be undefined on both.
inline std::string disagreement(const Computation& f, const Tensors& inputs) {
  const Tensors f32 = with_floats(inputs, DType::f32);
  const Tensors exact_inputs = with_floats(f32, DType::f64);  // the numbers that f32 can hold
  const Tensors exact = f(exact_inputs), host = f(f32);
  const Tensors device = moved(f(moved(f32, kCuda)), Device{});
  const Tensors device_f64 = moved(f(moved(exact_inputs, kCuda)), Device{});
  if (device.size() != exact.size()) return "another number of outputs";
  for (size_t i = 0; i < exact.size(); ++i) {
    const std::string name = concat("output ", i);
    if (exact[i].defined() != device[i].defined()) return name + ": defined on one device only";
    if (!exact[i].defined()) continue;
    if (exact[i].shape() != device[i].shape()) {
      return concat(name, ": shapes differ: ", exact[i].shape(), " and ", device[i].shape());
    }
    if (!is_float(exact[i].dtype())) {
      if (!same_bits(host[i], device[i])) return name + ": " + mismatch(device[i], host[i], 0, 0);
      if (!same_bits(exact[i], device_f64[i])) {
        return name + " (f64): " + mismatch(device_f64[i], exact[i], 0, 0);
      }
      continue;
    }
    const std::vector<double> wanted = doubles(exact[i]);
    const double scale = detail::largest_magnitude(wanted);
    const double host_error = detail::worst_error(doubles(host[i]), wanted);
    const double error = detail::worst_error(doubles(device[i]), wanted);
    if (!(error <= 2 * host_error + 4 * 0x1p-24 * scale)) {
      return concat(name, " of shape ", exact[i].shape(), ": f32 error ", error, ", the CPU's is ",
                    host_error, ", the largest magnitude ", scale);
    }
    const double error_f64 = detail::worst_error(doubles(device_f64[i]), wanted);
    if (!(error_f64 <= 1e-11 * scale)) {
      return concat(name, " of shape ", exact[i].shape(), ": f64 error ", error_f64,
                    ", the largest magnitude ", scale);
    }
  }
  return "";
}

}  // namespace centroid::test
