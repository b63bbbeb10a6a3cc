#include <catch2/catch.hpp>
#include <limits>
#include <vector>

#include "tensor/ops.h"
#include "tensor/parallel.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;

namespace {

using Ints = std::vector<int64_t>;

Tensor ints(const Ints& values, const Shape& shape) { return from_vector(values, shape); }

// Rows of x (A, n, C) picked by index (A, m, C), element by element.
std::vector<double> gather_by_hand(const Tensor& x, const Tensor& index) {
  const auto values = doubles(x), at = doubles(index);
  const int64_t n = x.size(1), m = index.size(1), C = x.size(2);
  std::vector<double> y;
  for (int64_t a = 0; a < x.size(0); ++a) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t c = 0; c < C; ++c) {
        const auto j = static_cast<int64_t>(at[(a * m + i) * C + c]);
        y.push_back(values[(a * n + j) * C + c]);
      }
    }
  }
  return y;
}

std::vector<double> scatter_by_hand(const Tensor& x, const Tensor& index, const Tensor& src) {
  auto y = doubles(x);
  const auto values = doubles(src), at = doubles(index);
  const int64_t n = x.size(1), m = index.size(1), C = x.size(2);
  for (int64_t a = 0; a < x.size(0); ++a) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t c = 0; c < C; ++c) {
        const auto j = static_cast<int64_t>(at[(a * m + i) * C + c]);
        y[(a * n + j) * C + c] += values[(a * m + i) * C + c];
      }
    }
  }
  return y;
}

// index (m) repeated for every element of (A, m, C).
Tensor spread(const Tensor& index, int64_t A, int64_t C) {
  const auto at = index.to_vector<int64_t>();
  Ints all;
  for (int64_t a = 0; a < A; ++a) {
    for (int64_t j : at) all.insert(all.end(), C, j);
  }
  return ints(all, {A, index.numel(), C});
}

// Runs `f` with 1 to 7 threads and checks that the bits never change.
template <typename F>
void check_same_for_any_threads(const F& f) {
  const int before = num_threads();
  set_num_threads(1);
  const Tensor expected = f();
  for (int threads : {2, 3, 7}) {
    INFO(threads << " threads");
    set_num_threads(threads);
    CHECK(same_bits(f(), expected));
  }
  set_num_threads(before);
}

}  // namespace

TEST_CASE("gather picks along each dimension, for any dtype and strides") {
  Rng rng(1);
  const Tensor x = randn({3, 5, 4}, rng);
  const Tensor index = randint({3, 7, 4}, 5, rng);
  const auto expected = gather_by_hand(x, index);
  CHECK(mismatch(raw::gather(x, 1, index), expected) == "");
  CHECK(mismatch(raw::gather(x, -2, raw::cast(index, DType::i32)), expected) == "");
  CHECK(mismatch(raw::gather(strided(x), 1, strided(index)), expected) == "");
  for (DType dtype : {DType::f32, DType::i64, DType::i32}) {
    const Tensor wide = raw::mul(x, 100), typed = raw::cast(wide, dtype);
    CHECK(mismatch(raw::gather(typed, 1, index), gather_by_hand(typed, index)) == "");
  }
  // The other dimensions, by moving them to the middle.
  const Tensor last = raw::gather(raw::transpose(x, 1, 2), 2, raw::transpose(index, 1, 2));
  CHECK(mismatch(raw::transpose(last, 1, 2), expected) == "");
  const Tensor first = raw::gather(raw::transpose(x, 0, 1), 0, raw::transpose(index, 0, 1));
  CHECK(mismatch(raw::transpose(first, 0, 1), expected) == "");
}

TEST_CASE("gather of bf16 and u8 moves bits") {
  const Tensor x = from_vector(std::vector<Bf16>{{1}, {0x7fc1}, {3}}, {3});
  CHECK(raw::gather(x, 0, ints({1, 1, 0}, {3})).to_vector<Bf16>()[1].bits == 0x7fc1);
  const Tensor bytes = from_vector(std::vector<uint8_t>{7, 255, 0}, {3});
  CHECK(raw::gather(bytes, 0, ints({1}, {1})).item<uint8_t>() == 255);
}

TEST_CASE("gather with long rows is cut between threads without a seam") {
  Rng rng(2);
  const Tensor x = randn({2, 3, 40001}, rng), index = randint({2, 2, 40001}, 3, rng);
  CHECK(mismatch(raw::gather(x, 1, index), gather_by_hand(x, index), 0, 0) == "");
  const Tensor rows = ints({2, 0}, {2});
  CHECK(mismatch(raw::index_select(x, 1, rows), gather_by_hand(x, spread(rows, 2, 40001)), 0, 0) ==
        "");
}

TEST_CASE("index_select picks whole rows, for any dimension") {
  Rng rng(3);
  const Tensor x = randn({2, 5, 3}, rng), index = ints({4, 0, 4, 2}, {4});
  const Tensor y = raw::index_select(x, 1, index);
  CHECK(y.shape() == Shape{2, 4, 3});
  CHECK(mismatch(y, gather_by_hand(x, spread(index, 2, 3))) == "");
  CHECK(mismatch(raw::index_select(strided(x), 1, raw::cast(index, DType::i32)), y) == "");
  CHECK(mismatch(raw::index_select(raw::transpose(x, 1, 2), 2, index), raw::transpose(y, 1, 2)) ==
        "");
  CHECK(raw::index_select(x, 1, ints({}, {0})).shape() == Shape{2, 0, 3});
}

TEST_CASE("embedding takes an index of any shape") {
  const Tensor weight = from_vector(std::vector<float>{0, 1, 10, 11, 20, 21}, {3, 2});
  const Tensor y = raw::embedding(weight, ints({2, 0, 1, 1}, {2, 2}));
  CHECK(y.shape() == Shape{2, 2, 2});
  CHECK(mismatch(y, {20, 21, 0, 1, 10, 11, 10, 11}) == "");
  CHECK(mismatch(raw::embedding(weight, ints({1}, {})), {10, 11}) == "");
  CHECK(raw::embedding(weight, ints({}, {0, 4})).shape() == Shape{0, 4, 2});
}

TEST_CASE("scatter_add and index_add sum repeated indices and leave x alone") {
  Rng rng(4);
  const Tensor x = randn({2, 4, 3}, rng), src = randn({2, 9, 3}, rng);
  const Tensor before = raw::clone(x);
  const Tensor index = randint({2, 9, 3}, 4, rng);
  const auto expected = scatter_by_hand(x, index, src);
  CHECK(mismatch(raw::scatter_add(x, 1, index, src), expected, 0, 0) == "");
  CHECK(mismatch(raw::scatter_add(strided(x), 1, strided(index), strided(src)), expected, 0, 0) ==
        "");
  const Tensor rows = randint({9}, 4, rng);
  const auto expected_rows = scatter_by_hand(x, spread(rows, 2, 3), src);
  CHECK(mismatch(raw::index_add(x, 1, rows, src), expected_rows, 0, 0) == "");
  CHECK(mismatch(raw::index_add(strided(x), -2, raw::cast(rows, DType::i32), strided(src)),
                 expected_rows, 0, 0) == "");
  CHECK(same_bits(x, before));
}

TEST_CASE("integer sums wrap around") {
  const Tensor x = from_vector(std::vector<uint8_t>{250, 1}, {2});
  const Tensor src = from_vector(std::vector<uint8_t>{5, 5}, {2});
  CHECK(mismatch(raw::index_add(x, 0, ints({0, 0}, {2}), src), {4, 1}) == "");
  const Tensor big = ints({std::numeric_limits<int64_t>::max()}, {1});
  CHECK(raw::index_add(big, 0, ints({0}, {1}), ints({1}, {1})).item<int64_t>() ==
        std::numeric_limits<int64_t>::min());
}

TEST_CASE("sums over repeated indices have the same bits on any number of threads") {
  Rng rng(5);
  // Tall and narrow, one column, wide, and several slices: each is cut between threads differently.
  const Shape shapes[] = {{1, 50, 3}, {1, 50, 1}, {1, 7, 1000}, {5, 11, 64}};
  for (const Shape& shape : shapes) {
    INFO(shape);
    const int64_t m = 200000 / (shape[0] * shape[2]);
    const Tensor x = randn(shape, rng, DType::f32);
    const Tensor src = randn({shape[0], m, shape[2]}, rng, DType::f32);
    const Tensor rows = randint({m}, shape[1], rng);
    const Tensor index = randint({shape[0], m, shape[2]}, shape[1], rng);
    check_same_for_any_threads([&] { return raw::index_add(x, 1, rows, src); });
    check_same_for_any_threads([&] { return raw::scatter_add(x, 1, index, src); });
    const Tensor expected = raw::cast(x, DType::f64), wide = raw::cast(src, DType::f64);
    CHECK(mismatch(raw::index_add(x, 1, rows, src),
                   scatter_by_hand(expected, spread(rows, shape[0], shape[2]), wide), 1e-4,
                   1e-3) == "");
    CHECK(mismatch(raw::scatter_add(x, 1, index, src), scatter_by_hand(expected, index, wide), 1e-4,
                   1e-3) == "");
  }
}

TEST_CASE("one_hot marks one class per row") {
  const Tensor y = raw::one_hot(ints({2, 0, 1}, {3}), 3);
  CHECK(y.dtype() == DType::f32);
  CHECK(mismatch(y, {0, 0, 1, 1, 0, 0, 0, 1, 0}) == "");
  CHECK(raw::one_hot(ints({}, {2, 0}), 4, DType::u8).shape() == Shape{2, 0, 4});
  // Rows longer than a chunk.
  const Tensor wide = raw::one_hot(ints({20000, 0}, {2}), 40000, DType::i32);
  CHECK(raw::sum(wide).item() == 2);
  CHECK(wide.data<int32_t>()[20000] == 1);
  CHECK(wide.data<int32_t>()[40000] == 1);
}

TEST_CASE("an index outside the tensor is named with its position", "[host]") {
  const Tensor x = zeros({2, 5}), index = ints({0, 1, 2, 7, 9, 0}, {2, 3});
  CHECK(error_of([&] { raw::gather(x, 1, index); }) ==
        "gather: index 7 at position (1, 0) outside [0, 5)");
  CHECK(error_of([&] {
          raw::gather(x, 1, raw::transpose(ints({0, -1, 2, 3}, {2, 2}), 0, 1));
        }) == "gather: index -1 at position (1, 0) outside [0, 5)");
  CHECK(error_of([&] {
          raw::scatter_add(x, 1, index, zeros({2, 3}));
        }) == "scatter_add: index 7 at position (1, 0) outside [0, 5)");
  CHECK(error_of([&] {
          raw::index_select(x, 0, ints({0, 2}, {2}));
        }) == "index_select: index 2 at position (1,) outside [0, 2)");
  CHECK(error_of([&] {
          raw::index_add(x, 0, from_vector(std::vector<int32_t>{-5}, {1}), zeros({1, 5}));
        }) == "index_add: index -5 at position (0,) outside [0, 2)");
  CHECK(error_of([&] { raw::embedding(x, ints({2}, {})); }) ==
        "embedding: index 2 at position () outside [0, 2)");
  CHECK(error_of([&] { raw::one_hot(index, 7); }) ==
        "one_hot: index 7 at position (1, 0) outside [0, 7)");
  CHECK(error_of([&] {
          raw::index_select(zeros({0, 3}), 0, ints({0}, {1}));
        }) == "index_select: index 0 at position (0,) outside [0, 0)");
}

TEST_CASE("the first bad index of many chunks is the one reported", "[host]") {
  Ints values(100000, 3);
  values[70000] = 8;
  values[99999] = -1;
  const std::string expected = "embedding: index 8 at position (700, 0) outside [0, 8)";
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    CHECK(error_of([&] { raw::embedding(zeros({8, 1}), ints(values, {1000, 100})); }) == expected);
  }
  set_num_threads(0);
}

TEST_CASE("indexing refuses shapes and dtypes that do not fit") {
  const Tensor x = zeros({2, 5}), index = ints({0, 0}, {2, 1});
  CHECK(error_of([&] {
          raw::gather(x, 1, ints({0, 0, 0}, {3, 1}));
        }) == "gather: shapes differ outside dimension 1: x is (2, 5), index is (3, 1)");
  CHECK(error_of([&] { raw::gather(x, 1, ints({0}, {1})); }) ==
        "gather: shapes differ outside dimension 1: x is (2, 5), index is (1,)");
  CHECK(error_of([&] {
          raw::gather(x, 1, zeros({2, 1}));
        }) == "gather: dtype of index: expected i64 or i32, got f32 (raw::cast converts)");
  CHECK(error_of([&] { raw::gather(x, 2, index); }) ==
        "gather: dimension: expected one in [-2, 2), got 2");
  CHECK(error_of([&] {
          raw::scatter_add(x, 1, index, zeros({2, 2}));
        }) == "scatter_add: shapes differ: index is (2, 1), src is (2, 2)");
  CHECK(error_of([&] {
          raw::scatter_add(x, 1, index, zeros({2, 1}, DType::f64));
        }) == "scatter_add: dtypes differ: x is f32, src is f64 (raw::cast converts)");
  CHECK(error_of([&] { raw::index_select(x, 0, index); }) ==
        "index_select: index: expected one dimension, got shape (2, 1) (gather takes an index of "
        "x's shape)");
  CHECK(error_of([&] {
          raw::index_add(x, 0, ints({0}, {1}), zeros({2, 5}));
        }) == "index_add: sizes differ: index is (1,), src is (2, 5): 1 vs 2 in dimension 0");
  CHECK(error_of([&] {
          raw::index_add(x, 0, ints({0}, {1}), zeros({1, 4}));
        }) == "index_add: shapes differ outside dimension 0: x is (2, 5), src is (1, 4)");
  const Tensor half = raw::cast(x, DType::bf16);
  CHECK_THAT(error_of([&] { raw::scatter_add(half, 1, index, half); }),
             Catch::Contains("got bf16"));
  CHECK(error_of([&] { raw::embedding(zeros({5}), index); }) ==
        "embedding: weight: expected (N, C), got (5,)");
  CHECK(error_of([&] { raw::one_hot(index, 0); }) ==
        "one_hot: classes: expected at least 1, got 0");
}

TEST_CASE("cat joins along any dimension, with empty and strided parts") {
  Rng rng(6);
  const Tensor a = randn({2, 3, 2}, rng), b = randn({2, 0, 2}, rng), c = randn({2, 1, 2}, rng);
  const Tensor y = raw::cat({strided(a), b, c}, 1);
  CHECK(y.shape() == Shape{2, 4, 2});
  CHECK(same_bits(raw::slice(y, 1, 0, 3), a));
  CHECK(same_bits(raw::slice(y, 1, 3, 4), c));
  CHECK(same_bits(raw::cat({a, a}, 0), raw::cat({a, a}, -3)));
  CHECK(raw::cat({b, b}, -2).shape() == Shape{2, 0, 2});
  const Tensor bits = from_vector(std::vector<Bf16>{{1}, {0x7fc1}}, {2});
  CHECK(raw::cat({bits, bits}, 0).to_vector<Bf16>()[3].bits == 0x7fc1);
  // One part is copied too: the result shares no memory.
  CHECK(raw::cat({a}, 0).bytes() != a.bytes());
}

TEST_CASE("stack adds a dimension") {
  const Tensor a = ints({1, 2}, {2}), b = ints({3, 4}, {2});
  CHECK(mismatch(raw::stack({a, b}, 0), ints({1, 2, 3, 4}, {2, 2})) == "");
  CHECK(mismatch(raw::stack({a, b}, -1), ints({1, 3, 2, 4}, {2, 2})) == "");
  CHECK(raw::stack({ones({}), ones({})}, 0).shape() == Shape{2});
}

TEST_CASE("split returns views that cat joins again") {
  Rng rng(7);
  const Tensor x = randn({2, 6}, rng);
  const auto parts = raw::split(x, {1, 0, 3, 2}, 1);
  CHECK(parts[1].shape() == Shape{2, 0});
  CHECK(parts[2].shape() == Shape{2, 3});
  CHECK(parts[2].bytes() == x.bytes() + sizeof(double));
  CHECK(same_bits(raw::cat(parts, 1), x));
  CHECK(raw::split(zeros({0, 2}), {}, 0).empty());
}

TEST_CASE("pad surrounds a dimension with a value") {
  const Tensor x = ints({1, 2, 3, 4}, {2, 2});
  CHECK(mismatch(raw::pad(x, 1, 1, 2, 9), ints({9, 1, 2, 9, 9, 9, 3, 4, 9, 9}, {2, 5})) == "");
  CHECK(mismatch(raw::pad(strided(x), 0, 0, 1), ints({1, 2, 3, 4, 0, 0}, {3, 2})) == "");
  CHECK(same_bits(raw::pad(x, 0, 0, 0), x));
  CHECK(mismatch(raw::pad(zeros({0}), 0, 1, 1, 5), {5, 5}) == "");
  CHECK(raw::pad(zeros({2, 0}), 0, 1, 1).shape() == Shape{4, 0});
}

TEST_CASE("joining and cutting refuse what does not fit") {
  const Tensor a = zeros({2, 3}), b = zeros({2, 4, 1}), c = zeros({3, 3});
  CHECK(error_of([&] { raw::cat({}, 0); }) ==
        "cat: expected at least one tensor, got an empty list");
  CHECK(error_of([&] {
          raw::cat({a, a, b}, 1);
        }) == "cat: shapes differ outside dimension 1: tensor 0 is (2, 3), tensor 2 is (2, 4, 1)");
  CHECK(error_of([&] {
          raw::cat({a, c}, 1);
        }) == "cat: shapes differ outside dimension 1: tensor 0 is (2, 3), tensor 1 is (3, 3)");
  CHECK(error_of([&] {
          raw::cat({a, raw::cast(a, DType::i64)}, 0);
        }) == "cat: dtypes differ: tensor 0 is f32, tensor 1 is i64 (raw::cast converts)");
  CHECK(error_of([&] {
          raw::stack({a, c}, 0);
        }) == "stack: shapes differ: tensor 0 is (2, 3), tensor 1 is (3, 3)");
  CHECK(error_of([&] { raw::stack({}, 0); }) ==
        "stack: expected at least one tensor, got an empty list");
  CHECK(error_of([&] {
          raw::split(a, {1, 1}, 1);
        }) == "split: sizes: expected a sum of 3 (dimension 1 of (2, 3)), got 1 + 1");
  CHECK(error_of([&] { raw::split(a, {4}, 1); }) ==
        "split: sizes: expected a sum of 3 (dimension 1 of (2, 3)), got 4");
  CHECK(error_of([&] {
          raw::split(a, {4, -1}, 1);
        }) == "split: sizes: expected sizes >= 0, got -1");
  const int64_t huge = std::numeric_limits<int64_t>::max();
  CHECK_THROWS_AS(raw::split(a, {huge, huge, 5}, 1), Error);
  CHECK(error_of([&] { raw::pad(a, 0, -1, 0); }) ==
        "pad: expected widths >= 0, got -1 before and 0 after (slice shortens)");
  CHECK_THROWS_AS(raw::pad(a, 0, huge, huge), Error);
  CHECK_THROWS_AS(raw::cat({a, Tensor()}, 0), Error);
}
