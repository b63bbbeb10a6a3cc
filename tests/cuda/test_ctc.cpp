// CTC on the device, against the CPU.
#include <catch2/catch.hpp>

#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

constexpr double kInf = INFINITY;

Computation ctc_with(const Lengths& frames, const Lengths& counts, int64_t blank,
                     bool with_grad = true) {
  return [=](const Tensors& in) -> Tensors {
    const auto result = raw::ctc(in[0], in[1], frames, counts, blank, with_grad);
    return {result.losses, result.dlogits};
  };
}

// (B, U) i32 labels other than the blank; `distinct` of them.
Tensor labels(const Shape& shape, int64_t distinct, int64_t blank, Rng& rng) {
  std::vector<int32_t> values(numel(shape));
  for (int32_t& v : values) {
    v = static_cast<int32_t>(rng.below(distinct));
    if (v >= blank) ++v;
  }
  return from_vector(values, shape);
}

}  // namespace

TEST_CASE("cuda: ctc of batches with lengths, repeats, items that do not fit, any blank") {
  Rng rng(1);
  const int64_t time = 23, width = 9;
  const Lengths frames({23, 14, 1, 0, 7, 0, 5}), counts({9, 5, 1, 0, 0, 2, 9});
  for (int64_t classes : {2, 7, 40}) {
    for (int64_t blank : {int64_t{0}, classes - 1}) {
      const Tensor logits = randn({7, time, classes}, rng, DType::f64, 2);
      const Tensor targets = labels({7, width}, std::min<int64_t>(3, classes - 1), blank, rng);
      INFO("V " << classes << " blank " << blank);
      CHECK(disagreement(ctc_with(frames, counts, blank), {logits, targets}) == "");
      CHECK(disagreement(ctc_with({}, {}, blank, false), {logits, targets}) == "");
    }
  }
}

TEST_CASE("cuda: ctc of targets for one warp, several, a large block and global memory") {
  Rng rng(2);
  struct Size {
    int64_t batch, time, width, classes;
  };
  // The borders of the four ways to walk, and rows of every kind of group.
  for (const Size& s :
       {Size{2, 70, 31, 9}, Size{2, 70, 32, 130}, Size{1, 140, 127, 12}, Size{1, 140, 128, 4},
        Size{1, 12, 300, 5}, Size{1, 20, 520, 600}, Size{2, 3, 1, 4100}, Size{2, 5, 0, 3}}) {
    const Tensor logits = randn({s.batch, s.time, s.classes}, rng, DType::f64, 2);
    const Tensor targets = labels({s.batch, s.width}, s.classes - 1, 0, rng);
    const Lengths full(std::vector<int64_t>(s.batch, std::min(s.width, s.time / 2)));
    INFO("U " << s.width << " T " << s.time << " V " << s.classes);
    CHECK(disagreement(ctc_with({}, full, 0), {logits, targets}) == "");
  }
}

TEST_CASE("cuda: ctc in global memory of more labels than threads, with a path and without") {
  Rng rng(3);
  const int64_t count = 260, time = 270;
  std::vector<int32_t> values(2 * 512, 99);  // 512: wide enough for this way, whatever the lengths
  for (int64_t i = 0; i < count; ++i) values[i] = values[512 + i] = static_cast<int32_t>(1 + i % 3);
  const Tensor targets = from_vector(values, {2, 512});
  const Tensor logits = randn({2, time, 4}, rng, DType::f64, 2);
  const Lengths frames({time, 20}), counts({count, 22});
  CHECK(disagreement(ctc_with(frames, counts, 0), {logits, targets}) == "");
}

TEST_CASE("cuda: ctc of probabilities beyond the range of floats") {
  Rng rng(4);
  const Tensor targets = labels({2, 20}, 5, 0, rng);
  for (double scale : {40.0, 1e4}) {
    const Tensor logits = randn({2, 100, 6}, rng, DType::f64, scale);
    CHECK(disagreement(ctc_with(Lengths({100, 60}), {}, 0), {logits, targets}) == "");
  }
}

TEST_CASE("cuda: ctc with certain and impossible classes, and near a loss of 0") {
  const Tensor targets = from_vector<int32_t>({1, 1, 2, 1, 2, 1}, {3, 2});
  for (double low : {-kInf, -6.0}) {
    std::vector<double> values(3 * 4 * 3, low);
    for (int t = 0; t < 8; ++t) values[t * 3 + (t % 2 ? 0 : 1)] = 5;
    for (int i = 24; i < 36; ++i) values[i] = 0.3 * (i % 5);
    const Tensor logits = from_vector(values, {3, 4, 3});
    CHECK(disagreement(ctc_with({}, {}, 0), {logits, targets}) == "");
  }
}

TEST_CASE("cuda: ctc lets a NaN through to its item; infinite logits are one") {
  for (double bad : {double{NAN}, kInf}) {
    std::vector<double> values(3 * 4 * 3, 0.0);
    values[4] = bad;
    values[2 * 12 + 11] = bad;  // beyond the last item's length
    const Tensor logits = from_vector(values, {3, 4, 3});
    const Tensor targets = from_vector<int32_t>({1, 1, 1}, {3, 1});
    CHECK(disagreement(ctc_with(Lengths({4, 4, 3}), {}, 0), {logits, targets}) == "");
  }
}

TEST_CASE("cuda: ctc gives the same bits twice") {
  Rng rng(5);
  const Tensor logits = raw::to(randn({3, 40, 20}, rng, DType::f32), kCuda);
  const Tensor targets = raw::to(labels({3, 15}, 4, 0, rng), kCuda);
  const auto once = raw::ctc(logits, targets, {}, {}, 0, true);
  const auto again = raw::ctc(logits, targets, {}, {}, 0, true);
  CHECK(same_bits(raw::to(once.losses, Device{}), raw::to(again.losses, Device{})));
  CHECK(same_bits(raw::to(once.dlogits, Device{}), raw::to(again.dlogits, Device{})));
}

TEST_CASE("cuda: ctc reports a label that is none when its results are asked for") {
  Rng rng(6);
  const Tensor host = randn({3, 12, 5}, rng, DType::f32), logits = raw::to(host, kCuda);
  for (int32_t bad : {5, -1, 1 << 30, 0}) {
    const Tensor targets = from_vector<int32_t>({1, 2, 3, bad, 4, 4}, {3, 2});
    const auto result = raw::ctc(logits, raw::to(targets, kCuda), {}, {}, 0, true);
    const std::string error = error_of([&] { result.losses.to_vector<float>(); });
    CHECK_THAT(error, Contains("ctc") && Contains(concat("index ", bad)) &&
                          Contains("position 3") && Contains("[0, 5)"));
    if (bad == 0) CHECK_THAT(error, Contains("a label is the blank"));
    const auto good =
        raw::ctc(host, from_vector<int32_t>({1, 2, 3, 3, 4, 4}, {3, 2}), {}, {}, 0, true);
    const std::vector<float> losses = result.losses.to_vector<float>();
    for (int b : {0, 2}) CHECK(losses[b] == Approx(good.losses.to_vector<float>()[b]));
    CHECK(std::isnan(losses[1]));
    const Tensor dx = raw::to(result.dlogits, Device{});
    CHECK(mismatch(raw::select(dx, 0, 1), zeros({12, 5}), 0, 0) == "");
    CHECK(mismatch(raw::select(dx, 0, 2), raw::select(good.dlogits, 0, 2), 1e-5, 1e-6) == "");
  }
  // Labels beyond an item's length are not looked at.
  const Tensor padded = raw::to(from_vector<int32_t>({1, 99, 3, -5, 4, 0}, {3, 2}), kCuda);
  const auto result = raw::ctc(logits, padded, {}, Lengths({1, 1, 1}), 0, true);
  CHECK(error_of([&] { result.losses.to_vector<float>(); }) == "<no error>");
}
