// Layer normalisation on the device, against the CPU.
#include <catch2/catch.hpp>

#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// x, gain and bias (undefined without `affine`), dy.
Tensors norm_inputs(const Shape& shape, bool affine, Rng& rng) {
  const int64_t n = shape.back();
  Tensors inputs{randn(shape, rng, DType::f64, 2), Tensor(), Tensor(), randn(shape, rng)};
  if (affine) inputs[1] = randn({n}, rng), inputs[2] = randn({n}, rng);
  return inputs;
}

Tensors forward(const Tensors& in) {
  const auto result = raw::layer_norm(in[0], in[1], in[2], 1e-5);
  return {result.y, result.mean, result.rstd};
}

Computation backward_with(bool dx, bool dgain, bool dbias) {
  return [=](const Tensors& in) -> Tensors {
    const auto saved = raw::layer_norm(in[0], in[1], in[2], 1e-5);
    const auto grads =
        raw::layer_norm_backward(in[0], in[1], saved.mean, saved.rstd, in[3], dx, dgain, dbias);
    return {grads.dx, grads.dgain, grads.dbias};
  };
}

}  // namespace

TEST_CASE("cuda: layer_norm and its gradients over rows of any length") {
  Rng rng(1);
  for (const Shape& shape : {Shape{1}, Shape{3, 1}, Shape{2, 3, 7}, Shape{9, 64}, Shape{20, 130},
                             Shape{17, 512}, Shape{5, 1001}, Shape{3, 4096}, Shape{3, 4100}}) {
    for (bool affine : {true, false}) {
      const Tensors inputs = norm_inputs(shape, affine, rng);
      INFO(shape << (affine ? " affine" : " plain"));
      CHECK(disagreement(forward, inputs) == "");
      CHECK(disagreement(backward_with(true, affine, affine), inputs) == "");
    }
  }
}

TEST_CASE("cuda: layer_norm_backward gives what is asked for only") {
  Rng rng(2);
  for (const Shape& shape : {Shape{6, 40}, Shape{1, 4099}}) {
    const Tensors inputs = norm_inputs(shape, true, rng);
    for (int which = 0; which < 8; ++which) {
      CHECK(disagreement(backward_with(which & 1, which & 2, which & 4), inputs) == "");
    }
  }
}

TEST_CASE("cuda: layer_norm sums parameters' gradients over many blocks of rows") {
  Rng rng(3);
  const Tensors inputs = norm_inputs({2500, 5}, true, rng);
  CHECK(disagreement(backward_with(true, true, true), inputs) == "");
  const Tensors on_device = moved(with_floats(inputs, DType::f32), kCuda);
  const Tensors once = moved(backward_with(true, true, true)(on_device), Device{});
  const Tensors again = moved(backward_with(true, true, true)(on_device), Device{});
  for (size_t i = 0; i < once.size(); ++i) CHECK(same_bits(once[i], again[i]));
}

TEST_CASE("cuda: layer_norm of no rows") {
  const Tensor x = empty({0, 6}, DType::f64), ones = full({6}, 1, DType::f64);
  CHECK(disagreement(forward, {x, ones, ones, x}) == "");
  CHECK(disagreement(backward_with(true, true, true), {x, ones, ones, x}) == "");
}

TEST_CASE("cuda: layer_norm of a large offset, of a constant row, of NaN") {
  std::vector<double> values(4 * 12);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = i < 12 ? 1000 + 0.25 * static_cast<double>(i % 5) : i < 24 ? 3 : 0.1 * i;
  }
  values[40] = NAN;
  Rng rng(4);
  const Tensor x = from_vector(values, {4, 12}), dy = randn({4, 12}, rng);
  CHECK(disagreement(forward, {x, Tensor(), Tensor()}) == "");
  CHECK(disagreement(backward_with(true, false, false), {x, Tensor(), Tensor(), dy}) == "");
}
