// Sums over paths against the enumeration of all of them.
#include "tensor/fsa.h"
#include "tensor/parallel.h"
#include "tests/tensor/reference.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

// Z and its parts by class and frame, by trying every sequence of arcs. Between two frames stands
// the factor [the arcs meet] + leaky e^leak[where the second begins].
struct Enumeration {
  const Fsa& fsa;
  const double* x;
  int64_t time, classes;
  double leaky;
  double z = 0;
  std::vector<double> parts;
  std::vector<int32_t> labels;

  Enumeration(const Fsa& fsa, const double* x, int64_t time, int64_t classes, double leaky)
      : fsa(fsa), x(x), time(time), classes(classes), leaky(leaky), parts(time * classes) {
    if (time == 0) {
      for (int64_t s = 0; s < fsa.states(); ++s) z += std::exp(fsa.initial[s] + fsa.final[s]);
    } else {
      walk(0, -1, 1);
    }
  }
  void walk(int64_t t, int64_t at, double weight) {
    if (t == time) {
      weight *= std::exp(fsa.final[at]);
      z += weight;
      for (int64_t i = 0; i < time; ++i) parts[i * classes + labels[i]] += weight;
      return;
    }
    for (const FsaArc& arc : fsa.arcs) {
      double factor = t == 0 ? std::exp(fsa.initial[arc.from]) : arc.from == at ? 1 : 0;
      if (t > 0 && leaky > 0) factor += leaky * std::exp(fsa.leak[arc.from]);
      factor *= std::exp(arc.weight + x[t * classes + arc.label]);
      if (factor == 0) continue;
      labels.push_back(arc.label);
      walk(t + 1, arc.to, weight * factor);
      labels.pop_back();
    }
  }
};

// Some arcs, some states where a path may begin or end; parallel arcs and self-loops happen.
Fsa random_fsa(int64_t states, int64_t arcs, int64_t classes, Rng& rng, bool every_state = false) {
  Fsa fsa;
  const auto weight = [&](uint64_t one_in) {
    return every_state || rng.below(one_in) == 0 ? rng.normal() : -kInf;
  };
  for (int64_t s = 0; s < states; ++s) {
    fsa.add_state(s == 0 ? 0.3 : weight(3), weight(2));
    fsa.leak.push_back(rng.normal() - 1);
  }
  for (int64_t i = 0; i < arcs; ++i) {
    fsa.arcs.push_back({static_cast<int32_t>(rng.below(states)),
                        static_cast<int32_t>(rng.below(states)),
                        static_cast<int32_t>(rng.below(classes)), rng.normal()});
  }
  return fsa;
}

raw::PathSums sums(const Tensor& logits, const Fsa& fsa, double leaky = 0,
                   const Lengths& lengths = {}) {
  return raw::forward_backward(logits, lengths, pack({&fsa}, logits.size(2)), leaky, true);
}

void check_item(const raw::PathSums& got, int64_t b, const Enumeration& expected,
                double rtol = 1e-12) {
  const double log_z = got.log_z.to_vector<double>()[b];
  const Tensor posteriors = raw::select(got.posteriors, 0, b);
  std::vector<double> parts = expected.parts;
  parts.resize(posteriors.numel());  // 0 beyond the length
  if (expected.z == 0) {
    CHECK(log_z == -kInf);
  } else {
    CHECK(log_z == Approx(std::log(expected.z)).epsilon(rtol).margin(rtol));
    for (double& p : parts) p /= expected.z;
  }
  CHECK(mismatch(posteriors, parts, 10 * rtol, 10 * rtol) == "");
}

}  // namespace

TEST_CASE("forward-backward sums over exactly the paths of an acceptor, leaky or not") {
  Rng rng(1);
  int without = 0, with = 0;
  for (int64_t states = 1; states <= 4; ++states) {
    for (int64_t time = 0; time <= 4; ++time) {
      for (int64_t arcs : {0, 1, 5, 7}) {
        const int64_t classes = 1 + (states + arcs) % 4;
        const Fsa fsa = random_fsa(states, arcs, classes, rng);
        const Tensor logits = randn({2, time, classes}, rng, DType::f64, 2);
        for (double leaky : {0.0, 1e-5, 0.7}) {
          INFO("S " << states << " T " << time << " arcs " << arcs << " leaky " << leaky);
          const auto got = sums(logits, fsa, leaky);
          for (int64_t b = 0; b < 2; ++b) {
            const double* x = logits.data<double>() + b * time * classes;
            const Enumeration expected(fsa, x, time, classes, leaky);
            (expected.z == 0 ? without : with) += 1;
            check_item(got, b, expected);
          }
        }
      }
    }
  }
  CHECK(without > 50);
  CHECK(with > 100);
}

TEST_CASE("forward-backward: an acceptor for each item; lengths; padding is not read", "[host]") {
  Rng rng(2);
  const int64_t time = 4, classes = 3;
  const std::vector<int64_t> frames{4, 0, 1, 3, 2, 4, 4};
  const Tensor logits = randn({7, time, classes}, rng);
  std::vector<Fsa> all;
  for (int64_t b = 0; b < 7; ++b) {
    all.push_back(random_fsa(1 + b % 4, 3 + b % 5, classes, rng, b % 2 == 0));
    for (int64_t t = frames[b]; t < time; ++t) {
      for (int64_t k = 0; k < classes; ++k) {
        logits.data<double>()[(b * time + t) * classes + k] = kNan;
      }
    }
  }
  std::vector<const Fsa*> each;
  for (const Fsa& fsa : all) each.push_back(&fsa);
  const double* x = logits.data<double>();
  for (double leaky : {0.0, 0.01}) {
    const auto own =
        raw::forward_backward(logits, Lengths(frames), pack(each, classes), leaky, true);
    const auto shared = sums(logits, all[0], leaky, Lengths(frames));
    for (int64_t b = 0; b < 7; ++b) {
      INFO("item " << b << " leaky " << leaky);
      const double* item = x + b * time * classes;
      check_item(own, b, Enumeration(all[b], item, frames[b], classes, leaky));
      check_item(shared, b, Enumeration(all[0], item, frames[b], classes, leaky));
      const auto alone = sums(raw::slice(logits, 0, b, b + 1), all[0], leaky, Lengths({frames[b]}));
      CHECK(same_bits(alone.log_z, raw::slice(shared.log_z, 0, b, b + 1)));
      CHECK(same_bits(alone.posteriors, raw::slice(shared.posteriors, 0, b, b + 1)));
    }
  }
}

TEST_CASE("forward-backward: probabilities and logarithms give the same") {
  Rng rng(3);
  const int64_t time = 60, classes = 9;
  Fsa fsa = random_fsa(30, 200, classes, rng, true);
  const Tensor logits = randn({6, time, classes}, rng, DType::f64, 4);
  const auto fast = sums(logits, fsa, 1e-4);
  // A state that nothing enters, with a weight beyond the limits of the fast way.
  fsa.add_state(-1000, 0);
  fsa.leak.push_back(-1000);
  const auto slow = sums(logits, fsa, 1e-4);
  CHECK(mismatch(fast.log_z, slow.log_z, 1e-12) == "");
  CHECK(mismatch(fast.posteriors, slow.posteriors, 1e-10, 1e-11) == "");
  CHECK(mismatch(raw::sum(fast.posteriors, {2}), ones({6, time}, DType::f64), 1e-11) == "");
  const Tensor f32 = raw::cast(logits, DType::f32);
  const auto exact = sums(raw::cast(f32, DType::f64), fsa, 1e-4);
  CHECK(mismatch(sums(f32, fsa, 1e-4).posteriors, exact.posteriors, 1e-6, 1e-7) == "");
}

TEST_CASE("forward-backward: probabilities beyond the range of floats", "[host]") {
  // Only a path of ever improbable classes reaches the end.
  Fsa chain;
  for (int64_t s = 0; s < 40; ++s) {
    chain.add_state(s == 0 ? 0 : -kInf, s == 39 ? 0 : -kInf);
    const auto state = static_cast<int32_t>(s);
    chain.arcs.push_back({state, state, 0, 0});
    if (s > 0) chain.arcs.push_back({state - 1, state, 1, -300});
    chain.leak.push_back(-700);
  }
  const Tensor logits = zeros({1, 39, 2}, DType::f64);
  for (int64_t t = 0; t < 39; ++t) logits.data<double>()[2 * t] = 500;
  const auto got = sums(logits, chain);
  CHECK(got.log_z.item<double>() == Approx(-300.0 * 39));
  CHECK(mismatch(raw::select(got.posteriors, 2, 1), ones({1, 39}, DType::f64), 1e-12) == "");
  // A jump to the last state is now the best way, once: 38 frames of 500, 700 for the jump.
  const auto leaky = sums(logits, chain, 1);
  CHECK(leaky.log_z.item<double>() == Approx(39 * 500.0 - 700 + std::log(38.0)));
}

TEST_CASE("forward-backward: a constant in every frame moves log Z and nothing else") {
  Rng rng(4);
  const Fsa fsa = random_fsa(5, 20, 4, rng, true);
  const Tensor logits = randn({3, 11, 4}, rng), shift = randn({3, 11, 1}, rng, DType::f64, 10);
  for (double leaky : {0.0, 0.1}) {
    const auto before = sums(logits, fsa, leaky), after = sums(raw::add(logits, shift), fsa, leaky);
    const Tensor moved = raw::add(before.log_z, raw::sum(shift, {1, 2}));
    CHECK(mismatch(after.log_z, moved, 1e-12, 1e-12) == "");
    CHECK(mismatch(after.posteriors, before.posteriors, 1e-10, 1e-12) == "");
  }
}

TEST_CASE("forward-backward: infinite and NaN logits", "[host]") {
  Rng rng(5);
  const Fsa fsa = random_fsa(3, 12, 3, rng, true);
  for (double leaky : {0.0, 0.2}) {
    Tensor logits = randn({4, 3, 3}, rng);
    double* x = logits.data<double>();
    x[4] = -kInf;                                      // a class that cannot be
    for (int i = 0; i < 3; ++i) x[9 + 3 + i] = -kInf;  // item 1: a frame without any
    x[18] = kNan;                                      // item 2
    x[27 + 8] = kInf;                                  // item 3
    const auto got = sums(logits, fsa, leaky);
    check_item(got, 0, Enumeration(fsa, x, 3, 3, leaky));
    check_item(got, 1, Enumeration(fsa, x + 9, 3, 3, leaky));
    CHECK(got.log_z.to_vector<double>()[1] == -kInf);
    for (int64_t b : {2, 3}) {
      CHECK(std::isnan(got.log_z.to_vector<double>()[b]));
      CHECK(std::isnan(raw::select(got.posteriors, 0, b).to_vector<double>()[0]));
    }
  }
}

TEST_CASE("forward-backward does not depend on the number of threads", "[host]") {
  Rng rng(6);
  const Fsa fsa = random_fsa(20, 90, 7, rng, true);
  const Tensor logits = randn({11, 25, 7}, rng, DType::f32);
  const int before = num_threads();
  for (double leaky : {0.0, 0.1}) {
    set_num_threads(1);
    const auto one = sums(logits, fsa, leaky);
    set_num_threads(4);
    const auto four = sums(logits, fsa, leaky);
    CHECK(same_bits(one.log_z, four.log_z));
    CHECK(same_bits(one.posteriors, four.posteriors));
  }
  set_num_threads(before);
}

TEST_CASE("forward-backward: bad acceptors and arguments are named", "[host]") {
  Fsa fsa;
  fsa.add_state(0, 0);
  fsa.add_state(-kInf, 0);
  fsa.arcs = {{0, 1, 2, 0}};
  const Tensor logits = zeros({2, 3, 4});
  const auto error = [&](const auto& change) {
    Fsa bad = fsa;
    change(bad);
    return error_of([&] { sums(logits, bad); });
  };
  CHECK(error([](Fsa&) {}) == "<no error>");
  CHECK_THAT(error([](Fsa& f) { f.arcs[0].to = 2; }), Contains("from state 0 to 2"));
  CHECK_THAT(error([](Fsa& f) { f.arcs[0].from = -1; }), Contains("from state -1"));
  CHECK_THAT(error([](Fsa& f) { f.arcs[0].label = 4; }), Contains("class 4"));
  CHECK_THAT(error([](Fsa& f) { f.arcs[0].weight = kNan; }), Contains("weight nan"));
  CHECK_THAT(error([](Fsa& f) { f.final.pop_back(); }), Contains("final"));
  CHECK_THAT(error([](Fsa& f) { f.initial[0] = kInf; }), Contains("initial"));
  CHECK_THAT(error_of([&] { pack({}, 4); }), Contains("at least one"));
  const FsaBatch packed = pack({&fsa}, 4), three = pack({&fsa, &fsa, &fsa}, 4);
  const auto call = [&](const FsaBatch& batch, const Tensor& x, double leaky,
                        Lengths lengths = {}) {
    return error_of([&] { raw::forward_backward(x, lengths, batch, leaky, true); });
  };
  CHECK_THAT(call(packed, logits, 0.1), Contains("leaky"));
  CHECK_THAT(call(packed, logits, -1), Contains("leaky"));
  CHECK_THAT(call(three, logits, 0), Contains("3 acceptors for a batch of 2"));
  CHECK_THAT(call(packed, zeros({2, 3, 5}), 0), Contains("4 classes"));
  CHECK_THAT(call(packed, zeros({3, 4}), 0), Contains("(B, T, V)"));
  CHECK_THAT(call(packed, logits, 0, Lengths({4, 1})), Contains("expected 0 to 3"));
  CHECK(raw::forward_backward(zeros({0, 3, 4}), {}, packed, 0, true).log_z.numel() == 0);
}
