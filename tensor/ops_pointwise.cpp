// Elementwise operations and random tensors: checks, broadcasting and allocation around the
// kernels.
#include <cmath>

#include "tensor/check.h"
#include "tensor/convert.h"
#include "tensor/functors.h"
#include "tensor/ops.h"

namespace centroid::raw {
namespace {

void check_pair(const char* op, const Tensor& a, const Tensor& b) {
  CENTROID_CHECK(a.dtype() == b.dtype(), op, ": dtypes differ: a is ", a.dtype(), ", b is ",
                 b.dtype(), " (raw::cast converts)");
  CENTROID_CHECK(a.device() == b.device(), op, ": devices differ: a is on ", a.device(), ", b on ",
                 b.device(), " (raw::to moves)");
}

void check_numeric(const char* op, const Tensor& x) {
  CENTROID_CHECK(x.dtype() != DType::bf16, op, ": dtype: expected f64, f32, i64, i32 or u8, got ",
                 x.dtype(), " (raw::cast converts)");
}

// Like expand, without making a view where there is nothing to repeat.
Tensor broadcast(const Tensor& x, const Shape& shape) {
  return x.shape() == shape ? x : expand(x, shape);
}

// A number that takes part in integer arithmetic has to be one of the integers of the type.
void check_integer_scalar(const char* op, DType dtype, double value) {
  if (is_float(dtype)) return;
  const bool exact = dispatch_numeric(
      dtype, op, [&]<typename T>() { return static_cast<double>(convert<T>(value)) == value; });
  CENTROID_CHECK(exact, op, ": ", value, " is not a value of the tensor's dtype ", dtype,
                 " (raw::cast the tensor to a float)");
}

void check_random(const char* op, DType dtype) {
  CENTROID_CHECK(dtype == DType::f32 || dtype == DType::f64, op,
                 ": dtype: expected f32 or f64, got ", dtype);
}

bool any(const Tensor& condition) { return condition.numel() > 0 && max(condition).item() != 0; }

// Integer division by zero and negative integer powers have no value that could be returned.
void check_integer_operand(Binary op, const Tensor& b) {
  if (is_float(b.dtype())) return;
  if (op == Binary::div) {
    CENTROID_CHECK(!any(compare(Compare::eq, b, 0)), "div: integer division by zero: b is ",
                   b.dtype(), " and contains 0");
  } else if (op == Binary::pow && b.dtype() != DType::u8) {
    CENTROID_CHECK(!any(compare(Compare::lt, b, 0)), "pow: negative exponent for integers: b is ",
                   b.dtype(), " (raw::cast to a float)");
  }
}

void check_unary(Unary op, const Tensor& x, double a, double b) {
  const char* name = to_string(op);
  if (!has_integer_form(op)) return detail::check_floats(name, {{"x", x}});
  check_numeric(name, x);
  if (op == Unary::clamp) {
    CENTROID_CHECK(a <= b, "clamp: expected low <= high, got ", a, " and ", b);
    // Infinite bounds mean none; convert() saturates them.
    if (std::isfinite(a)) check_integer_scalar(name, x.dtype(), a);
    if (std::isfinite(b)) check_integer_scalar(name, x.dtype(), b);
  } else if (op == Unary::add_scalar || op == Unary::mul_scalar || op == Unary::pow_scalar) {
    check_integer_scalar(name, x.dtype(), a);
    CENTROID_CHECK(op != Unary::pow_scalar || is_float(x.dtype()) || a >= 0,
                   "pow: negative exponent ", a, " for integers: x is ", x.dtype(),
                   " (raw::cast to a float)");
  }
}

}  // namespace

Tensor unary(Unary op, const Tensor& x, double a, double b) {
  check_unary(op, x, a, b);
  Tensor y = empty(x.shape(), op == Unary::isnan ? DType::u8 : x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), unary, op, x, a, b, y);
  return y;
}

Tensor unary_backward(Unary op, const Tensor& x, const Tensor& dy, double a, double b) {
  detail::check_floats(to_string(op), {{"x", x}, {"dy", dy}});
  CENTROID_CHECK(op != Unary::isnan, "isnan: has no derivative");
  detail::check_shape(to_string(op), "dy", dy, x.shape());
  Tensor dx = empty(x.shape(), x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), unary_backward, op, contiguous(x), contiguous(dy), a, b, dx);
  return dx;
}

Tensor binary(Binary op, const Tensor& a, const Tensor& b) {
  const char* name = to_string(op);
  check_pair(name, a, b);
  check_numeric(name, a);
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), name);
  check_integer_operand(op, b);
  Tensor y = empty(shape, a.dtype(), a.device());
  CENTROID_DISPATCH(a.device(), binary, op, broadcast(a, shape), broadcast(b, shape), y);
  return y;
}

Tensor compare(Compare op, const Tensor& a, const Tensor& b) {
  const char* name = to_string(op);
  check_pair(name, a, b);
  check_numeric(name, a);
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), name);
  Tensor y = empty(shape, DType::u8, a.device());
  CENTROID_DISPATCH(a.device(), compare, op, broadcast(a, shape), broadcast(b, shape), y);
  return y;
}

Tensor compare(Compare op, const Tensor& a, double b) {
  check_integer_scalar(to_string(op), a.dtype(), b);
  return compare(op, a, full({}, b, a.dtype(), a.device()));
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  CENTROID_CHECK(condition.dtype() == DType::u8, "where: condition: expected u8, got ",
                 condition.dtype(), " (raw::compare makes one)");
  check_pair("where", a, b);
  CENTROID_CHECK(condition.device() == a.device(), "where: devices differ: condition is on ",
                 condition.device(), ", a on ", a.device());
  const Shape values = broadcast_shapes(a.shape(), b.shape(), "where");
  const Shape shape = broadcast_shapes(condition.shape(), values, "where");
  Tensor y = empty(shape, a.dtype(), a.device());
  CENTROID_DISPATCH(a.device(), where, broadcast(condition, shape), broadcast(a, shape),
                    broadcast(b, shape), y);
  return y;
}

Tensor uniform(const Shape& shape, Rng& rng, double low, double high, DType dtype, Device device) {
  check_random("uniform", dtype);
  CENTROID_CHECK(std::isfinite(low) && std::isfinite(high) && low <= high,
                 "uniform: expected finite low <= high, got ", low, " and ", high);
  Tensor y = empty(shape, dtype, device);
  const RngState state = rng.reserve((y.numel() + 3) / 4);
  CENTROID_DISPATCH(y.device(), uniform, state, low, high, y);
  return y;
}

Tensor normal(const Shape& shape, Rng& rng, double mean, double stddev, DType dtype,
              Device device) {
  check_random("normal", dtype);
  CENTROID_CHECK(std::isfinite(mean) && std::isfinite(stddev) && stddev >= 0,
                 "normal: expected a finite mean and stddev >= 0, got ", mean, " and ", stddev);
  Tensor y = empty(shape, dtype, device);
  const RngState state = rng.reserve((y.numel() + 3) / 4);
  CENTROID_DISPATCH(y.device(), normal, state, mean, stddev, y);
  return y;
}

Tensor dropout(const Tensor& x, double p, RngState state) {
  detail::check_floats("dropout", {{"x", x}});
  CENTROID_CHECK(p >= 0 && p * 65536 < 65535.5, "dropout: p: expected 0 <= p < 1, got ", p);
  if (x.numel() == 0) return clone(x);
  const int64_t n = x.dim() == 0 ? 1 : x.size(-1);
  const Shape rows = {x.numel() / n, n};
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), dropout, state, p, reshape(contiguous(x), rows), reshape(y, rows));
  return y;
}

}  // namespace centroid::raw
