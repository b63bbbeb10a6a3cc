// Sorting and selection: rows in shared memory, rows of several tiles, selection digit by digit.
#include <catch2/catch.hpp>

#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

Computation sorting(bool descending) {
  return [=](const Tensors& xs) {
    const auto [values, index] = raw::sort(xs[0], descending);
    return Tensors{values, index};
  };
}

Computation selecting(int64_t k) {
  return [=](const Tensors& xs) {
    const auto [values, index] = raw::topk(xs[0], k);
    return Tensors{values, index};
  };
}

// Few different values, both zeros, infinities and NaN.
Tensor awkward(const Shape& shape, Rng& rng) {
  constexpr double kValues[] = {0, -0.0, 1, -1, INFINITY, -INFINITY, NAN, 1e-300, 3};
  std::vector<double> values(numel(shape));
  for (double& v : values) v = kValues[rng.below(9)];
  return from_vector(values, shape);
}

}  // namespace

TEST_CASE("cuda: sort of rows in shared memory") {
  Rng rng(1);
  for (const Shape& shape : {Shape{3, 1}, Shape{300, 3}, Shape{5, 33}, Shape{2, 512}, Shape{3, 700},
                             Shape{1, 2048}, Shape{0, 4}, Shape{4, 0}, Shape{2, 3, 20}}) {
    INFO(shape);
    CHECK(disagreement(sorting(false), {randn(shape, rng)}) == "");
    CHECK(disagreement(sorting(true), {randint(shape, 7, rng)}) == "");
  }
  CHECK(disagreement(sorting(true), {awkward({4, 100}, rng)}) == "");
  CHECK(disagreement(sorting(false), {awkward({4, 100}, rng)}) == "");
  CHECK(disagreement(sorting(false), {strided(randn({40, 30}, rng))}) == "");
  CHECK(disagreement(sorting(false), {raw::cast(randint({9, 77}, 256, rng), DType::u8)}) == "");
  CHECK(disagreement(sorting(true), {raw::sub(randint({9, 77}, 9, rng, DType::i32),
                                              full({1, 1}, 4, DType::i32))}) == "");
}

TEST_CASE("cuda: sort of rows of several tiles") {
  Rng rng(2);
  CHECK(disagreement(sorting(false), {randn({2, 3000}, rng)}) == "");
  CHECK(disagreement(sorting(true), {awkward({1, 4097}, rng)}) == "");
  CHECK(disagreement(sorting(true), {randint({1, 9000}, 100, rng, DType::i32)}) == "");
  CHECK(disagreement(sorting(false), {raw::cast(randint({2, 5000}, 256, rng), DType::u8)}) == "");
}

TEST_CASE("cuda: topk") {
  Rng rng(3);
  for (int64_t k : {1, 5, 32, 200}) {
    INFO(k);
    CHECK(disagreement(selecting(k), {randn({3, 200}, rng)}) == "");
    CHECK(disagreement(selecting(k), {randn({3, 1000}, rng)}) == "");
    CHECK(disagreement(selecting(k), {randint({2, 700}, 3, rng)}) == "");  // ties at the k-th
    CHECK(disagreement(selecting(k), {awkward({2, 300}, rng)}) == "");
  }
  CHECK(disagreement(selecting(300), {randn({2, 300}, rng)}) == "");
  CHECK(disagreement(selecting(7), {randn({1, 5000}, rng)}) == "");
  CHECK(disagreement(selecting(2500), {randn({1, 2600}, rng)}) == "");
  CHECK(disagreement(selecting(257), {full({2, 513}, 1, DType::i64)}) == "");
  CHECK(disagreement(selecting(3), {raw::cast(randint({2, 300}, 256, rng), DType::u8)}) == "");
  CHECK(disagreement(selecting(2), {zeros({0, 400}, DType::f64)}) == "");
  CHECK(disagreement(selecting(2), {strided(randn({300, 20}, rng))}) == "");
}
