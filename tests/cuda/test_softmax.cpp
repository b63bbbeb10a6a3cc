// Softmax and its relatives on the device, against the CPU.
#include <catch2/catch.hpp>
#include <limits>

#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Rows of every kernel: a warp with one vector, with four, a block in registers, and in tiles; with
// and without 16-byte accesses; more rows than groups in a block.
const std::vector<Shape> kShapes{{1},      {3, 1},    {7, 3},    {2, 5, 8}, {9, 127},  {9, 128},
                                 {5, 129}, {10, 512}, {3, 1025}, {2, 4096}, {2, 4100}, {1, 8193},
                                 {0, 5},   {4, 0},    {0},       {2, 0, 3}};

Tensor row_of(const std::vector<double>& values) {
  return from_vector(values, {1, static_cast<int64_t>(values.size())});
}

// A long row whose last element is `last`, everything before it `value`.
Tensor long_row(int64_t n, double value, double last) {
  std::vector<double> values(n, value);
  values.back() = last;
  return row_of(values);
}

}  // namespace

TEST_CASE("cuda: softmax and log_softmax, forward and backward, over rows of any length") {
  Rng rng(1);
  for (const Shape& shape : kShapes) {
    const Tensor x = randn(shape, rng, DType::f64, 4), dy = randn(shape, rng);
    INFO(shape);
    CHECK(disagreement(
              [](const Tensors& in) -> Tensors {
                const Tensor y = raw::softmax(in[0]), z = raw::log_softmax(in[0]);
                return {y, z};
              },
              {x}) == "");
    const Tensor y = raw::softmax(x), z = raw::log_softmax(x);
    CHECK(disagreement(
              [](const Tensors& in) -> Tensors {
                return {raw::softmax_backward(in[0], in[1], 0.25),
                        raw::log_softmax_backward(in[0], in[2])};
              },
              {dy, y, z}) == "");
  }
}

TEST_CASE("cuda: softmax of rows that do not begin at a multiple of 16 bytes") {
  Rng rng(2);
  for (int64_t n : {64, 640}) {
    const Tensor flat = randn({3 * n + 1}, rng);
    CHECK(disagreement(
              [n](const Tensors& in) -> Tensors {
                const Tensor x = raw::reshape(raw::slice(in[0], 0, 1, 3 * n + 1), {3, n});
                return {raw::softmax(x), raw::log_softmax(x), raw::softmax_backward(x, x, 1)};
              },
              {flat}) == "");
  }
}

TEST_CASE("cuda: softmax of large, masked, infinite and NaN rows") {
  Rng rng(4);
  const auto check = [&](const Tensor& x) {
    INFO(x.shape());
    CHECK(disagreement(
              [](const Tensors& in) -> Tensors {
                const Tensor y = raw::softmax(in[0]), z = raw::log_softmax(in[0]);
                return {y, z, raw::softmax_backward(in[1], y), raw::log_softmax_backward(in[1], z)};
              },
              {x, randn(x.shape(), rng)}) == "");
  };
  check(row_of({1e30, 1e30, -1e30}));
  check(row_of({-kInf, 3, -kInf}));
  check(row_of({-kInf, -kInf}));
  check(row_of({1, kNan, 2}));
  check(row_of({-kInf, kNan}));
  check(row_of({kInf, 1}));
  for (int64_t n : {200, 600, 4200}) {
    for (double value : {-kInf, 300.0}) {
      for (double last : {-kInf, 2.0, 1e4, kInf, kNan}) check(long_row(n, value, last));
    }
    check(from_vector(std::vector<double>(n, kNan), {1, n}));
  }
}

TEST_CASE("cuda: masked_softmax keeps valid keys only, zeros elsewhere") {
  Rng rng(3);
  const Lengths none, q({4, 0, 3}), k({5, 2, 0});
  struct Mask {
    Lengths queries, keys;
    bool causal;
  };
  for (const Shape& shape : {Shape{3, 2, 4, 5}, Shape{3, 1, 7, 8}, Shape{3, 1, 4, 700}}) {
    const Tensor x = randn(shape, rng, DType::f64, 3);
    for (const Mask& mask : {Mask{none, none, false}, Mask{none, none, true}, Mask{q, k, false},
                             Mask{none, k, true}, Mask{q, none, true}}) {
      for (double scale : {0.3, -2.0}) {
        CHECK(disagreement(
                  [&](const Tensors& in) -> Tensors {
                    return {
                        raw::masked_softmax(in[0], scale, mask.queries, mask.keys, mask.causal)};
                  },
                  {x}) == "");
      }
    }
  }
  // Several tiles, of which the valid keys fill less than one, and several.
  const Tensor wide = randn({2, 1, 1, 9000}, rng);
  CHECK(disagreement(
            [](const Tensors& in) -> Tensors {
              return {raw::masked_softmax(in[0], 2, {}, Lengths({10, 4500}), false)};
            },
            {wide}) == "");
}

TEST_CASE("cuda: masked_softmax does not look at masked entries, and scale may be 0 or negative") {
  std::vector<double> values(2 * 6, kNan);
  for (int i : {0, 1, 2, 6, 7, 8}) values[i] = 0.5 * i;
  const Tensor x = from_vector(values, {1, 1, 2, 6});
  for (const Lengths& keys : {Lengths({3}), Lengths({2}), Lengths({4})}) {  // 4: one NaN is seen
    CHECK(disagreement(
              [&](const Tensors& in) -> Tensors {
                return {raw::masked_softmax(in[0], 1, {}, keys, false),
                        raw::masked_softmax(in[0], 1, {}, keys, true)};
              },
              {x}) == "");
  }
  const Tensor infinite = from_vector<double>({kInf, kInf, -kInf, 1, kInf, 2}, {1, 1, 2, 3});
  for (double scale : {0.0, -1.0, 1.0}) {
    CHECK(disagreement(
              [&](const Tensors& in) -> Tensors {
                return {raw::masked_softmax(in[0], scale, {}, {}, false)};
              },
              {infinite}) == "");
  }
}
