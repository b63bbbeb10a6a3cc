// Products by cuBLAS: every layout that raw::matmul passes on, math modes, and the pass that adds
// the bias.
#include <cuda_runtime_api.h>

#include <catch2/catch.hpp>

#include "tensor/backend.h"
#include "tensor/kernels.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

Tensors product(const Tensors& xs) { return {raw::matmul(xs[0], xs[1])}; }

// a b^T, a^T b and a^T b^T of transposed views.
Tensors products_of_views(const Tensors& xs) {
  const Tensor at = raw::transpose(raw::clone(raw::transpose(xs[0], -1, -2)), -1, -2);
  const Tensor bt = raw::transpose(raw::clone(raw::transpose(xs[1], -1, -2)), -1, -2);
  return {raw::matmul(xs[0], bt), raw::matmul(at, xs[1]), raw::matmul(at, bt)};
}

// The (heads, L, E) matrices of (L, heads * E) memory, as projections leave them.
Tensor heads(const Tensor& x, int64_t count) {
  const int64_t width = x.size(1) / count;
  return raw::permute(raw::reshape(x, {x.size(0), count, width}), {1, 0, 2});
}

class WithMathMode {
 public:
  explicit WithMathMode(MathMode mode) { set_math_mode(mode); }
  ~WithMathMode() { set_math_mode(MathMode::f32); }
};

}  // namespace

TEST_CASE("cuda: matmul") {
  Rng rng(1);
  for (const auto& [m, k, p] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                   {3, 5, 7},
                                                                   {1, 9, 4},
                                                                   {8, 1, 3},
                                                                   {6, 33, 1},
                                                                   {40, 64, 32},
                                                                   {5, 0, 3},
                                                                   {0, 4, 3},
                                                                   {4, 3, 0}}) {
    INFO(m << " " << k << " " << p);
    CHECK(disagreement(product, {randn({m, k}, rng), randn({k, p}, rng)}) == "");
    CHECK(disagreement(product, {randn({3, m, k}, rng), randn({3, k, p}, rng)}) == "");
    CHECK(disagreement(product, {randn({3, m, k}, rng), randn({k, p}, rng)}) == "");
    CHECK(disagreement(product, {randn({m, k}, rng), randn({3, k, p}, rng)}) == "");
    CHECK(disagreement(products_of_views, {randn({2, m, k}, rng), randn({2, k, p}, rng)}) == "");
  }
  CHECK(disagreement(product, {randn({2, 1, 4, 5}, rng), randn({3, 5, 6}, rng)}) == "");
  CHECK(disagreement(product, {randn({5}, rng), randn({5, 6}, rng)}) == "");
}

TEST_CASE("cuda: matmul of strided batches") {
  Rng rng(2);
  const auto scores = [](const Tensors& xs) {
    return Tensors{raw::matmul(heads(xs[0], 4), raw::transpose(heads(xs[1], 4), 1, 2)),
                   raw::matmul(heads(xs[0], 4), raw::slice(xs[2], 0, 1, 4)),
                   raw::matmul(raw::slice(xs[0], 1, 2, 7), raw::slice(xs[2], 1, 3, 7))};
  };
  CHECK(disagreement(scores, {randn({6, 12}, rng), randn({9, 12}, rng), randn({5, 8}, rng)}) == "");
}

TEST_CASE("cuda: matmul in other math modes") {
  Rng rng(3);
  int major = 0;
  REQUIRE(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess);
  const auto to_bf16 = [](const Tensor& x) {
    return raw::cast(raw::cast(raw::cast(x, DType::f32), DType::bf16), DType::f32);
  };
  for (int64_t k : {16, 13}) {  // rows of 16 bytes, and others
    const Tensor a = randn({3, 10, k}, rng, DType::f32), b = randn({k, 7}, rng, DType::f32);
    const Tensor bt = raw::transpose(randn({3, 7, k}, rng, DType::f32), 1, 2);
    for (const Tensor& other : {b, bt}) {
      const Tensors on_device = moved({a, other}, kCuda);
      const Tensor exact = product(with_floats({a, other}, DType::f64))[0];
      {
        const WithMathMode mode(MathMode::tf32);
        CHECK(mismatch(raw::to(product(on_device)[0], {}), exact, 0, 2e-2) == "");
      }
      const WithMathMode mode(MathMode::bf16);
      const Tensor expected =
          major < 8 ? exact : product(with_floats({to_bf16(a), to_bf16(other)}, DType::f64))[0];
      CHECK(mismatch(raw::to(product(on_device)[0], {}), expected, 1e-5, 1e-5) == "");
      CHECK(mismatch(raw::to(product(with_floats(on_device, DType::f64))[0], {}), exact, 1e-12,
                     1e-12) == "");
    }
  }
}

TEST_CASE("cuda: linear adds bias and activation") {
  Rng rng(4);
  for (int64_t outputs : {1, 7, 8, 300}) {
    for (Activation act :
         {Activation{}, Activation{true, Unary::relu}, Activation{true, Unary::gelu},
          Activation{true, Unary::silu}, Activation{true, Unary::tanh},
          Activation{true, Unary::sigmoid}, Activation{true, Unary::sin}}) {
      const auto f = [=](const Tensors& xs) {
        Tensor pre;
        const Tensor y = raw::linear(xs[0], xs[1], xs[2], act, &pre);
        return Tensors{y, pre, raw::linear(xs[0], xs[1], {}, act)};
      };
      CHECK(disagreement(
                f, {randn({2, 5, 6}, rng), randn({outputs, 6}, rng), randn({outputs}, rng)}) == "");
    }
  }
}
