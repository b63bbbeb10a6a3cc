// Elementwise arithmetic of several inputs: map() of strides.cuh with the functors of
// tensor/functors.h. Arithmetic in f32 has a kernel per operation. That of the other types, and
// comparisons, have one kernel per type: all threads take the same way through its switch, which
// hides behind the memory traffic, and there is less to compile.
#include "cuda/strides.cuh"
#include "tensor/functors.h"

namespace centroid::cuda {
namespace {

template <typename T>
struct AnyBinary {
  Binary op;
  CENTROID_DEVICE T operator()(T a, T b) const {
    T y;
    with_binary<T>(op, [&](auto f) { y = f(a, b); });
    return y;
  }
};

template <typename T>
struct AnyCompare {
  Compare op;
  CENTROID_DEVICE uint8_t operator()(T a, T b) const {
    switch (op) {
      case Compare::eq: return a == b;
      case Compare::ne: return a != b;
      case Compare::lt: return a < b;
      case Compare::le: return a <= b;
      case Compare::gt: return a > b;
      default: return a >= b;
    }
  }
};

template <typename T>
struct Choose {
  CENTROID_DEVICE T operator()(uint8_t condition, T a, T b) const { return condition ? a : b; }
};

template <typename T>
struct AddScaled {
  T scale;
  CENTROID_DEVICE T operator()(T x, T y) const { return y + scale * x; }
};

}  // namespace

void binary(Binary op, const Tensor& a, const Tensor& b, const Tensor& y) {
  dispatch_numeric(y.dtype(), to_string(op), [&]<typename T>() {
    if constexpr (std::is_same_v<T, float>)
      with_binary<T>(op, [&](auto f) { map<T(T, T)>(f, y, a, b); });
    else
      map<T(T, T)>(AnyBinary<T>{op}, y, a, b);
  });
}

void compare(Compare op, const Tensor& a, const Tensor& b, const Tensor& y) {
  dispatch_numeric(a.dtype(), to_string(op),
                   [&]<typename T>() { map<uint8_t(T, T)>(AnyCompare<T>{op}, y, a, b); });
}

void where(const Tensor& condition, const Tensor& a, const Tensor& b, const Tensor& y) {
  dispatch_bytes(y.dtype(),
                 [&]<typename T>() { map<T(uint8_t, T, T)>(Choose<T>{}, y, condition, a, b); });
}

void axpy(double alpha, const Tensor& x, const Tensor& y) {
  dispatch_float(y.dtype(), "axpy",
                 [&]<typename T>() { map<T(T, T)>(AddScaled<T>{static_cast<T>(alpha)}, y, x, y); });
}

}  // namespace centroid::cuda
