#include "tests/tensor/reference.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// What a path reads as: equal neighbours merged, then blanks dropped.
std::vector<int32_t> read_path(const std::vector<int32_t>& path, int64_t blank) {
  std::vector<int32_t> text;
  for (size_t t = 0; t < path.size(); ++t) {
    if (path[t] != blank && (t == 0 || path[t] != path[t - 1])) text.push_back(path[t]);
  }
  return text;
}

// -log p of a target by trying every one of the V^T paths. logits (T, V), row-major.
double enumerate(const std::vector<double>& logits, int64_t time, int64_t classes,
                 const std::vector<int32_t>& target, int64_t blank) {
  std::vector<double> p(logits.size());
  for (int64_t t = 0; t < time; ++t) {
    double sum = 0;
    for (int64_t k = 0; k < classes; ++k) sum += std::exp(logits[t * classes + k]);
    for (int64_t k = 0; k < classes; ++k) {
      p[t * classes + k] = std::exp(logits[t * classes + k]) / sum;
    }
  }
  double total = 0;
  std::vector<int32_t> path(time, 0);
  for (bool more = true; more;) {
    if (read_path(path, blank) == target) {
      double product = 1;
      for (int64_t t = 0; t < time; ++t) product *= p[t * classes + path[t]];
      total += product;
    }
    more = false;
    for (int64_t t = 0; t < time && !more; ++t) {
      if (++path[t] < classes) {
        more = true;
      } else {
        path[t] = 0;
      }
    }
  }
  return -std::log(total);
}

Tensor labels_of(const std::vector<int32_t>& target) {
  return from_vector(target, {1, static_cast<int64_t>(target.size())});
}

// Loss and gradient of one item.
raw::LossAndGrad ctc_of(const Tensor& logits, const std::vector<int32_t>& target,
                        int64_t blank = 0) {
  return raw::ctc(logits, labels_of(target), {}, {}, blank, true);
}

}  // namespace

TEST_CASE("ctc sums over exactly the paths that read as the target") {
  Rng rng(1);
  int feasible = 0, infeasible = 0;
  for (int64_t classes = 1; classes <= 4; ++classes) {
    for (int64_t time = 0; time <= 6; ++time) {
      for (int64_t blank = 0; blank < classes; ++blank) {
        const Tensor logits = randn({1, time, classes}, rng, DType::f64, 2);
        for (int64_t count = 0; count <= (classes == 1 ? 0 : 4); ++count) {
          std::vector<int32_t> target(count);
          for (int32_t& label : target) {
            label = static_cast<int32_t>((blank + 1 + rng.below(classes - 1)) % classes);
          }
          const double expected =
              enumerate(logits.to_vector<double>(), time, classes, target, blank);
          const auto got = ctc_of(logits, target, blank);
          INFO("T " << time << " V " << classes << " blank " << blank << " U " << count);
          if (std::isinf(expected)) {
            ++infeasible;
            CHECK(got.losses.item<double>() == kInf);
            CHECK(mismatch(got.dlogits, zeros(logits.shape()), 0, 0) == "");
          } else {
            ++feasible;
            CHECK(got.losses.item<double>() == Approx(expected).epsilon(1e-12).margin(1e-13));
          }
        }
      }
    }
  }
  CHECK(feasible > 100);
  CHECK(infeasible > 50);
}

TEST_CASE("ctc's gradient is the derivative of its loss", "[host]") {
  Rng rng(2);
  for (const auto& [time, classes, blank, target] :
       std::vector<std::tuple<int64_t, int64_t, int64_t, std::vector<int32_t>>>{
           {1, 2, 0, {1}},
           {5, 4, 0, {1, 1}},
           {9, 5, 4, {0, 3, 3, 0}},
           {4, 3, 1, {}},
           {12, 6, 2, {1, 0, 5, 5, 5}},
           {3, 4, 0, {3, 1, 2}}}) {
    const Tensor logits = randn({1, time, classes}, rng, DType::f64, 2);
    const auto got = ctc_of(logits, target, blank);
    double* x = logits.data<double>();
    for (int64_t i = 0; i < logits.numel(); ++i) {
      const double h = 1e-5, before = x[i];
      x[i] = before + h;
      const double above = ctc_of(logits, target, blank).losses.item<double>();
      x[i] = before - h;
      const double below = ctc_of(logits, target, blank).losses.item<double>();
      x[i] = before;
      CHECK(got.dlogits.to_vector<double>()[i] ==
            Approx((above - below) / (2 * h)).epsilon(1e-7).margin(1e-9));
    }
  }
}

TEST_CASE("ctc of a batch is that of its items; padding is neither read nor given a gradient") {
  Rng rng(3);
  const int64_t time = 20, classes = 7, width = 8;
  const std::vector<int64_t> frames{20, 13, 1, 0, 7, 0}, counts{8, 5, 1, 0, 0, 2};
  const Tensor logits = randn({6, time, classes}, rng);
  std::vector<int32_t> labels(6 * width, -7);  // no class: read, it would be refused
  for (int64_t b = 0; b < 6; ++b) {
    for (int64_t u = 0; u < counts[b]; ++u) labels[b * width + u] = 1 + (b + u * u) % 6;
    for (int64_t t = frames[b]; t < time; ++t) {
      for (int64_t k = 0; k < classes; ++k)
        logits.data<double>()[(b * time + t) * classes + k] = kNan;
    }
  }
  const Tensor targets = from_vector(labels, {6, width});
  const auto batch = raw::ctc(logits, targets, Lengths(frames), Lengths(counts), 0, true);
  for (int64_t b = 0; b < 6; ++b) {
    const Tensor x = raw::slice(raw::slice(logits, 0, b, b + 1), 1, 0, frames[b]);
    const std::vector<int32_t> target(&labels[b * width], &labels[b * width] + counts[b]);
    const auto one = ctc_of(x, target);
    CHECK(same_bits(raw::select(batch.losses, 0, b), raw::select(one.losses, 0, 0)));
    const Tensor dx = raw::slice(batch.dlogits, 0, b, b + 1);
    CHECK(same_bits(raw::slice(dx, 1, 0, frames[b]), one.dlogits));
    CHECK(mismatch(raw::slice(dx, 1, frames[b], time), zeros({1, time - frames[b], classes}), 0,
                   0) == "");
  }
  CHECK(batch.losses.to_vector<double>()[3] == 0);
  CHECK(batch.losses.to_vector<double>()[5] == kInf);
  const auto again =
      raw::ctc(strided(logits), strided(targets), Lengths(frames), Lengths(counts), 0, true);
  CHECK(same_bits(again.dlogits, batch.dlogits));
  const auto alone = raw::ctc(logits, targets, Lengths(frames), Lengths(counts), 0, false);
  CHECK(same_bits(alone.losses, batch.losses));
  CHECK_FALSE(alone.dlogits.defined());
}

TEST_CASE("ctc needs a frame more for every repeated label") {
  const Tensor two = zeros({1, 2, 3}, DType::f64), three = zeros({1, 3, 3}, DType::f64);
  CHECK(ctc_of(two, {1, 2}).losses.item<double>() == Approx(2 * std::log(3.0)));
  CHECK(ctc_of(two, {1, 1}).losses.item<double>() == kInf);
  CHECK(ctc_of(three, {1, 1}).losses.item<double>() == Approx(3 * std::log(3.0)));
}

TEST_CASE("ctc of a long utterance is finite and its gradients sum to 0 in every frame") {
  Rng rng(4);
  const int64_t time = 2000, classes = 50, count = 200;
  for (const double scale : {1.0, 60.0}) {  // 60: paths of probability 1e-300000
    const Tensor logits = randn({1, time, classes}, rng, DType::f64, scale);
    std::vector<int32_t> target(count);
    for (int32_t& label : target) label = static_cast<int32_t>(1 + rng.below(classes - 1));
    const auto got = ctc_of(logits, target);
    CHECK(std::isfinite(got.losses.item<double>()));
    CHECK(mismatch(raw::sum(got.dlogits, {2}), zeros({1, time}, DType::f64), 0, 1e-9) == "");
    const auto single = ctc_of(raw::cast(logits, DType::f32), target);
    CHECK(mismatch(single.losses, raw::cast(got.losses, DType::f32), 2e-6, 0) == "");
    CHECK(mismatch(single.dlogits, got.dlogits, 0, 1e-3) == "");
  }
}

TEST_CASE("ctc in f32 differs from f64 by the rounding of its result") {
  Rng rng(5);
  const Tensor logits = randn({2, 30, 11}, rng, DType::f32, 3);
  const Tensor targets = raw::add(randint({2, 9}, 10, rng, DType::i32), 1);
  const auto a = raw::ctc(logits, targets, {}, {}, 0, true);
  const auto b = raw::ctc(raw::cast(logits, DType::f64), targets, {}, {}, 0, true);
  CHECK(mismatch(a.losses, b.losses, 1e-7, 0) == "");
  CHECK(mismatch(a.dlogits, b.dlogits, 0, 1e-7) == "");
}

TEST_CASE("ctc with certain and impossible classes", "[host]") {
  const Tensor logits = full({1, 4, 3}, -kInf, DType::f64);
  for (int t = 0; t < 4; ++t) logits.data<double>()[t * 3 + (t % 2 ? 0 : 1)] = 5;
  const auto certain = ctc_of(logits, {1, 1});
  CHECK(certain.losses.item<double>() == Approx(0).margin(1e-12));
  CHECK(mismatch(certain.dlogits, zeros({1, 4, 3}), 0, 1e-12) == "");
  const auto impossible = ctc_of(logits, {2});
  CHECK(impossible.losses.item<double>() == kInf);
  CHECK(mismatch(impossible.dlogits, zeros({1, 4, 3}), 0, 0) == "");
}

TEST_CASE("ctc lets a NaN through to its item's loss and gradient", "[host]") {
  const Tensor logits = zeros({2, 3, 3}, DType::f64);
  logits.data<double>()[4] = kNan;
  const auto got = raw::ctc(logits, from_vector<int32_t>({1, 1}, {2, 1}), {}, {}, 0, true);
  const std::vector<double> losses = got.losses.to_vector<double>();
  CHECK(std::isnan(losses[0]));
  CHECK(std::isfinite(losses[1]));
  const std::vector<double> dx = got.dlogits.to_vector<double>();
  for (int i = 0; i < 18; ++i) {  // class 2 is not in the target: it has a gradient of its own
    const bool reached = i < 9 && (i % 3 < 2 || i / 3 == 1);
    CHECK(std::isnan(dx[i]) == reached);
  }
}

TEST_CASE("ctc gives the same bits on any number of threads") {
  Rng rng(6);
  const Tensor logits = randn({9, 60, 20}, rng, DType::f32);
  const Tensor targets = raw::add(randint({9, 15}, 19, rng, DType::i32), 1);
  const Lengths frames({60, 50, 60, 3, 44, 60, 59, 1, 60});
  CHECK(same_on_any_threads([&] {
    const auto got = raw::ctc(logits, targets, frames, {}, 0, true);
    return std::vector{got.losses, got.dlogits};
  }));
}

TEST_CASE("ctc explains what does not fit", "[host]") {
  const Tensor x = zeros({2, 4, 3});
  const Tensor good = from_vector<int32_t>({1, 2, 2, 1}, {2, 2});
  const auto with = [&](const Tensor& targets, const Lengths& frames, const Lengths& counts,
                        int64_t blank = 0) {
    return error_of([&] { raw::ctc(x, targets, frames, counts, blank, false); });
  };
  CHECK(with(good, {}, {}) == "<no error>");
  CHECK(with(from_vector<int32_t>({1, 2, 2, 3}, {2, 2}), {}, {}) ==
        "ctc: label 1 of item 1: expected one in [0, 3) other than blank 0, got 3");
  CHECK_THAT(with(good, {}, {}, 2), Catch::Contains("other than blank 2, got 2"));
  CHECK(with(good, {}, {}, 3) == "ctc: blank: expected one of the 3 classes, got 3");
  CHECK(with(good, Lengths({4, 5}), {}) == "ctc: input: length of item 1: expected 0 to 4, got 5");
  CHECK_THAT(with(good, {}, Lengths({3, 2})), Catch::Contains("ctc: target"));
  CHECK(with(zeros({3, 2}, DType::i32), {}, {}) == "ctc: targets: expected (2, U), got (3, 2)");
  CHECK(with(zeros({2, 2}, DType::i64), {}, {}) == "ctc: targets: expected i32, got i64");
  CHECK(raw::ctc(zeros({0, 4, 3}), zeros({0, 2}, DType::i32), {}, {}, 0, true).losses.numel() == 0);
}
