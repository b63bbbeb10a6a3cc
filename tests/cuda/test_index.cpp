// Indexing, its sums in order, and what becomes of indices out of range.
#include <catch2/catch.hpp>

#include "tensor/kernels.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

Tensors indices(const Shape& shape, int64_t n, Rng& rng) {
  return {randint(shape, n, rng), randint(shape, n, rng, DType::i32)};
}

// x as a tensor of every dtype; bf16 is only moved.
Tensors in_every_dtype(const Tensor& x) {
  Tensors xs;
  for (DType dtype : {DType::f64, DType::i64, DType::i32, DType::u8}) {
    xs.push_back(raw::cast(x, dtype));
  }
  return xs;
}

}  // namespace

TEST_CASE("cuda: gather") {
  Rng rng(1);
  for (const Tensor& index : indices({3, 7, 5}, 9, rng)) {
    for (const Tensor& x : in_every_dtype(randint({3, 9, 5}, 100, rng))) {
      const auto f = [](const Tensors& xs) { return Tensors{raw::gather(xs[0], 1, xs[1])}; };
      CHECK(disagreement(f, {x, index}) == "");
    }
    const auto last = [](const Tensors& xs) { return Tensors{raw::gather(xs[0], -1, xs[1])}; };
    CHECK(disagreement(last, {strided(randn({3, 7, 11}, rng)), index}) == "");
  }
  const auto f = [](const Tensors& xs) { return Tensors{raw::gather(xs[0], 0, xs[1])}; };
  CHECK(disagreement(f, {randn({5}, rng), randint({600}, 5, rng)}) == "");
  CHECK(disagreement(f, {randn({5, 0}, rng), zeros({3, 0}, DType::i64)}) == "");
}

TEST_CASE("cuda: index_select and embedding") {
  Rng rng(2);
  for (const Tensor& index : indices({10}, 6, rng)) {
    for (int64_t columns : {1, 3, 8}) {  // the last in accesses of 16 bytes
      const auto f = [](const Tensors& xs) { return Tensors{raw::index_select(xs[0], 1, xs[1])}; };
      for (const Tensor& x : in_every_dtype(randint({4, 6, columns}, 100, rng))) {
        CHECK(disagreement(f, {x, index}) == "");
      }
    }
    const auto embed = [](const Tensors& xs) { return Tensors{raw::embedding(xs[0], xs[1])}; };
    CHECK(disagreement(embed, {randn({6, 12}, rng), raw::reshape(index, {2, 5})}) == "");
    // An odd offset: 16-byte accesses would be misaligned.
    const auto inner = [](const Tensors& xs) {
      return Tensors{raw::index_select(raw::slice(xs[0], 0, 1, 7), 0, xs[1])};
    };
    CHECK(disagreement(inner, {randn({7, 4}, rng), index}) == "");
    CHECK(disagreement(inner, {randn({7, 1}, rng), index}) == "");
  }
  const Tensor half = raw::cast(randn({6, 5}, rng, DType::f32), DType::bf16);
  const Tensor index = randint({10}, 6, rng);
  CHECK(same_bits(raw::to(raw::index_select(raw::to(half, kCuda), 0, raw::to(index, kCuda)), {}),
                  raw::index_select(half, 0, index)));
}

TEST_CASE("cuda: scatter_add adds in order") {
  Rng rng(3);
  const auto f = [](const Tensors& xs) {
    return Tensors{raw::scatter_add(xs[0], 1, xs[1], xs[2])};
  };
  for (const Tensor& index : indices({3, 40, 5}, 4, rng)) {
    for (const Tensor& x : in_every_dtype(randint({3, 40, 5}, 100, rng))) {
      CHECK(disagreement(f, {raw::cast(randint({3, 4, 5}, 9, rng), x.dtype()), index, x}) == "");
    }
    const Tensor x = randn({3, 40, 5}, rng, DType::f32), y = randn({3, 4, 5}, rng, DType::f32);
    CHECK(same_bits(f({y, index, x})[0], raw::to(f(moved({y, index, x}, kCuda))[0], {})));
  }
  // Several tiles of the sort; one destination for all; nothing to add.
  CHECK(disagreement(
            f, {randn({2, 300}, rng), randint({2, 2500}, 300, rng), randn({2, 2500}, rng)}) == "");
  CHECK(disagreement(f, {randn({1, 2}, rng), zeros({1, 500}, DType::i64), randn({1, 500}, rng)}) ==
        "");
  CHECK(disagreement(
            f, {randn({2, 3}, rng), zeros({2, 0}, DType::i64), zeros({2, 0}, DType::f64)}) == "");
}

TEST_CASE("cuda: index_add adds in order") {
  Rng rng(4);
  const auto f = [](const Tensors& xs) { return Tensors{raw::index_add(xs[0], 1, xs[1], xs[2])}; };
  for (const Tensor& index : indices({40}, 6, rng)) {
    for (const Tensor& x : in_every_dtype(randint({2, 40, 7}, 100, rng))) {
      CHECK(disagreement(f, {raw::cast(randint({2, 6, 7}, 9, rng), x.dtype()), index, x}) == "");
    }
    const Tensor x = randn({1, 40, 33}, rng, DType::f32), y = randn({1, 6, 33}, rng, DType::f32);
    CHECK(same_bits(f({y, index, x})[0], raw::to(f(moved({y, index, x}, kCuda))[0], {})));
  }
  CHECK(disagreement(f, {randn({1, 900, 2}, rng), randint({5000}, 900, rng),
                         randn({1, 5000, 2}, rng)}) == "");
  CHECK(disagreement(f, {randn({1, 3, 2}, rng), zeros({0}, DType::i64),
                         zeros({1, 0, 2}, DType::f64)}) == "");
}

TEST_CASE("cuda: one_hot") {
  Rng rng(5);
  for (const Tensor& index : indices({3, 50}, 9, rng)) {
    for (DType dtype : {DType::f64, DType::f32, DType::i64, DType::i32, DType::u8}) {
      const auto f = [=](const Tensors& xs) { return Tensors{raw::one_hot(xs[0], 9, dtype)}; };
      CHECK(disagreement(f, {index}) == "");
    }
  }
}

TEST_CASE("cuda: an index out of range is an error when results are asked for, and reads 0") {
  const Tensor x = raw::to(ones({2, 4}), kCuda);
  for (DType dtype : {DType::i64, DType::i32}) {
    for (double bad : {-1, 4, 1 << 30}) {
      const Tensor index =
          raw::to(raw::cast(from_vector<double>({1, bad, 2, 1, bad, 0}, {2, 3}), dtype), kCuda);
      const Tensor row = raw::reshape(raw::slice(index, 0, 0, 1), {3});
      const Tensor source = raw::to(ones({2, 3}), kCuda);
      const std::vector<std::pair<std::string, Tensor>> results = {
          {"gather", raw::gather(x, 1, index)},
          {"scatter_add", raw::scatter_add(x, 1, index, source)},
          {"index_select", raw::index_select(x, 1, row)},
          {"index_add", raw::index_add(x, 1, row, source)},
          {"embedding", raw::embedding(raw::transpose(x, 0, 1), row)},
          {"one_hot", raw::one_hot(row, 4)}};
      const std::string error = error_of([&] { results[0].second.to_vector<float>(); });
      CHECK(error.find("gather: index") != std::string::npos);
      CHECK(error.find("outside [0, 4)") != std::string::npos);
      const std::vector<std::vector<double>> expected = {
          {1, 0, 1, 1, 0, 1},       {1, 2, 2, 1, 2, 2, 1, 1}, {1, 0, 1, 1, 0, 1},
          {1, 2, 2, 1, 1, 2, 2, 1}, {1, 1, 0, 0, 1, 1},       {0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}};
      for (size_t i = 0; i < results.size(); ++i) {
        INFO(results[i].first);
        CHECK(mismatch(raw::to(results[i].second, {}), expected[i]) == "");
      }
      // Every operation reports its own.
      const std::string own =
          error_of([&] { raw::one_hot(row, 4, DType::i64).to_vector<int64_t>(); });
      CHECK(own.find("one_hot: index") != std::string::npos);
      CHECK(own.find("at position 1") != std::string::npos);
    }
  }
}
