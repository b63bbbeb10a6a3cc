#pragma once
// The scalar mathematics of every elementwise operation, once, for host and device, on top of the
// elementary functions of math.h.
//
// `unary::` and `binary::` hold one functor per operation: operator() is the value, grad(x) the
// derivative. NaN in, NaN out, for all of them (except isnan, and gradients that are 0 everywhere).
// Integers wrap modulo 2^bits. Conventions where a derivative does not exist: relu'(0) = 0,
// abs'(0) = 0, clamp' = 1 inside and on both bounds. min and max of equal arguments: each argument
// receives half of the gradient (autograd implements it).
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "tensor/kernels.h"
#include "tensor/math.h"

namespace centroid {

constexpr const char* to_string(Unary op) {
  constexpr const char* kNames[] = {
      "neg",        "exp",  "log",   "sqrt",     "rsqrt",      "tanh",       "sigmoid",    "relu",
      "gelu",       "elu",  "silu",  "softplus", "abs",        "sin",        "cos",        "square",
      "reciprocal", "sign", "floor", "isnan",    "add_scalar", "mul_scalar", "pow_scalar", "clamp"};
  return kNames[static_cast<int>(op)];
}
constexpr const char* to_string(Binary op) {
  constexpr const char* kNames[] = {"add", "sub", "mul", "div", "pow", "minimum", "maximum"};
  return kNames[static_cast<int>(op)];
}
constexpr const char* to_string(Compare op) {
  constexpr const char* kNames[] = {"eq", "ne", "lt", "le", "gt", "ge"};
  return kNames[static_cast<int>(op)];
}

/// Whether a unary operation is defined on integers.
constexpr bool has_integer_form(Unary op) {
  return op == Unary::neg || op == Unary::relu || op == Unary::abs || op == Unary::square ||
         op == Unary::sign || op == Unary::floor || op == Unary::isnan || op >= Unary::add_scalar;
}

namespace unary {

// The operations whose value and derivative are one expression each.
#define CENTROID_UNARY(Name, value, derivative)           \
  template <typename T>                                   \
  struct Name {                                           \
    CENTROID_HD T operator()(T x) const { return value; } \
    CENTROID_HD T grad(T x) const { return derivative; }  \
  };
CENTROID_UNARY(Exp, (math::exp(x)), (math::exp(x)))
CENTROID_UNARY(Log, (math::log(x)), (1 / x))
CENTROID_UNARY(Sqrt, (std::sqrt(x)), (T(0.5) / std::sqrt(x)))
CENTROID_UNARY(Rsqrt, (1 / std::sqrt(x)), (T(-0.5) / (x * std::sqrt(x))))
CENTROID_UNARY(Relu, (x < 0 ? T(0) : x), (x > 0 ? T(1) : T(0)))
CENTROID_UNARY(Sin, (std::sin(x)), (std::cos(x)))
CENTROID_UNARY(Cos, (std::cos(x)), (-std::sin(x)))
CENTROID_UNARY(Square, (math::mul(x, x)), (2 * x))
CENTROID_UNARY(Reciprocal, (1 / x), (-1 / (x * x)))
CENTROID_UNARY(Elu, (x > 0 ? x : math::expm1_nonpositive(x)), (x > 0 ? T(1) : math::exp(x)))
#undef CENTROID_UNARY

template <typename T>
struct Neg {
  CENTROID_HD T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>) return -x;
    return math::sub(T(0), x);
  }
  CENTROID_HD T grad(T) const { return T(-1); }
};
template <typename T>
struct Tanh {
  CENTROID_HD T operator()(T x) const { return math::tanh(x); }
  CENTROID_HD T grad(T x) const {
    const T y = math::tanh(x);
    return (1 - y) * (1 + y);
  }
};
template <typename T>
struct Sigmoid {
  CENTROID_HD T operator()(T x) const { return math::sigmoid(x); }
  // s (1 - s) = z / (1 + z)^2 with z = e^-|x|: no cancellation.
  CENTROID_HD T grad(T x) const {
    const T z = math::exp(-std::fabs(x));
    return z / ((1 + z) * (1 + z));
  }
};
/// x P(x), P the normal distribution function: the exact form, not the tanh approximation.
template <typename T>
struct Gelu {
  CENTROID_HD T operator()(T x) const { return x * math::normal(x).probability; }
  // (x P)' = P + x P', and P' is the density. At infinity x P' is 0, which a bounded x keeps from
  // becoming infinity times zero (NaN passes).
  CENTROID_HD T grad(T x) const {
    const auto p = math::normal(x);
    T bounded = x < T(-40) ? T(-40) : x;
    bounded = bounded > T(40) ? T(40) : bounded;
    return p.probability + bounded * p.density;
  }
};
/// x s(x), s the sigmoid.
template <typename T>
struct Silu {
  CENTROID_HD T operator()(T x) const { return x * math::sigmoid(x); }
  // s + x s' = s + x s (1 - s)
  CENTROID_HD T grad(T x) const {
    const T s = math::sigmoid(x);
    return s * (1 + x * (1 - s));
  }
};
/// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
template <typename T>
struct Softplus {
  CENTROID_HD T operator()(T x) const {
    return (x < 0 ? T(0) : x) + math::log1p_unit(math::exp(-std::fabs(x)));
  }
  CENTROID_HD T grad(T x) const { return math::sigmoid(x); }
};
/// 1, 0 or -1
template <typename T>
struct Sign {
  CENTROID_HD T operator()(T x) const {
    if constexpr (std::is_unsigned_v<T>) return x > 0 ? T(1) : T(0);
    return x > 0 ? T(1) : (x < 0 ? T(-1) : x);  // x itself: 0 or NaN
  }
  CENTROID_HD T grad(T) const { return 0; }
};
template <typename T>
struct Abs {
  CENTROID_HD T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>) return std::fabs(x);
    return x < 0 ? math::sub(T(0), x) : x;
  }
  CENTROID_HD T grad(T x) const { return Sign<T>{}(x); }
};
template <typename T>
struct Floor {
  CENTROID_HD T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>) return std::floor(x);
    return x;
  }
  CENTROID_HD T grad(T) const { return 0; }
};
template <typename T>
struct IsNan {
  CENTROID_HD uint8_t operator()(T x) const { return x != x; }
};
template <typename T>
struct AddScalar {
  T a;
  CENTROID_HD T operator()(T x) const { return math::add(x, a); }
  CENTROID_HD T grad(T) const { return 1; }
};
template <typename T>
struct MulScalar {
  T a;
  CENTROID_HD T operator()(T x) const { return math::mul(x, a); }
  CENTROID_HD T grad(T) const { return a; }
};
template <typename T>
struct PowScalar {
  T a;
  CENTROID_HD T operator()(T x) const { return math::pow(x, a); }
  // a x^(a-1); a = 0 apart, where x = 0 would give 0 * inf
  CENTROID_HD T grad(T x) const { return a == 0 ? T(0) : a * math::pow(x, a - 1); }
};
/// min(max(x, low), high)
template <typename T>
struct Clamp {
  T low, high;
  CENTROID_HD T operator()(T x) const {
    const T bounded = x < low ? low : x;
    return bounded > high ? high : bounded;
  }
  CENTROID_HD T grad(T x) const { return x >= low && x <= high ? T(1) : T(0); }
};

}  // namespace unary

namespace binary {

#define CENTROID_BINARY(Name, value)                           \
  template <typename T>                                        \
  struct Name {                                                \
    CENTROID_HD T operator()(T a, T b) const { return value; } \
  };
CENTROID_BINARY(Add, math::add(a, b))
CENTROID_BINARY(Sub, math::sub(a, b))
CENTROID_BINARY(Mul, math::mul(a, b))
CENTROID_BINARY(Div, math::div(a, b))
CENTROID_BINARY(Pow, math::pow(a, b))
// `a` is kept when it is NaN; when `b` is, every comparison is false and `b` is the result.
CENTROID_BINARY(Min, (a < b || a != a ? a : b))
CENTROID_BINARY(Max, (a > b || a != a ? a : b))
#undef CENTROID_BINARY

}  // namespace binary

// Both of the following call host functors on the host and device functors on the device.
#if defined(__CUDACC__)
#define CENTROID_ANY_CALLABLE _Pragma("nv_exec_check_disable")
#else
#define CENTROID_ANY_CALLABLE
#endif

/// Calls `f` with the functor of a unary operation. False, without a call, for isnan, whose result
/// has another type, and for integers where `has_integer_form` is false.
CENTROID_ANY_CALLABLE
template <typename T, typename F>
CENTROID_HD bool visit_unary(Unary op, T a, T b, F&& f) {
  switch (op) {
    case Unary::neg: return f(unary::Neg<T>{}), true;
    case Unary::relu: return f(unary::Relu<T>{}), true;
    case Unary::abs: return f(unary::Abs<T>{}), true;
    case Unary::square: return f(unary::Square<T>{}), true;
    case Unary::sign: return f(unary::Sign<T>{}), true;
    case Unary::floor: return f(unary::Floor<T>{}), true;
    case Unary::add_scalar: return f(unary::AddScalar<T>{a}), true;
    case Unary::mul_scalar: return f(unary::MulScalar<T>{a}), true;
    case Unary::pow_scalar: return f(unary::PowScalar<T>{a}), true;
    case Unary::clamp: return f(unary::Clamp<T>{a, b}), true;
    default: break;
  }
  if constexpr (std::is_floating_point_v<T>) {
    switch (op) {
      case Unary::exp: return f(unary::Exp<T>{}), true;
      case Unary::log: return f(unary::Log<T>{}), true;
      case Unary::sqrt: return f(unary::Sqrt<T>{}), true;
      case Unary::rsqrt: return f(unary::Rsqrt<T>{}), true;
      case Unary::tanh: return f(unary::Tanh<T>{}), true;
      case Unary::sigmoid: return f(unary::Sigmoid<T>{}), true;
      case Unary::gelu: return f(unary::Gelu<T>{}), true;
      case Unary::elu: return f(unary::Elu<T>{}), true;
      case Unary::silu: return f(unary::Silu<T>{}), true;
      case Unary::softplus: return f(unary::Softplus<T>{}), true;
      case Unary::sin: return f(unary::Sin<T>{}), true;
      case Unary::cos: return f(unary::Cos<T>{}), true;
      case Unary::reciprocal: return f(unary::Reciprocal<T>{}), true;
      default: break;
    }
  }
  return false;
}

/// Calls `f` with the functor of a binary operation.
CENTROID_ANY_CALLABLE
template <typename T, typename F>
CENTROID_HD void with_binary(Binary op, F&& f) {
  switch (op) {
    case Binary::add: return f(binary::Add<T>{});
    case Binary::sub: return f(binary::Sub<T>{});
    case Binary::mul: return f(binary::Mul<T>{});
    case Binary::div: return f(binary::Div<T>{});
    case Binary::pow: return f(binary::Pow<T>{});
    case Binary::min: return f(binary::Min<T>{});
    case Binary::max: return f(binary::Max<T>{});
  }
}
#undef CENTROID_ANY_CALLABLE

/// Like visit_unary; throws where that is false.
template <typename T, typename F>
void with_unary(Unary op, T a, T b, F&& f) {
  if (visit_unary(op, a, b, f)) return;
  throw Error(concat(to_string(op), ": is not defined on ", to_string(dtype_of<T>())));
}

}  // namespace centroid
