// Derivatives of elementwise functions, organised as cuda/unary.cu is.
#include "cuda/strides.cuh"
#include "tensor/functors.h"

namespace centroid::cuda {
namespace {

template <typename T, typename F>
struct Backward {
  F f;
  CENTROID_DEVICE T operator()(T x, T dy) const { return dy * f.grad(x); }
};

template <typename T>
struct AnyBackward {
  Unary op;
  T a, b;
  CENTROID_DEVICE T operator()(T x, T dy) const {
    T dx = 0;
    visit_unary(op, a, b, [&](auto f) { dx = dy * f.grad(x); });
    return dx;
  }
};

}  // namespace

// dx = dy * op'(x)
void unary_backward(Unary op, const Tensor& x, const Tensor& dy, double a, double b,
                    const Tensor& dx) {
  if (op == Unary::pow_scalar && a == 2) op = Unary::square;
  dispatch_float(x.dtype(), to_string(op), [&]<typename T>() {
    const T first = static_cast<T>(a), second = static_cast<T>(b);
    if constexpr (std::is_same_v<T, float>) {
      const auto run = [&]<typename F>(F f) { map<T(T, T)>(Backward<T, F>{f}, dx, x, dy); };
      with_unary<T>(op, first, second, run);
    } else {
      map<T(T, T)>(AnyBackward<T>{op, first, second}, dx, x, dy);
    }
  });
}

}  // namespace centroid::cuda
