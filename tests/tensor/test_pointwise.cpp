#include <catch2/catch.hpp>
#include <functional>
#include <limits>

#include "tensor/functors.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Contains;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Case {
  Unary op;
  std::function<double(double)> value;
  double low, high;  // where it is tested
  double a = 0, b = 0;
  double ulp = 2;  // allowed for f32
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {Unary::neg, [](double x) { return -x; }, -5, 5},
      {Unary::exp, [](double x) { return std::exp(x); }, -103, 88.7},
      {Unary::log, [](double x) { return std::log(x); }, 1e-3, 1e5},
      {Unary::sqrt, [](double x) { return std::sqrt(x); }, 0.01, 100},
      {Unary::rsqrt, [](double x) { return 1 / std::sqrt(x); }, 0.01, 100},
      {Unary::tanh, [](double x) { return std::tanh(x); }, -12, 12, 0, 0, 3},
      {Unary::sigmoid, sigmoid, -80, 40, 0, 0, 3},
      {Unary::relu, [](double x) { return x > 0 ? x : 0; }, -3, 3},
      {Unary::gelu, [](double x) { return x * 0.5 * std::erfc(-x / std::sqrt(2.0)); }, -1, 12, 0, 0,
       6},
      {Unary::elu, [](double x) { return x > 0 ? x : std::expm1(x); }, -30, 3},
      {Unary::silu, [](double x) { return x * sigmoid(x); }, -60, 30, 0, 0, 4},
      {Unary::softplus,
       [](double x) { return x > 30 ? x + std::exp(-x) : std::log1p(std::exp(x)); }, -80, 60, 0, 0,
       4},
      {Unary::abs, [](double x) { return std::fabs(x); }, -3, 3},
      {Unary::sin, [](double x) { return std::sin(x); }, -9, 9},
      {Unary::cos, [](double x) { return std::cos(x); }, -9, 9},
      {Unary::square, [](double x) { return x * x; }, -9, 9},
      {Unary::reciprocal, [](double x) { return 1 / x; }, 0.1, 9},
      {Unary::sign, [](double x) { return x > 0 ? 1.0 : -1.0; }, -3, 3},
      {Unary::floor, [](double x) { return std::floor(x); }, -3, 3},
      {Unary::add_scalar, [](double x) { return x + 1.5; }, -3, 3, 1.5},
      {Unary::mul_scalar, [](double x) { return x * -2.5; }, -3, 3, -2.5},
      {Unary::pow_scalar, [](double x) { return std::pow(x, 2.5); }, 0.1, 9, 2.5},
      {Unary::pow_scalar, [](double x) { return x * x; }, -9, 9, 2},
      {Unary::pow_scalar, [](double x) { return x * x * x; }, -9, 9, 3},
      {Unary::clamp, [](double x) { return std::min(std::max(x, -1.0), 0.5); }, -3, 3, -1, 0.5}};
  return all;
}

// n points that avoid 0 and the kinks at -1 and 0.5, so that differences can be taken.
std::vector<double> points(const Case& c, int n) {
  std::vector<double> x(n);
  for (int i = 0; i < n; ++i) {
    x[i] = static_cast<float>(c.low + (c.high - c.low) * (i + 0.37) / n);
    for (double kink : {-3.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0}) {
      if (std::fabs(x[i] - kink) < 1e-3) x[i] = kink + 0.01171875;
    }
  }
  return x;
}

double ulp(double x) {
  const float f = std::fabs(static_cast<float>(x));
  return std::nextafter(f, INFINITY) - static_cast<double>(f);
}

Tensor one(double x) { return from_vector<float>({static_cast<float>(x)}, {1}); }

}  // namespace

TEST_CASE("unary functions agree with the standard library, f32 within their error bounds") {
  for (const Case& c : cases()) {
    INFO(to_string(c.op) << " " << c.a);
    const std::vector<double> x = points(c, 4099);
    const Tensor exact = from_vector(x, {4099});
    const auto y64 = raw::unary(c.op, exact, c.a, c.b).to_vector<double>();
    const auto y32 = raw::unary(c.op, raw::cast(exact, DType::f32), c.a, c.b).to_vector<float>();
    double worst = 0, worst64 = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = c.value(x[i]);
      worst64 = std::max(worst64, std::fabs(y64[i] - expected) / (1e-300 + std::fabs(expected)));
      worst = std::max(worst, std::fabs(y32[i] - expected) / ulp(expected));
    }
    CHECK(worst64 < 1e-12);
    CHECK(worst < c.ulp);
  }
}

TEST_CASE("derivatives agree with central differences") {
  for (const Case& c : cases()) {
    INFO(to_string(c.op) << " " << c.a);
    const std::vector<double> x = points(c, 301);
    const Tensor t = from_vector(x, {301});
    const Tensor dy = full({301}, 1.5, DType::f64);
    const auto dx = raw::unary_backward(c.op, t, dy, c.a, c.b).to_vector<double>();
    const auto dx32 = doubles(
        raw::unary_backward(c.op, raw::cast(t, DType::f32), raw::cast(dy, DType::f32), c.a, c.b));
    double worst = 0, worst32 = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double h = 1e-6 * std::max(1.0, std::fabs(x[i]));
      const double slope = (c.value(x[i] + h) - c.value(x[i] - h)) / (2 * h);
      const double scale = std::fabs(c.value(x[i])) / h * 1e-15 + 1e-6 * std::fabs(slope) + 1e-9;
      worst = std::max(worst, std::fabs(dx[i] - 1.5 * slope) / (2 * scale));
      worst32 = std::max(worst32, std::fabs(dx32[i] - dx[i]) / (1e-6 + 1e-5 * std::fabs(dx[i])));
    }
    CHECK(worst < 10);
    CHECK(worst32 < 1);
  }
}

TEST_CASE("f32 functions at the ends of the range") {
  const auto at = [](Unary op, double x, double a = 0) { return raw::unary(op, one(x), a).item(); };
  CHECK(at(Unary::exp, 0) == 1);
  CHECK(at(Unary::exp, -kInf) == 0);
  CHECK(at(Unary::exp, kInf) == kInf);
  CHECK(at(Unary::exp, 89) == kInf);
  CHECK(at(Unary::exp, 88.72) < kInf);
  CHECK(at(Unary::exp, -103.9) == std::numeric_limits<float>::denorm_min());
  CHECK(at(Unary::exp, -104) == 0);
  CHECK(at(Unary::exp, -90) == Approx(std::exp(-90.0)).epsilon(1e-4));  // subnormal
  CHECK(at(Unary::log, 0) == -kInf);
  CHECK(at(Unary::log, 1) == 0);
  CHECK(at(Unary::log, kInf) == kInf);
  CHECK(std::isnan(at(Unary::log, -1)));
  CHECK(at(Unary::log, 1e-40) == Approx(-92.1034).epsilon(1e-6));
  CHECK(at(Unary::tanh, kInf) == 1);
  CHECK(at(Unary::tanh, -kInf) == -1);
  CHECK(std::signbit(at(Unary::tanh, -0.0)));
  CHECK(at(Unary::sigmoid, -kInf) == 0);
  CHECK(at(Unary::sigmoid, kInf) == 1);
  CHECK(at(Unary::softplus, kInf) == kInf);
  CHECK(at(Unary::softplus, -kInf) == 0);
  CHECK(at(Unary::gelu, kInf) == kInf);
  CHECK(at(Unary::gelu, -30) == 0);
  CHECK(at(Unary::elu, -kInf) == -1);
  CHECK(std::signbit(at(Unary::neg, 0)));
  for (const Case& c : cases()) {
    INFO(to_string(c.op));
    CHECK(std::isnan(at(c.op, NAN, c.a)));
  }
}

TEST_CASE("derivatives where there is a kink, by convention") {
  const auto slope = [](Unary op, double x, double a = 0, double b = 0) {
    return raw::unary_backward(op, one(x), one(1), a, b).item();
  };
  CHECK(slope(Unary::relu, 0) == 0);
  CHECK(slope(Unary::abs, 0) == 0);
  CHECK(slope(Unary::clamp, -1, -1, 2) == 1);
  CHECK(slope(Unary::clamp, 2, -1, 2) == 1);
  CHECK(slope(Unary::clamp, 2.5, -1, 2) == 0);
  CHECK(slope(Unary::sign, 3) == 0);
  CHECK(slope(Unary::floor, 3.5) == 0);
  CHECK(slope(Unary::pow_scalar, 0, 0) == 0);
  CHECK(slope(Unary::pow_scalar, 0, 1) == 1);
  CHECK(slope(Unary::gelu, kInf) == 1);
  CHECK(slope(Unary::gelu, -kInf) == 0);
  CHECK_THAT(error_of([] { raw::unary_backward(Unary::isnan, one(1), one(1)); }),
             Contains("isnan: has no derivative"));
  CHECK_THAT(error_of([] { raw::unary_backward(Unary::exp, one(1), zeros({2})); }),
             Contains("exp: dy: expected shape (1,), got (2,)"));
}

TEST_CASE("integers: unary operations that have a meaning, others refused") {
  const Tensor x = from_vector<int32_t>({-3, 0, 5, INT32_MIN}, {4});
  const double min = INT32_MIN;
  CHECK(mismatch(raw::neg(x), {3, 0, -5, min}) == "");
  CHECK(mismatch(raw::abs(x), {3, 0, 5, min}) == "");
  CHECK(mismatch(raw::relu(x), {0, 0, 5, 0}) == "");
  CHECK(mismatch(raw::unary(Unary::sign, x), {-1, 0, 1, -1}) == "");
  CHECK(mismatch(raw::unary(Unary::floor, x), {-3, 0, 5, min}) == "");
  CHECK(mismatch(raw::unary(Unary::isnan, x), {0, 0, 0, 0}) == "");
  CHECK(mismatch(raw::add(x, 2), {-1, 2, 7, min + 2}) == "");
  CHECK(mismatch(raw::mul(x, -2), {6, 0, -10, 0}) == "");
  CHECK(mismatch(raw::pow(x, 3), {-27, 0, 125, 0}) == "");
  CHECK(mismatch(raw::clamp(x, -kInf, 2), {-3, 0, 2, min}) == "");
  CHECK(mismatch(raw::clamp(x, -1, kInf), {-1, 0, 5, -1}) == "");
  const Tensor bytes = from_vector<uint8_t>({0, 7, 255}, {3});
  CHECK(mismatch(raw::add(bytes, 3), {3, 10, 2}) == "");
  CHECK(mismatch(raw::unary(Unary::sign, bytes), {0, 1, 1}) == "");
  CHECK(error_of([&] { raw::exp(x); }) ==
        "exp: x: expected f32 or f64, got i32 (raw::cast converts)");
  CHECK_THAT(error_of([&] { raw::add(x, 0.5); }), Contains("add_scalar: 0.5 is not a value"));
  CHECK_THAT(error_of([&] { raw::mul(bytes, -1); }), Contains("mul_scalar: -1 is not a value"));
  CHECK_THAT(error_of([&] { raw::add(x, 1e10); }), Contains("dtype i32"));
  CHECK_THAT(error_of([&] { raw::pow(x, -1); }), Contains("negative exponent"));
  CHECK_THAT(error_of([&] { raw::clamp(x, 2, 1); }), Contains("clamp: expected low <= high"));
  CHECK_THAT(error_of([&] { raw::clamp(one(1), 0, NAN); }), Contains("clamp"));
  CHECK_THAT(error_of([&] { raw::relu(raw::cast(x, DType::bf16)); }), Contains("got bf16"));
}

TEST_CASE("isnan marks NaN only") {
  const Tensor x = from_vector<float>({1, NAN, INFINITY, -0.0f}, {4});
  const Tensor y = raw::unary(Unary::isnan, x);
  CHECK(y.dtype() == DType::u8);
  CHECK(mismatch(y, {0, 1, 0, 0}) == "");
}

TEST_CASE("binary operations broadcast any pair of layouts") {
  Rng rng(1);
  const std::pair<Shape, Shape> pairs[] = {{{}, {}},
                                           {{7}, {}},
                                           {{}, {3, 5}},
                                           {{4, 300}, {300}},
                                           {{4, 300}, {4, 1}},
                                           {{300, 4}, {4}},
                                           {{1, 5}, {7, 1}},
                                           {{2, 3, 130}, {2, 1, 130}},
                                           {{0, 3}, {3}},
                                           {{1}, {0}},
                                           {{2, 1, 3, 1, 2}, {4, 1, 5, 1}},
                                           {{3, 2000}, {1}},
                                           {{6, 7}, {6, 7}},
                                           {{2, 3, 4, 5, 2, 3}, {4, 1, 2, 1}}};
  for (const auto& [sa, sb] : pairs) {
    for (bool turn : {false, true}) {
      const Tensor a = turn ? strided(randn(sa, rng)) : randn(sa, rng);
      const Tensor b = turn ? strided(randn(sb, rng)) : randn(sb, rng);
      INFO(sa << " " << sb << " strided " << turn);
      const Tensor y = raw::binary(Binary::sub, a, b);
      const Shape shape = broadcast_shapes(sa, sb, "test");
      REQUIRE(y.shape() == shape);
      // The same by index arithmetic on the host.
      const auto va = doubles(a), vb = doubles(b), vy = doubles(y);
      const auto position = [&](int64_t i, const Shape& s) {
        int64_t at = 0, step = 1;
        for (int d = 1; d <= shape.size(); ++d) {
          const int64_t k = i % shape[-d];
          i /= shape[-d];
          if (d <= s.size()) at += (s[-d] == 1 ? 0 : k) * step, step *= s[-d];
        }
        return at;
      };
      int wrong = 0;
      for (int64_t i = 0; i < y.numel(); ++i) {
        wrong += vy[i] != va[position(i, sa)] - vb[position(i, sb)];
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("binary operations compute what they are called") {
  const Tensor a = from_vector<float>({1, -2, 9, NAN, 4}, {5});
  const Tensor b = from_vector<float>({4, 0.5f, 9, 1, NAN}, {5});
  CHECK(mismatch(raw::add(a, b), {5, -1.5, 18, NAN, NAN}) == "");
  CHECK(mismatch(raw::sub(a, b), {-3, -2.5, 0, NAN, NAN}) == "");
  CHECK(mismatch(raw::mul(a, b), {4, -1, 81, NAN, NAN}) == "");
  CHECK(mismatch(raw::div(a, b), {0.25, -4, 1, NAN, NAN}) == "");
  CHECK(mismatch(raw::pow(raw::abs(a), b), {1, std::sqrt(2.0), 387420489.0, NAN, NAN}, 1e-6) == "");
  CHECK(mismatch(raw::minimum(a, b), {1, -2, 9, NAN, NAN}) == "");
  CHECK(mismatch(raw::maximum(a, b), {4, 0.5, 9, NAN, NAN}) == "");
}

TEST_CASE("integer arithmetic wraps and never crashes") {
  const Tensor a = from_vector<int64_t>({INT64_MIN, INT64_MAX, -7, 7}, {4});
  const Tensor b = from_vector<int64_t>({-1, 1, 2, -2}, {4});
  CHECK(raw::div(a, b).to_vector<int64_t>() == std::vector<int64_t>{INT64_MIN, INT64_MAX, -3, -3});
  CHECK(raw::add(a, b).to_vector<int64_t>() == std::vector<int64_t>{INT64_MAX, INT64_MIN, -5, 5});
  CHECK(raw::mul(a, b).to_vector<int64_t>() ==
        std::vector<int64_t>{INT64_MIN, INT64_MAX, -14, -14});
  const Tensor min = full({1}, INT32_MIN, DType::i32), minus = full({1}, -1, DType::i32);
  CHECK(raw::div(min, minus).item() == INT32_MIN);
  CHECK(mismatch(raw::pow(full({3}, 2, DType::i64), arange(3)), {1, 2, 4}) == "");
  for (DType dtype : {DType::i64, DType::i32, DType::u8}) {
    const Tensor x = ones({3}, dtype), zero = from_vector<double>({1, 0, 2}, {3});
    CHECK(error_of([&] { raw::div(x, raw::cast(zero, dtype)); }) ==
          concat("div: integer division by zero: b is ", dtype, " and contains 0"));
    CHECK(raw::div(zeros({0}, dtype), zeros({0}, dtype)).numel() == 0);
  }
  CHECK_THAT(error_of([&] { raw::pow(a, b); }), Contains("pow: negative exponent for integers"));
  CHECK(raw::div(one(1), one(0)).item() == kInf);
}

TEST_CASE("binary operations name what does not match") {
  CHECK(error_of([] { raw::add(zeros({2}), zeros({2}, DType::i64)); }) ==
        "add: dtypes differ: a is f32, b is i64 (raw::cast converts)");
  CHECK_THAT(error_of([] {
               raw::mul(zeros({2, 3}), zeros({2}));
             }),
             Contains("mul: shapes do not broadcast: a is (2, 3), b is (2,)"));
  CHECK_THAT(error_of([] { raw::add(zeros({2}, DType::bf16), zeros({2}, DType::bf16)); }),
             Contains("add: dtype: expected f64, f32, i64, i32 or u8, got bf16"));
  CHECK(error_of([] { raw::add(zeros({2}), Tensor()); }) ==
        "tensor: used before it was given a value");
}

TEST_CASE("comparisons give bytes, false for NaN except ne") {
  const Tensor a = from_vector<float>({1, 2, 3, NAN}, {4});
  const Tensor b = from_vector<float>({2, 2, 2, NAN}, {4});
  const std::pair<Compare, std::vector<double>> expected[] = {
      {Compare::eq, {0, 1, 0, 0}}, {Compare::ne, {1, 0, 1, 1}}, {Compare::lt, {1, 0, 0, 0}},
      {Compare::le, {1, 1, 0, 0}}, {Compare::gt, {0, 0, 1, 0}}, {Compare::ge, {0, 1, 1, 0}}};
  for (const auto& [op, values] : expected) {
    INFO(to_string(op));
    CHECK(raw::compare(op, a, b).dtype() == DType::u8);
    CHECK(mismatch(raw::compare(op, a, b), values) == "");
    CHECK(mismatch(raw::compare(op, a, 2.0), values) == "");
  }
  CHECK(mismatch(raw::compare(Compare::lt, arange(3), 1), {1, 0, 0}) == "");
  CHECK_THAT(error_of([] { raw::compare(Compare::lt, arange(3), 0.5); }),
             Contains("lt: 0.5 is not a value of the tensor's dtype i64"));
  CHECK(raw::compare(Compare::eq, raw::reshape(arange(3), {3, 1}), arange(4)).shape() ==
        Shape{3, 4});
}

TEST_CASE("where picks and broadcasts, for every dtype") {
  const Tensor condition = from_vector<uint8_t>({1, 0, 2}, {3});
  for (DType dtype : {DType::f64, DType::f32, DType::i64, DType::i32, DType::u8}) {
    const Tensor a = raw::cast(raw::reshape(arange(2), {2, 1}), dtype), b = full({}, 9, dtype);
    CHECK(mismatch(raw::where(condition, a, b), {0, 9, 0, 1, 9, 1}) == "");
  }
  const Tensor half = full({1}, 2, DType::bf16);
  CHECK(raw::where(condition, half, half).to_vector<Bf16>()[1].bits == 0x4000);
  CHECK(error_of([&] { raw::where(zeros({3}), zeros({3}), zeros({3})); }) ==
        "where: condition: expected u8, got f32 (raw::compare makes one)");
  CHECK_THAT(error_of([&] { raw::where(condition, zeros({2}), zeros({2})); }),
             Contains("where: shapes do not broadcast"));
}

TEST_CASE("outputs that bypass the caches are complete and equal small ones", "[slow]") {
  const int64_t rows = 5003, n = 1001;  // rows that share cache lines; 20 MB
  Rng rng(3);
  const Tensor a = raw::normal({rows, n}, rng), row = raw::normal({n}, rng);
  const Tensor column = raw::normal({rows, 1}, rng);
  const auto part = [&](const Tensor& x) { return raw::slice(x, 0, rows - 40, rows); };
  CHECK(same_bits(part(raw::add(a, row)), raw::add(part(a), row)));
  CHECK(same_bits(part(raw::mul(a, column)), raw::mul(part(a), part(column))));
  CHECK(same_bits(part(raw::add(a, a)), raw::add(part(a), part(a))));
  CHECK(same_bits(part(raw::relu(a)), raw::relu(part(a))));
  const Tensor turned = raw::transpose(raw::clone(raw::transpose(a, 0, 1)), 0, 1);
  CHECK(same_bits(raw::exp(turned), raw::exp(a)));
  const Tensor total = raw::sub(raw::sub(raw::add(a, row), a), raw::expand(row, {rows, n}));
  CHECK(raw::max(raw::abs(total)).item() < 2e-6);
  const Tensor y = raw::clone(a);
  raw::add_(y, row, -1);
  CHECK(mismatch(raw::select(y, 0, rows - 1), raw::sub(raw::select(a, 0, rows - 1), row), 0,
                 1e-6) == "");
}
