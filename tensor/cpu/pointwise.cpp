// Elementwise arithmetic. The loops are in tensor/iterate.h, the scalar functions in
// tensor/functors.h.
#include <functional>

#include "tensor/convert.h"
#include "tensor/functors.h"
#include "tensor/iterate.h"
#include "tensor/kernels.h"

namespace centroid::cpu {
namespace {

// x^2 is by far the most frequent power and needs no logarithm.
Unary simplify(Unary op, double a) {
  return op == Unary::pow_scalar && a == 2 ? Unary::square : op;
}

template <typename T, typename F>
void with_compare(Compare op, F&& f) {
  switch (op) {
    case Compare::eq: return f(std::equal_to<T>());
    case Compare::ne: return f(std::not_equal_to<T>());
    case Compare::lt: return f(std::less<T>());
    case Compare::le: return f(std::less_equal<T>());
    case Compare::gt: return f(std::greater<T>());
    case Compare::ge: return f(std::greater_equal<T>());
  }
}

}  // namespace

void unary(Unary op, const Tensor& x, double a, double b, const Tensor& y) {
  op = simplify(op, a);
  dispatch_numeric(x.dtype(), to_string(op), [&]<typename T>() {
    const Operand<T> in(x);
    if (op == Unary::isnan) return map<uint8_t>(y, unary::IsNan<T>{}, in);
    const auto run = [&](auto f) { map<T>(y, f, in); };
    with_unary<T>(op, convert<T>(a), convert<T>(b), run);
  });
}

// dx = dy * op'(x)
void unary_backward(Unary op, const Tensor& x, const Tensor& dy, double a, double b,
                    const Tensor& dx) {
  op = simplify(op, a);
  dispatch_float(x.dtype(), to_string(op), [&]<typename T>() {
    with_unary<T>(op, static_cast<T>(a), static_cast<T>(b), [&](auto f) {
      map<T>(
          dx, [f](T v, T dv) { return dv * f.grad(v); }, Operand<T>(x), Operand<T>(dy));
    });
  });
}

void binary(Binary op, const Tensor& a, const Tensor& b, const Tensor& y) {
  dispatch_numeric(y.dtype(), to_string(op), [&]<typename T>() {
    with_binary<T>(op, [&](auto f) { map<T>(y, f, Operand<T>(a), Operand<T>(b)); });
  });
}

void compare(Compare op, const Tensor& a, const Tensor& b, const Tensor& y) {
  dispatch_numeric(a.dtype(), to_string(op), [&]<typename T>() {
    with_compare<T>(op, [&](auto f) { map<uint8_t>(y, f, Operand<T>(a), Operand<T>(b)); });
  });
}

void where(const Tensor& condition, const Tensor& a, const Tensor& b, const Tensor& y) {
  dispatch_bytes(y.dtype(), [&]<typename T>() {
    map<T>(
        y, [](uint8_t c, T v, T w) { return c ? v : w; }, Operand<uint8_t>(condition),
        Operand<T>(a), Operand<T>(b));
  });
}

void axpy(double alpha, const Tensor& x, const Tensor& y) {
  dispatch_float(y.dtype(), "axpy", [&]<typename T>() {
    const T scale = static_cast<T>(alpha);
    map<T>(
        y, [scale](T v, T w) { return w + scale * v; }, Operand<T>(x), Operand<T>(y));
  });
}

}  // namespace centroid::cpu
