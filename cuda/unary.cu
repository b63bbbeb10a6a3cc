// Elementwise functions of one argument: map() of strides.cuh with the functors of
// tensor/functors.h. In f32 there is a kernel per function; the other types have one
// each, which branches on the function, the same way in all threads.
#pragma nv_diag_suppress 186  // comparisons of u8 with 0, in functors for all types
#include "cuda/strides.cuh"
#include "tensor/convert.h"
#include "tensor/functors.h"

namespace centroid::cuda {
namespace {

template <typename T>
struct AnyUnary {
  Unary op;
  T a, b;
  CENTROID_DEVICE T operator()(T x) const {
    T y = x;
    visit_unary(op, a, b, [&](auto f) { y = f(x); });
    return y;
  }
};

}  // namespace

void unary(Unary op, const Tensor& x, double a, double b, const Tensor& y) {
  // By far the most frequent power, which needs no logarithm.
  if (op == Unary::pow_scalar && a == 2) op = Unary::square;
  dispatch_numeric(x.dtype(), to_string(op), [&]<typename T>() {
    if (op == Unary::isnan) {
      if constexpr (std::is_integral_v<T>)
        fill(y, 0);
      else
        map<uint8_t(T)>(unary::IsNan<T>{}, y, x);
    } else if constexpr (std::is_same_v<T, float>) {
      const auto run = [&](auto f) { map<T(T)>(f, y, x); };
      with_unary<T>(op, convert<T>(a), convert<T>(b), run);
    } else {
      map<T(T)>(AnyUnary<T>{op, convert<T>(a), convert<T>(b)}, y, x);
    }
  });
}

}  // namespace centroid::cuda
