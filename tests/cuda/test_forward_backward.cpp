// Sums over paths on the device, against the CPU.
#include <catch2/catch.hpp>

#include "tensor/fsa.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

constexpr double kInf = INFINITY;

// Every state may be reached; some begin, some end.
Fsa random_fsa(int64_t states, int64_t arcs, int64_t classes, Rng& rng) {
  Fsa fsa;
  for (int64_t s = 0; s < states; ++s) {
    fsa.add_state(s == 0 || rng.below(3) == 0 ? rng.normal() : -kInf,
                  s == 0 || rng.below(2) == 0 ? rng.normal() : -kInf);
    fsa.leak.push_back(rng.normal() - 2);
  }
  for (int64_t i = 0; i < arcs; ++i) {
    const int64_t from = i < states ? i : static_cast<int64_t>(rng.below(states));
    const int64_t to = i < states ? (i + 1) % states : static_cast<int64_t>(rng.below(states));
    fsa.arcs.push_back({static_cast<int32_t>(from), static_cast<int32_t>(to),
                        static_cast<int32_t>(rng.below(classes)), rng.normal()});
  }
  return fsa;
}

Computation sums_with(const std::vector<Fsa>& acceptors, const Lengths& frames, double leaky,
                      bool posteriors = true) {
  return [=](const Tensors& in) -> Tensors {
    std::vector<const Fsa*> each;
    for (const Fsa& fsa : acceptors) each.push_back(&fsa);
    const FsaBatch fsa = pack(each, in[0].size(2), in[0].device());
    const auto result = raw::forward_backward(in[0], frames, fsa, leaky, posteriors);
    return {result.log_z, result.posteriors};
  };
}

}  // namespace

TEST_CASE("cuda: forward-backward of one acceptor and of one for each item, leaky or not") {
  Rng rng(1);
  const int64_t time = 7;
  const Lengths frames({7, 4, 1, 0, 6});
  for (int64_t classes : {1, 5, 40}) {
    const Tensor logits = randn({5, time, classes}, rng, DType::f64, 2);
    std::vector<Fsa> five;
    for (int64_t b = 0; b < 5; ++b) five.push_back(random_fsa(1 + 3 * b, 4 + 7 * b, classes, rng));
    for (double leaky : {0.0, 1e-5, 0.5}) {
      INFO("V " << classes << " leaky " << leaky);
      CHECK(disagreement(sums_with(five, frames, leaky), {logits}) == "");
      CHECK(disagreement(sums_with({five[4]}, frames, leaky), {logits}) == "");
      CHECK(disagreement(sums_with({five[2]}, {}, leaky, false), {logits}) == "");
    }
  }
}

TEST_CASE("cuda: forward-backward of more states and classes than threads") {
  Rng rng(2);
  const Fsa fsa = random_fsa(300, 900, 600, rng);
  const Tensor logits = randn({1, 3, 600}, rng);
  CHECK(disagreement(sums_with({fsa}, {}, 0.01), {logits}) == "");
  CHECK(disagreement(sums_with({fsa}, {}, 0), {logits}) == "");
}

TEST_CASE("cuda: forward-backward of probabilities beyond the range of floats, and of none") {
  Rng rng(3);
  Fsa fsa = random_fsa(6, 20, 5, rng);
  for (double scale : {40.0, 1e3}) {
    const Tensor logits = randn({2, 20, 5}, rng, DType::f64, scale);
    CHECK(disagreement(sums_with({fsa}, Lengths({20, 11}), 0), {logits}) == "");
    CHECK(disagreement(sums_with({fsa}, Lengths({20, 11}), 0.1), {logits}) == "");
  }
  // Large weights; then a chain too long for its frames.
  fsa.arcs[3].weight = 900;
  fsa.arcs[4].weight = -900;
  fsa.initial[0] = 3;
  CHECK(disagreement(sums_with({fsa}, {}, 0), {randn({2, 5, 5}, rng)}) == "");
  Fsa chain;
  for (int32_t s = 0; s < 6; ++s) {
    chain.add_state(s == 0 ? 0 : -kInf, s == 5 ? 0 : -kInf);
    if (s > 0) chain.arcs.push_back({s - 1, s, 1, 0});
  }
  CHECK(disagreement(sums_with({chain}, Lengths({6, 5, 4}), 0), {randn({3, 6, 3}, rng)}) == "");
}

TEST_CASE("cuda: forward-backward of impossible classes, NaN and infinite logits") {
  Rng rng(4);
  const Fsa fsa = random_fsa(4, 14, 3, rng);
  const Tensor logits = randn({5, 4, 3}, rng);
  double* x = logits.data<double>();
  x[4] = -kInf;
  for (int i = 0; i < 3; ++i) x[12 + 6 + i] = -kInf;
  x[24 + 7] = NAN;
  x[36 + 7] = kInf;
  x[48 + 11] = NAN;  // beyond the length
  for (double leaky : {0.0, 0.3}) {
    CHECK(disagreement(sums_with({fsa}, Lengths({4, 4, 4, 4, 3}), leaky), {logits}) == "");
  }
}

TEST_CASE("cuda: forward-backward gives the same bits twice") {
  Rng rng(5);
  const Fsa fsa = random_fsa(40, 160, 9, rng);
  const Tensor logits = raw::to(randn({3, 9, 9}, rng, DType::f32), kCuda);
  const FsaBatch packed = pack({&fsa}, 9, kCuda);
  const auto once = raw::forward_backward(logits, {}, packed, 0.1, true);
  const auto again = raw::forward_backward(logits, {}, packed, 0.1, true);
  CHECK(same_bits(raw::to(once.log_z, Device{}), raw::to(again.log_z, Device{})));
  CHECK(same_bits(raw::to(once.posteriors, Device{}), raw::to(again.posteriors, Device{})));
}
