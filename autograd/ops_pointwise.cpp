// Pointwise operations. The gradient of a broadcast input is summed over the dimensions along which
// it was repeated: raw::sum_to.
#include <utility>

#include "autograd/ops.h"

namespace centroid {
namespace {

Tensor scalar_like(const Tensor& x, double value) {
  return full(Shape{}, value, x.dtype(), x.device());
}

// y = min(a, b) or max(a, b). The gradient goes to the side that was chosen, half to each at a tie:
// the weight of a is ([a wins] + [a wins or ties]) / 2, and the same with a and b exchanged for b.
Tensor choose(const char* name, Binary op, const Tensor& a, const Tensor& b) {
  const bool smaller = op == Binary::min;
  const Compare wins = smaller ? Compare::lt : Compare::gt;
  const Compare wins_or_ties = smaller ? Compare::le : Compare::ge;
  return record(name, raw::binary(op, a, b), {a, b},
                [=, sa = Saved(a), sb = Saved(b)](const Tensor& dy, const Needs& needs) -> Grads {
                  const auto share = [&](const Tensor& x, const Tensor& other) {
                    const Tensor weight = raw::cast(raw::compare(wins, x, other), dy.dtype());
                    raw::add_(weight, raw::cast(raw::compare(wins_or_ties, x, other), dy.dtype()));
                    return raw::sum_to(raw::mul(raw::mul(weight, dy), 0.5), x.shape());
                  };
                  return {needs[0] ? share(sa.get(), sb.get()) : Tensor(),
                          needs[1] ? share(sb.get(), sa.get()) : Tensor()};
                });
}

const char* name_of(Unary op) {
  switch (op) {
    case Unary::neg: return "neg";
    case Unary::exp: return "exp";
    case Unary::log: return "log";
    case Unary::sqrt: return "sqrt";
    case Unary::rsqrt: return "rsqrt";
    case Unary::tanh: return "tanh";
    case Unary::sigmoid: return "sigmoid";
    case Unary::relu: return "relu";
    case Unary::gelu: return "gelu";
    case Unary::elu: return "elu";
    case Unary::silu: return "silu";
    case Unary::softplus: return "softplus";
    case Unary::abs: return "abs";
    case Unary::sin: return "sin";
    case Unary::cos: return "cos";
    case Unary::square: return "square";
    case Unary::reciprocal: return "reciprocal";
    case Unary::sign: return "sign";
    case Unary::floor: return "floor";
    case Unary::isnan: return "isnan";
    case Unary::add_scalar: return "add_scalar";
    case Unary::mul_scalar: return "mul_scalar";
    case Unary::pow_scalar: return "pow_scalar";
    case Unary::clamp: return "clamp";
  }
  return "unary";
}

}  // namespace

// y = a + b:   da = dy, db = dy.
Tensor operator+(const Tensor& a, const Tensor& b) {
  return record("add", raw::add(a, b), {a, b},
                [sa = a.shape(), sb = b.shape()](const Tensor& dy, const Needs& needs) -> Grads {
                  return {needs[0] ? raw::sum_to(dy, sa) : Tensor(),
                          needs[1] ? raw::sum_to(dy, sb) : Tensor()};
                });
}

// y = a - b:   da = dy, db = -dy.
Tensor operator-(const Tensor& a, const Tensor& b) {
  return record("sub", raw::sub(a, b), {a, b},
                [sa = a.shape(), sb = b.shape()](const Tensor& dy, const Needs& needs) -> Grads {
                  return {needs[0] ? raw::sum_to(dy, sa) : Tensor(),
                          needs[1] ? raw::neg(raw::sum_to(dy, sb)) : Tensor()};
                });
}

// y = a b:   da = dy b, db = dy a.
Tensor operator*(const Tensor& a, const Tensor& b) {
  return record("mul", raw::mul(a, b), {a, b},
                [sa = a.shape(), sb = b.shape(), a = saved_if(needs_grad(b), a),
                 b = saved_if(needs_grad(a), b)](const Tensor& dy, const Needs& needs) -> Grads {
                  return {needs[0] ? raw::sum_to(raw::mul(dy, b.get()), sa) : Tensor(),
                          needs[1] ? raw::sum_to(raw::mul(dy, a.get()), sb) : Tensor()};
                });
}

// y = a / b:   da = dy / b, db = -dy a / b^2 = -dy y / b.
Tensor operator/(const Tensor& a, const Tensor& b) {
  const Tensor y = raw::div(a, b);
  return record("div", y, {a, b},
                [sa = a.shape(), sb = b.shape(), b = Saved(b), y = saved_if(needs_grad(b), y)](
                    const Tensor& dy, const Needs& needs) -> Grads {
                  const Tensor da = raw::div(dy, b.get());
                  return {needs[0] ? raw::sum_to(da, sa) : Tensor(),
                          needs[1] ? raw::neg(raw::sum_to(raw::mul(da, y.get()), sb)) : Tensor()};
                });
}

Tensor operator-(const Tensor& x) { return unary(Unary::neg, x); }
Tensor operator+(const Tensor& x, double a) { return unary(Unary::add_scalar, x, a); }
Tensor operator+(double a, const Tensor& x) { return x + a; }
Tensor operator-(const Tensor& x, double a) { return x + -a; }
Tensor operator-(double a, const Tensor& x) { return -x + a; }
Tensor operator*(const Tensor& x, double a) { return unary(Unary::mul_scalar, x, a); }
Tensor operator*(double a, const Tensor& x) { return x * a; }
Tensor operator/(const Tensor& x, double a) { return x / scalar_like(x, a); }
Tensor operator/(double a, const Tensor& x) { return scalar_like(x, a) / x; }

// y = a^b:   da = dy b a^(b-1), which is 0 for b = 0 even at a = 0, where the power is infinite;
// db = dy y log a, which is real for a > 0 only: b gets no gradient elsewhere (0^b is flat, and a
// negative base allows no change of the exponent).
Tensor pow(const Tensor& a, const Tensor& b) {
  const Tensor y = raw::pow(a, b);
  return record("pow", y, {a, b},
                [a = Saved(a), b = Saved(b), y = saved_if(needs_grad(b), y)](
                    const Tensor& dy, const Needs& needs) -> Grads {
                  const Tensor &base = a.get(), &exponent = b.get(), zero = scalar_like(base, 0);
                  Tensor da, db;
                  if (needs[0]) {
                    da = raw::mul(exponent, raw::pow(base, raw::add(exponent, -1)));
                    da = raw::where(raw::compare(Compare::eq, exponent, 0.0), zero, da);
                    da = raw::sum_to(raw::mul(dy, da), base.shape());
                  }
                  if (needs[1]) {
                    db = raw::mul(y.get(), raw::log(base));
                    db = raw::where(raw::compare(Compare::gt, base, 0.0), db, zero);
                    db = raw::sum_to(raw::mul(dy, db), exponent.shape());
                  }
                  return {da, db};
                });
}

Tensor pow(const Tensor& x, double a) { return unary(Unary::pow_scalar, x, a); }

Tensor minimum(const Tensor& a, const Tensor& b) { return choose("minimum", Binary::min, a, b); }
Tensor maximum(const Tensor& a, const Tensor& b) { return choose("maximum", Binary::max, a, b); }

Tensor clamp(const Tensor& x, double low, double high) { return unary(Unary::clamp, x, low, high); }

// y = c ? a : b:   da = c ? dy : 0, db = c ? 0 : dy.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  return record("where", raw::where(condition, a, b), {a, b},
                [c = Saved(condition), sa = a.shape(), sb = b.shape()](
                    const Tensor& dy, const Needs& needs) -> Grads {
                  const Tensor zero = scalar_like(dy, 0);
                  return {needs[0] ? raw::sum_to(raw::where(c.get(), dy, zero), sa) : Tensor(),
                          needs[1] ? raw::sum_to(raw::where(c.get(), zero, dy), sb) : Tensor()};
                });
}

// y = f(x):   dx = dy f'(x), evaluated by the kernel that knows f. The functions whose derivative
// is simplest in terms of y, or constant, keep less: exp' = y, neg' = -1, (x + a)' = 1, (x a)' = a.
// The derivative of floor, sign and isnan is zero wherever it exists: their results have no
// history.
Tensor unary(Unary op, const Tensor& x, double a, double b) {
  const Tensor y = raw::unary(op, x, a, b);
  const char* name = name_of(op);
  switch (op) {
    case Unary::floor:
    case Unary::sign:
    case Unary::isnan: return y;
    case Unary::neg:
      return record(name, y, {x}, [](const Tensor& dy) -> Grads { return {raw::neg(dy)}; });
    case Unary::add_scalar:
      return record(name, y, {x}, [](const Tensor& dy) -> Grads { return {dy}; });
    case Unary::mul_scalar:
      return record(name, y, {x}, [a](const Tensor& dy) -> Grads { return {raw::mul(dy, a)}; });
    case Unary::exp:
      return record(name, y, {x},
                    [y = Saved(y)](const Tensor& dy) -> Grads { return {raw::mul(dy, y.get())}; });
    default:
      return record(name, y, {x}, [=, x = Saved(x)](const Tensor& dy) -> Grads {
        return {raw::unary_backward(op, x.get(), dy, a, b)};
      });
  }
}

Tensor exp(const Tensor& x) { return unary(Unary::exp, x); }
Tensor log(const Tensor& x) { return unary(Unary::log, x); }
Tensor sqrt(const Tensor& x) { return unary(Unary::sqrt, x); }
Tensor rsqrt(const Tensor& x) { return unary(Unary::rsqrt, x); }
Tensor tanh(const Tensor& x) { return unary(Unary::tanh, x); }
Tensor sigmoid(const Tensor& x) { return unary(Unary::sigmoid, x); }
Tensor relu(const Tensor& x) { return unary(Unary::relu, x); }
Tensor gelu(const Tensor& x) { return unary(Unary::gelu, x); }
Tensor elu(const Tensor& x) { return unary(Unary::elu, x); }
Tensor silu(const Tensor& x) { return unary(Unary::silu, x); }
Tensor softplus(const Tensor& x) { return unary(Unary::softplus, x); }
Tensor abs(const Tensor& x) { return unary(Unary::abs, x); }
Tensor sin(const Tensor& x) { return unary(Unary::sin, x); }
Tensor cos(const Tensor& x) { return unary(Unary::cos, x); }
Tensor square(const Tensor& x) { return unary(Unary::square, x); }

// y = x in another precision:   dx = dy in the precision of x.
Tensor cast(const Tensor& x, DType dtype) {
  CENTROID_CHECK(is_float(x.dtype()) && is_float(dtype), "cast: expected float dtypes, got ",
                 x.dtype(), " to ", dtype, " (raw::cast converts to and from integers)");
  return record("cast", raw::cast(x, dtype), {x},
                [from = x.dtype()](const Tensor& dy) -> Grads { return {raw::cast(dy, from)}; });
}

}  // namespace centroid
