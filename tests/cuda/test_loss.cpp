// Cross entropy on the device, against the CPU.
#include <catch2/catch.hpp>

#include "nn/loss.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

Computation cross_entropy_with(int64_t ignore, double smoothing, bool with_grad) {
  return [=](const Tensors& in) -> Tensors {
    const auto result = raw::cross_entropy(in[0], in[1], ignore, smoothing, with_grad);
    return {result.losses, result.dlogits};
  };
}

Tensor labels(const std::vector<int64_t>& values) {
  return from_vector(values, {static_cast<int64_t>(values.size())});
}

}  // namespace

TEST_CASE("cuda: cross_entropy over rows of any length, with and without gradient and smoothing") {
  Rng rng(1);
  for (const Shape& shape : {Shape{1, 1}, Shape{2, 3, 7}, Shape{9, 40}, Shape{10, 130},
                             Shape{9, 512}, Shape{3, 1003}, Shape{2, 9001}, Shape{0, 4}}) {
    const Tensor logits = randn(shape, rng, DType::f64, 4);
    Shape rows = shape;
    rows.erase(rows.size() - 1);
    const Tensor targets = randint(rows, shape.back(), rng);
    INFO(shape);
    for (double smoothing : {0.0, 0.1, 1.0}) {
      for (bool grad : {true, false}) {
        CHECK(disagreement(cross_entropy_with(-100, smoothing, grad), {logits, targets}) == "");
      }
    }
  }
}

TEST_CASE("cuda: cross_entropy ignores a target, inside or outside of the classes") {
  Rng rng(2);
  const Tensor logits = randn({4, 6}, rng), targets = labels({2, 5, 0, 2});
  CHECK(disagreement(cross_entropy_with(2, 0.1, true), {logits, targets}) == "");
  CHECK(disagreement(cross_entropy_with(-7, 0, true), {logits, labels({-7, 1, -7, 5})}) == "");
}

TEST_CASE("cuda: cross_entropy of infinite, NaN and offset logits") {
  constexpr double kInf = INFINITY;
  const Tensor logits = from_vector<double>(
      {-kInf, 1, 2, -kInf, -kInf, -kInf, kInf, 0, 1, NAN, 0, 1, 5000, 5001, 5003}, {5, 3});
  for (double smoothing : {0.0, 0.2}) {
    for (int64_t target : {0, 1}) {
      const Tensor targets = labels(std::vector<int64_t>(5, target));
      CHECK(disagreement(cross_entropy_with(-100, smoothing, true), {logits, targets}) == "");
    }
  }
}

TEST_CASE("cuda: cross_entropy reports a target out of range when its results are asked for") {
  Rng rng(3);
  for (int64_t n : {5, 700}) {
    const Tensor logits = raw::to(randn({4, n}, rng, DType::f32), kCuda);
    for (int64_t bad : {n, int64_t{-3}, int64_t{1} << 40}) {
      const Tensor targets = raw::to(labels({1, 0, bad, 4}), kCuda);
      const auto result = raw::cross_entropy(logits, targets, -100, 0.1, true);
      const std::string error = error_of([&] { result.losses.to_vector<float>(); });
      CHECK_THAT(error, Contains("cross_entropy") && Contains(concat("index ", bad)) &&
                            Contains("position 2") && Contains(concat("[0, ", n, ")")));
      // Reported once; the other rows are as they should be, its own has no loss and no gradient.
      const std::vector<float> losses = result.losses.to_vector<float>();
      const auto good =
          raw::cross_entropy(raw::to(logits, Device{}), labels({1, 0, 2, 4}), -100, 0.1, true);
      for (int r : {0, 1, 3}) CHECK(losses[r] == Approx(good.losses.to_vector<float>()[r]));
      CHECK(std::isnan(losses[2]));
      const Tensor dx = raw::to(result.dlogits, Device{});
      CHECK(mismatch(raw::select(dx, 0, 2), zeros({n}), 0, 0) == "");
      CHECK(mismatch(raw::select(dx, 0, 3), raw::select(good.dlogits, 0, 3), 1e-5, 1e-6) == "");
    }
  }
}

TEST_CASE("cuda: the mean losses of nn, which do not wait for the device") {
  Rng rng(4);
  const auto with_gradient = [](const Tensor& logits, const auto& loss_of) -> Tensors {
    Tensor x = raw::clone(logits);
    x.set_requires_grad();
    const Tensor loss = loss_of(x);
    backward(loss);
    return {loss.detach(), x.grad()};
  };
  const Tensor logits = randn({5, 7}, rng), targets = labels({3, -100, 0, 6, -100});
  CHECK(disagreement(
            [&](const Tensors& in) {
              return with_gradient(
                  in[0], [&](const Tensor& x) { return nn::cross_entropy(x, in[1], -100, 0.1); });
            },
            {logits, targets}) == "");
  const Tensor none = raw::to(labels({-100, -100, -100, -100, -100}), kCuda);
  CHECK(std::isnan(nn::cross_entropy(raw::to(logits, kCuda), none).item()));

  const std::vector<std::vector<int32_t>> texts{{1, 2, 2}, {3}, {1, 1, 1, 1}};
  CHECK(disagreement(
            [&](const Tensors& in) {
              return with_gradient(in[0], [&](const Tensor& x) {
                return nn::ctc(x, Lengths({6, 4, 5}), texts, {.zero_infeasible = true});
              });
            },
            {randn({3, 6, 4}, rng)}) == "");
}
