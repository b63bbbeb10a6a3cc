// Elementwise arithmetic against the CPU.
#include <catch2/catch.hpp>
#include <limits>

#include "tensor/functors.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

constexpr int kUnaries = static_cast<int>(Unary::clamp) + 1;
const DType kIntegers[] = {DType::i64, DType::i32, DType::u8};

bool positive_only(Unary op) {
  return op == Unary::log || op == Unary::sqrt || op == Unary::rsqrt || op == Unary::pow_scalar;
}

// 0, NaN, infinities and numbers beyond what functions can represent.
Tensor special_values() {
  const std::vector<double> values = {0,     -0.0,  1,     -1,       0.5,       -0.5, 3,   -3,
                                      20,    -20,   88,    -88,      89,        -90,  104, -104,
                                      200,   -200,  1e-3,  -1e-3,    1e5,       -1e5, 1e9, 1e30,
                                      -1e30, 1e-30, 1e-40, INFINITY, -INFINITY, NAN};
  return from_vector(values, {static_cast<int64_t>(values.size())}, Device{});
}

// Relative error per element, because magnitudes differ; infinities and NaN have to agree.
std::string relative_mismatch(const Tensor& device, const Tensor& host) {
  return mismatch(raw::to(device, Device{}), host, host.dtype() == DType::f32 ? 2e-6 : 1e-12,
                  1e-44);
}

Tensor integers(const Shape& shape, Rng& rng, DType dtype, int64_t below = 40) {
  const Tensor x = randint(shape, below, rng);
  return raw::cast(dtype == DType::u8 ? x : raw::add(x, -static_cast<double>(below / 2)), dtype);
}

}  // namespace

TEST_CASE("cuda unary: every function, contiguous and strided") {
  Rng rng(1);
  for (int i = 0; i < kUnaries; ++i) {
    const Unary op = static_cast<Unary>(i);
    CAPTURE(to_string(op));
    const double low = positive_only(op) ? 0.1 : -3;
    const auto f = [&](const Tensors& x) {
      return Tensors{raw::unary(op, x[0], 0.7, 2), raw::unary(op, x[1], 0.7, 2),
                     raw::unary(op, raw::slice(x[0], 0, 1, 4099, 3), 0.7, 2)};
    };
    const Tensor x = randu({4099}, rng, low, 3), turned = randu({13, 9}, rng, low, 3);
    CHECK(disagreement(f, {x, strided(turned)}) == "");
  }
  CHECK(disagreement([](const Tensors& x) { return Tensors{raw::exp(x[0])}; },
                     {zeros({0, 3}, DType::f64, Device{})}) == "");
}

TEST_CASE("cuda unary: special values") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = raw::cast(special_values(), dtype);
    for (int i = 0; i < kUnaries; ++i) {
      const Unary op = static_cast<Unary>(i);
      CAPTURE(to_string(op), dtype);
      const Tensor host = raw::unary(op, x, 2.5, 7);
      CHECK(relative_mismatch(raw::unary(op, raw::to(x, kCuda), 2.5, 7), host) == "");
    }
  }
}

TEST_CASE("cuda unary: integers") {
  Rng rng(2);
  for (const DType dtype : kIntegers) {
    const Tensor x = integers({1030}, rng, dtype), device_x = raw::to(x, kCuda);
    for (int i = 0; i < kUnaries; ++i) {
      const Unary op = static_cast<Unary>(i);
      if (!has_integer_form(op)) continue;
      CAPTURE(to_string(op), dtype);
      const double a = 3, b = 11;
      CHECK(same_bits(raw::to(raw::unary(op, device_x, a, b), Device{}), raw::unary(op, x, a, b)));
      CHECK(same_bits(raw::to(raw::unary(op, raw::slice(device_x, 0, 1, 900, 2), a, b), Device{}),
                      raw::unary(op, raw::slice(x, 0, 1, 900, 2), a, b)));
    }
  }
}

TEST_CASE("cuda unary_backward: every function") {
  Rng rng(3);
  for (int i = 0; i < kUnaries; ++i) {
    const Unary op = static_cast<Unary>(i);
    if (op == Unary::isnan) continue;
    CAPTURE(to_string(op));
    const double low = positive_only(op) || op == Unary::reciprocal ? 0.1 : -3;
    for (const double a : {0.7, 2.0}) {
      const auto f = [&](const Tensors& x) {
        return Tensors{raw::unary_backward(op, x[0], x[1], a, 2)};
      };
      CHECK(disagreement(f, {randu({1031}, rng, low, 3), randn({1031}, rng)}) == "");
    }
  }
}

TEST_CASE("cuda unary_backward: special values") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = raw::cast(special_values(), dtype), dy = full(x.shape(), 1.5, dtype, Device{});
    for (int i = 0; i < kUnaries; ++i) {
      const Unary op = static_cast<Unary>(i);
      // Trigonometric functions of huge numbers follow the library's reduction of the argument.
      if (op == Unary::isnan) continue;
      CAPTURE(to_string(op), dtype);
      const Tensor dx = raw::unary_backward(op, raw::to(x, kCuda), raw::to(dy, kCuda), 2.5, 7);
      CHECK(relative_mismatch(dx, raw::unary_backward(op, x, dy, 2.5, 7)) == "");
    }
  }
}

TEST_CASE("cuda binary: every operation and broadcast") {
  Rng rng(4);
  const std::pair<Shape, Shape> shapes[] = {{{1027}, {1027}},
                                            {{33, 12}, {12}},
                                            {{33, 13}, {13}},
                                            {{33, 12}, {33, 1}},
                                            {{17, 1}, {1, 19}},
                                            {{40, 33}, {}},
                                            {{2, 3, 1, 8}, {3, 5, 1}},
                                            {{2, 1, 3, 1, 2, 5}, {1, 4, 1, 2, 1, 5}},
                                            {{1}, {1}},
                                            {{0, 4}, {4}}};
  for (const Binary op : {Binary::add, Binary::sub, Binary::mul, Binary::div, Binary::pow,
                          Binary::min, Binary::max}) {
    for (const auto& [shape_a, shape_b] : shapes) {
      CAPTURE(to_string(op), shape_a, shape_b);
      const auto f = [&](const Tensors& x) {
        return Tensors{raw::binary(op, x[0], x[1]), raw::binary(op, x[1], x[0])};
      };
      CHECK(disagreement(f, {randu(shape_a, rng, 0.2, 3), randu(shape_b, rng, 0.2, 3)}) == "");
      for (const DType dtype : kIntegers) {
        const Tensor a = integers(shape_a, rng, dtype);
        const Tensor b = raw::add(raw::abs(integers(shape_b, rng, dtype, 10)), 1);
        const Tensor y = raw::binary(op, raw::to(a, kCuda), raw::to(b, kCuda));
        CHECK(same_bits(raw::to(y, Device{}), raw::binary(op, a, b)));
      }
    }
  }
}

TEST_CASE("cuda binary: strided inputs, several blocks, in place") {
  Rng rng(5);
  const auto f = [](const Tensors& x) {
    const Tensor y = raw::clone(x[0]);
    raw::add_(y, x[1]);
    return Tensors{raw::sub(x[0], x[1]), raw::mul(raw::slice(x[0], 1, 1, 30, 2), 3), y};
  };
  CHECK(disagreement(f, {strided(randn({300, 64}, rng)), randn({300, 64}, rng)}) == "");
  CHECK(disagreement(f, {strided(randn({33, 65}, rng)), randn({33, 65}, rng)}) == "");
}

TEST_CASE("cuda binary: NaN, infinities and the ends of integer ranges") {
  const Tensor x = special_values();
  const int64_t n = x.numel();
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor a = raw::reshape(raw::cast(x, dtype), {n, 1}), b = raw::reshape(a, {1, n});
    for (const Binary op : {Binary::add, Binary::sub, Binary::mul, Binary::div, Binary::pow,
                            Binary::min, Binary::max}) {
      CAPTURE(to_string(op), dtype);
      const Tensor y = raw::binary(op, raw::to(a, kCuda), raw::to(b, kCuda));
      CHECK(relative_mismatch(y, raw::binary(op, a, b)) == "");
    }
  }
  const int64_t least = std::numeric_limits<int64_t>::min();
  const Tensor a = from_vector(std::vector<int64_t>{least, least, ~least, 7}, {4}, Device{});
  const Tensor b = from_vector(std::vector<int64_t>{-1, 1, ~least, -2}, {4}, Device{});
  for (const Binary op : {Binary::add, Binary::sub, Binary::mul, Binary::div}) {
    const Tensor y = raw::binary(op, raw::to(a, kCuda), raw::to(b, kCuda));
    CHECK(same_bits(raw::to(y, Device{}), raw::binary(op, a, b)));
  }
}

TEST_CASE("cuda compare: every comparison, type and broadcast, NaN") {
  Rng rng(6);
  for (const Compare op :
       {Compare::eq, Compare::ne, Compare::lt, Compare::le, Compare::gt, Compare::ge}) {
    const auto f = [&](const Tensors& x) {
      return Tensors{raw::compare(op, x[0], x[1]), raw::compare(op, x[1], x[0]),
                     raw::compare(op, x[0], 0.0), raw::compare(op, raw::slice(x[1], 0, 3, 9), 1.0)};
    };
    CAPTURE(to_string(op));
    const Tensor rows = raw::cat({special_values(), special_values()}, 0);
    const Tensor column = raw::reshape(special_values(), {30, 1});
    CHECK(disagreement(f, {rows, column}) == "");
    for (const DType dtype : kIntegers) {
      CHECK(disagreement(
                f, {integers({20, 33}, rng, dtype, 6), integers({20, 1}, rng, dtype, 6)}) == "");
    }
  }
}

TEST_CASE("cuda where: every width, broadcast and strided") {
  Rng rng(7);
  const auto f = [](const Tensors& x) { return Tensors{raw::where(x[0], x[1], x[2])}; };
  for (const DType dtype : {DType::f64, DType::i64, DType::i32, DType::u8}) {
    const auto values = [&](const Shape& shape) {
      return dtype == DType::f64 ? randn(shape, rng) : integers(shape, rng, dtype);
    };
    const auto mask = [&](const Shape& shape) {
      return raw::cast(randint(shape, 2, rng), DType::u8);
    };
    CHECK(disagreement(f, {mask({50, 64}), values({50, 64}), values({50, 64})}) == "");
    CHECK(disagreement(f, {mask({50, 1}), values({50, 12}), values({})}) == "");
    CHECK(disagreement(f, {mask({11}), values({1}), values({7, 11})}) == "");
    CHECK(disagreement(f, {strided(mask({9, 11})), strided(values({9, 11})), values({9, 11})}) ==
          "");
  }
  const Tensor mask = raw::cast(randint({40}, 2, rng), DType::u8);
  const Tensor a = raw::cast(randn({40}, rng), DType::bf16),
               b = raw::cast(randn({40}, rng), DType::bf16);
  const Tensor y = raw::where(raw::to(mask, kCuda), raw::to(a, kCuda), raw::to(b, kCuda));
  CHECK(same_bits(raw::to(y, Device{}), raw::where(mask, a, b)));
}

TEST_CASE("cuda axpy: contiguous, broadcast, strided") {
  Rng rng(8);
  const auto f = [](const Tensors& x) {
    const Tensor y = raw::clone(x[0]);
    CENTROID_DISPATCH(y.device(), axpy, -0.37, raw::expand(x[1], y.shape()), y);
    return Tensors{y};
  };
  CHECK(disagreement(f, {randn({2051}, rng), randn({2051}, rng)}) == "");
  CHECK(disagreement(f, {randn({30, 20}, rng), randn({20}, rng)}) == "");
  CHECK(disagreement(f, {randn({30, 20}, rng), strided(randn({30, 20}, rng))}) == "");
}
