// Losses against their definitions.
#include <catch2/catch.hpp>
#include <cmath>

#include "nn/loss.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

Tensor labels(std::vector<int64_t> values) {
  const int64_t n = static_cast<int64_t>(values.size());
  return from_vector(values, {n});
}

}  // namespace

TEST_CASE("cross entropy: mean over what is not ignored, smoothing, sum") {
  Rng rng(1);
  Tensor logits = randn({3, 4}, rng);
  logits.set_requires_grad();
  const std::vector<double> logp = doubles(raw::log_softmax(logits));
  const Tensor targets = labels({2, -100, 0});
  const double expected = -(logp[2] + logp[8]);
  CHECK(nn::cross_entropy(logits, targets, -100, 0, Reduction::sum).item() == Approx(expected));
  const Tensor loss = nn::cross_entropy(logits, targets);
  CHECK(loss.numel() == 1);
  CHECK(loss.item() == Approx(expected / 2));
  backward(loss);
  CHECK(mismatch(raw::select(logits.grad(), 0, 1), zeros({4}, DType::f64), 0, 0) == "");
  CHECK(logits.grad().to_vector<double>()[2] == Approx((std::exp(logp[2]) - 1) / 2));

  double smooth = 0;
  for (int row : {0, 2}) {
    const double hit = logp[row == 0 ? 2 : 8];
    double all = 0;
    for (int v = 0; v < 4; ++v) all += logp[4 * row + v];
    smooth -= 0.9 * hit + 0.1 * all / 4;
  }
  CHECK(nn::cross_entropy(logits, targets, -100, 0.1).item() == Approx(smooth / 2));
}

TEST_CASE("cross entropy of nothing is an error, its sum is 0", "[host]") {
  const Tensor logits = zeros({2, 3});
  CHECK_THAT(error_of([&] {
               nn::cross_entropy(logits, labels({7, 7}), 7);
             }),
             Contains("no targets: all 2 are 7"));
  CHECK(nn::cross_entropy(logits, labels({7, 7}), 7, 0, Reduction::sum).item() == 0);
  CHECK_THROWS_AS(nn::cross_entropy(logits, labels({0, 3})), Error);
}

TEST_CASE("mse: mean and sum of squares, one shape") {
  Tensor a = from_vector(std::vector<double>{1, 2, 3}, {3});
  a.set_requires_grad();
  const Tensor b = from_vector(std::vector<double>{1, 0, 6}, {3});
  CHECK(mse(a, b, Reduction::sum).item() == Approx(13));
  const Tensor loss = mse(a, b);
  CHECK(loss.item() == Approx(13.0 / 3));
  backward(loss);
  CHECK(mismatch(a.grad(), std::vector<double>{0, 4.0 / 3, -2}) == "");
  CHECK_THAT(error_of([&] { mse(a, zeros({1}, DType::f64)); }),
             Contains("(3,)") && Contains("(1,)"));
  CHECK_THAT(error_of([&] { mse(zeros({0}), zeros({0})); }), Contains("nothing to compare"));
}

TEST_CASE("ctc: the frames that a target needs") {
  CHECK(ctc_min_frames({}) == 0);
  CHECK(ctc_min_frames({3}) == 1);
  CHECK(ctc_min_frames({1, 1, 2, 2, 2}) == 8);
}

TEST_CASE("ctc: each loss divided by its target length, then the mean") {
  Rng rng(1);
  const Tensor logits = randn({2, 6, 4}, rng);
  const std::vector<std::vector<int32_t>> targets = {{1, 2, 2}, {3}};
  const Lengths lengths({6, 4});
  const auto single = [&](int64_t b) {
    return nn::ctc(raw::slice(raw::slice(logits, 0, b, b + 1), 1, 0, lengths[b]), {}, {targets[b]},
                   {.reduction = Reduction::sum})
        .item();
  };
  CHECK(nn::ctc(logits, lengths, targets).item() == Approx((single(0) / 3 + single(1)) / 2));
  CHECK(nn::ctc(logits, lengths, targets, {.reduction = Reduction::sum}).item() ==
        Approx(single(0) + single(1)));
}

TEST_CASE("ctc: an empty target is all blanks; any class may be the blank") {
  const Tensor logits = zeros({1, 3, 4});
  CHECK(nn::ctc(logits, {}, {{}}).item() == Approx(3 * std::log(4.0)));
  // One frame, one label.
  CHECK(nn::ctc(zeros({1, 1, 4}), {}, {{0}}, {.blank = 3}).item() == Approx(std::log(4.0)));
}

TEST_CASE("ctc: an infeasible item is an error that names it, or counts as 0 when asked") {
  Rng rng(1);
  Tensor logits = randn({4, 12, 5}, rng);
  logits.set_requires_grad();
  const std::vector<int32_t> twelve = {1, 1, 2, 3, 3, 4, 1, 2, 3, 4, 1, 2};
  const std::vector<std::vector<int32_t>> targets = {{1}, {2}, {3, 4}, twelve};
  const Lengths lengths({12, 12, 12, 10});
  CHECK_THAT(error_of([&] { nn::ctc(logits, lengths, targets); }),
             Contains("ctc: item 3: target of 12 labels needs at least 14 frames, got 10 ("));

  const Tensor loss = nn::ctc(logits, lengths, targets, {.zero_infeasible = true});
  const Tensor three = raw::slice(logits.detach(), 0, 0, 3);
  CHECK(loss.item() == Approx(0.75 * nn::ctc(three, {}, {{1}, {2}, {3, 4}}).item()));
  backward(loss);
  CHECK_FALSE(raw::has_nonfinite(logits.grad()));
  CHECK(mismatch(raw::select(logits.grad(), 0, 3), zeros({12, 5}, DType::f64), 0, 0) == "");
  CHECK(raw::global_norm({raw::select(logits.grad(), 0, 2)}) > 0);
}

TEST_CASE("ctc: bad input is named", "[host]") {
  const Tensor logits = zeros({1, 3, 4});
  CHECK_THAT(error_of([&] { nn::ctc(logits, {}, {{1}, {2}}); }), Contains("2 targets for a batch"));
  CHECK_THAT(error_of([&] { nn::ctc(zeros({3, 4}), {}, {{1}}); }), Contains("(B, T, V)"));
  CHECK_THAT(error_of([&] { nn::ctc(logits, Lengths({4}), {{1}}); }), Contains("expected 0 to 3"));
  CHECK_THROWS_AS(nn::ctc(logits, {}, {{4}}), Error);
  CHECK_THROWS_AS(nn::ctc(logits, {}, {{0}}), Error);
}
