// Reductions and running sums against the CPU, in the layout (A, n, C) of the kernels.
#include <catch2/catch.hpp>
#include <limits>

#include "tensor/kernels.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

const DType kIntegers[] = {DType::i64, DType::i32, DType::u8};
const Reduce kReductions[] = {Reduce::sum, Reduce::max, Reduce::min};

// Rows and columns of one piece and of several, of a few lanes and of all, around every boundary.
const Shape kShapes[] = {{1, 1, 1},    {3, 7, 1},   {5, 8, 1},    {40, 9, 1},    {7, 33, 1},
                         {4, 256, 1},  {3, 257, 1}, {2, 2048, 1}, {2, 2049, 1},  {1, 7000, 1},
                         {300, 20, 1}, {2, 3, 2},   {3, 64, 5},   {3, 65, 5},    {2, 130, 33},
                         {1, 500, 40}, {5, 1, 7},   {1, 4200, 2}, {17, 13, 100}, {0, 3, 2},
                         {2, 5, 0},    {2, 0, 3}};

Tensor results_of(const Shape& x, DType dtype, Device device) {
  return empty({x[0], x[2]}, dtype, device);
}

Tensor reduced(Reduce op, const Tensor& x) {
  const Tensor y = results_of(x.shape(), x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), reduce, op, x, y);
  return y;
}

Tensor extreme_index(Reduce op, const Tensor& x) {
  const Tensor y = results_of(x.shape(), DType::i64, x.device());
  CENTROID_DISPATCH(x.device(), argreduce, op, x, y);
  return y;
}

Tensor running_sums(const Tensor& x) {
  const Tensor y = empty(x.shape(), x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), cumsum, x, y);
  return y;
}

bool same(const Tensor& device, const Tensor& host) {
  return same_bits(raw::to(device, Device{}), host);
}

// Few different values: ties.
Tensor integers(const Shape& shape, Rng& rng, DType dtype) {
  return raw::cast(raw::add(randint(shape, 7, rng), dtype == DType::u8 ? 40 : -3), dtype);
}

// A NaN here and there, in some columns several, in others none.
Tensor with_nans(const Tensor& x, Rng& rng) {
  std::vector<double> values = x.to_vector<double>();
  for (double& v : values) v = rng.bernoulli(0.02) ? NAN : v;
  return from_vector(values, x.shape(), Device{});
}

}  // namespace

TEST_CASE("cuda reduce: floats") {
  Rng rng(1);
  for (const Shape& shape : kShapes) {
    CAPTURE(shape);
    const auto f = [](const Tensors& x) {
      Tensors ys;
      for (const Reduce op : kReductions) ys.push_back(reduced(op, x[0]));
      return ys;
    };
    CHECK(disagreement(f, {randn(shape, rng)}) == "");
    if (numel(shape) > 0) CHECK(disagreement(f, {with_nans(randn(shape, rng), rng)}) == "");
  }
}

TEST_CASE("cuda reduce: integers, which wrap") {
  Rng rng(2);
  for (const DType dtype : kIntegers) {
    for (const Shape& shape : kShapes) {
      CAPTURE(dtype, shape);
      const Tensor x = integers(shape, rng, dtype), device_x = raw::to(x, kCuda);
      for (const Reduce op : kReductions) CHECK(same(reduced(op, device_x), reduced(op, x)));
    }
  }
  const Tensor large = full({1, 5000, 1}, 2e9, DType::i32, Device{});
  CHECK(same(reduced(Reduce::sum, raw::to(large, kCuda)), reduced(Reduce::sum, large)));
}

TEST_CASE("cuda reduce: enough columns for long chunks") {
  Rng rng(3);
  const auto f = [](const Tensors& x) { return Tensors{reduced(Reduce::sum, x[0])}; };
  CHECK(disagreement(f, {randn({1, 3, 66000}, rng)}) == "");
}

TEST_CASE("cuda reduce: infinities") {
  const double inf = INFINITY;
  const Tensor x =
      from_vector(std::vector<double>{inf, 1, 2, -inf, -inf, -inf, inf, -inf, 0, -inf, 5, 3},
                  {4, 3, 1}, Device{});
  for (const Reduce op : kReductions) {
    const auto f = [&](const Tensors& in) { return Tensors{reduced(op, in[0])}; };
    CHECK(disagreement(f, {x}) == "");
  }
}

TEST_CASE("cuda argreduce: ties, NaN, every type") {
  Rng rng(4);
  for (const Shape& shape : kShapes) {
    if (shape[1] == 0) continue;
    CAPTURE(shape);
    const auto f = [](const Tensors& x) {
      return Tensors{extreme_index(Reduce::max, x[0]), extreme_index(Reduce::min, x[0])};
    };
    CHECK(disagreement(f, {randn(shape, rng)}) == "");
    if (numel(shape) == 0) continue;
    CHECK(disagreement(f, {with_nans(randn(shape, rng), rng)}) == "");
    CHECK(disagreement(f, {full(shape, -INFINITY, DType::f64, Device{})}) == "");
    for (const DType dtype : kIntegers) CHECK(disagreement(f, {integers(shape, rng, dtype)}) == "");
  }
  const Tensor least = full({2, 300, 1}, -INFINITY, DType::i64, Device{});
  CHECK(
      same(extreme_index(Reduce::max, raw::to(least, kCuda)), zeros({2, 1}, DType::i64, Device{})));
}

TEST_CASE("cuda logsumexp: rows short and long, infinities, NaN") {
  Rng rng(5);
  const auto f = [](const Tensors& x) { return Tensors{raw::logsumexp(x[0], {-1})}; };
  for (const Shape& shape :
       {Shape{1, 1}, Shape{50, 5}, Shape{9, 100}, Shape{3, 2048}, Shape{2, 5000}, Shape{1, 0}}) {
    CAPTURE(shape);
    CHECK(disagreement(f, {raw::mul(randn(shape, rng), 10)}) == "");
  }
  std::vector<double> values(6 * 3000, -INFINITY);
  values[2 * 3000 - 1] = 3;         // row 1: one finite number
  values[2 * 3000 + 7] = INFINITY;  // row 2
  values[3 * 3000 + 2900] = NAN;    // row 3
  values[4 * 3000] = NAN, values[4 * 3000 + 2999] = INFINITY;
  for (int i = 0; i < 3000; ++i) values[5 * 3000 + i] = -1e4 + i % 7;
  CHECK(disagreement(f, {from_vector(values, {6, 3000}, Device{})}) == "");
}

TEST_CASE("cuda cumsum: floats and integers") {
  Rng rng(6);
  for (const Shape& shape : kShapes) {
    CAPTURE(shape);
    const auto f = [](const Tensors& x) { return Tensors{running_sums(x[0])}; };
    CHECK(disagreement(f, {randn(shape, rng)}) == "");
    for (const DType dtype : kIntegers) CHECK(disagreement(f, {integers(shape, rng, dtype)}) == "");
  }
}

TEST_CASE("cuda reductions through the operations, also of strided tensors") {
  Rng rng(7);
  const auto f = [](const Tensors& x) {
    return Tensors{raw::sum(x[0]),
                   raw::sum(x[0], {0, 2}),
                   raw::mean(x[0], {1}, true),
                   raw::max(x[0], {2}),
                   raw::min(x[0], {0, 1}),
                   raw::var(x[0], {1, 2}),
                   raw::argmax(x[0], 1),
                   raw::argmin(x[0], -1),
                   raw::cumsum(x[0], 1),
                   raw::sum_to(x[0], {1, 9}),
                   raw::logsumexp(x[0], {0, 2})};
  };
  CHECK(disagreement(f, {randn({6, 40, 9}, rng)}) == "");
  CHECK(disagreement(f, {strided(randn({12, 33, 9}, rng))}) == "");
}
