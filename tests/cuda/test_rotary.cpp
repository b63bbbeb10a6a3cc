// Rotary positions on the device, against the CPU.
#include <catch2/catch.hpp>

#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

Tensors both_ways(const Tensors& in) {
  return {raw::rotary(in[0], in[1], false), raw::rotary(in[0], in[1], true)};
}

}  // namespace

TEST_CASE("cuda: rotary turns pairs, of any shape and strides") {
  Rng rng(1);
  for (const Shape& shape :
       {Shape{1, 1, 1, 2}, Shape{2, 3, 2, 4}, Shape{5, 7, 3, 6}, Shape{9, 11, 2, 32},
        Shape{1, 40, 5, 10}, Shape{0, 3, 2, 4}, Shape{2, 0, 2, 4}, Shape{2, 3, 2, 0}}) {
    const Tensor x = randn(shape, rng);
    const Tensor angles = randn({shape[1], shape[3] / 2}, rng, DType::f64, 30);
    INFO(shape);
    CHECK(disagreement(both_ways, {x, angles}) == "");
    CHECK(disagreement(both_ways, {strided(x), angles}) == "");
  }
}

TEST_CASE("cuda: rotary of heads within a wider row, aligned to 16 bytes and not") {
  Rng rng(2);
  const Tensor angles = randn({6, 4}, rng);
  for (int64_t width : {40, 42}) {  // of a projection that holds more than these heads
    for (int64_t offset : {0, 8, 2}) {
      const Tensor all = randn({2, 6, width}, rng);
      CHECK(disagreement(
                [=](const Tensors& in) {
                  const Tensor part = raw::slice(in[0], 2, offset, offset + 32);
                  return both_ways({raw::reshape(part, {2, 6, 4, 8}), in[1]});
                },
                {all, angles}) == "");
    }
  }
}

TEST_CASE("cuda: rotary by large angles") {
  Rng rng(3);
  const Tensor x = randn({1, 8, 1, 4}, rng), angles = randn({8, 2}, rng, DType::f64, 1e5);
  CHECK(disagreement(both_ways, {x, angles}) == "");
}
