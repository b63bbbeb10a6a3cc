// Linear attention: the sums against the matrix they avoid, features, long sequences.
#include <catch2/catch.hpp>
#include <cmath>

#include "autograd/ops.h"
#include "nn/attention.h"
#include "nn/attention/feature_maps.h"
#include "nn/layers.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

struct Problem {
  Tensor q, k, v;
  Lengths q_lengths{}, k_lengths{};
  bool causal = false;
};

Problem make_problem(int64_t queries, int64_t keys, uint64_t seed = 1, DType dtype = DType::f64) {
  Rng rng(seed, "problem");
  return {.q = randn({2, 3, queries, 4}, rng, dtype),
          .k = randn({2, 3, keys, 4}, rng, dtype),
          .v = randn({2, 3, keys, 5}, rng, dtype)};
}

Tensor attend(Attention& attention, const Problem& p, bool training = false, Rng* rng = nullptr) {
  Rng fixed(7);
  return attention.attend({.q = p.q,
                           .k = p.k,
                           .v = p.v,
                           .q_lengths = p.q_lengths,
                           .k_lengths = p.k_lengths,
                           .causal = p.causal,
                           .training = training,
                           .rng = rng ? rng : &fixed});
}

// The definition, with the matrix (L, S) of weights.
Tensor with_matrix(const std::string& map, const Problem& p) {
  const auto features = [&](const Tensor& x) {
    return map == "elu" ? elu(x) + (1 + 1e-6) : relu(x) + 1e-3;
  };
  const int64_t queries = p.q.size(2), keys = p.k.size(2);
  std::vector<double> seen;
  for (int64_t b = 0; b < p.q.size(0); ++b) {
    for (int64_t l = 0; l < queries; ++l) {
      for (int64_t s = 0; s < keys; ++s) {
        seen.push_back((!p.causal || s <= l) && (p.k_lengths.empty() || s < p.k_lengths[b]));
      }
    }
  }
  const Tensor mask = from_vector(seen, {p.q.size(0), 1, queries, keys});
  const Tensor weights = matmul(features(p.q), transpose(features(p.k), 2, 3)) * mask;
  return mask_padding(matmul(weights / sum(weights, {3}, true), p.v), p.q_lengths, 2);
}

struct Result {
  Tensor out;
  std::vector<Tensor> grads;
};

template <typename F>
Result with_gradients(Problem p, F&& f) {
  for (Tensor* x : {&p.q, &p.k, &p.v}) *x = raw::clone(*x).set_requires_grad();
  const Tensor out = f(p);
  Rng rng(3);
  backward(out, randn(out.shape(), rng));
  return {out.detach(), {p.q.grad(), p.k.grad(), p.v.grad()}};
}

}  // namespace

TEST_CASE("linear attention equals its definition, over one block and many, with all lengths") {
  for (const std::string map : {"elu", "relu"}) {
    const auto attention = make_attention("causal-linear:map=" + map);
    for (const auto& [queries, keys] :
         std::vector<std::pair<int64_t, int64_t>>{{64, 64}, {150, 150}, {129, 70}, {65, 200}}) {
      for (bool causal : {false, true}) {
        INFO(map << ", " << queries << " queries, " << keys << " keys, causal " << causal);
        Problem p = make_problem(queries, keys);
        p.causal = causal;
        for (bool padded : {false, true}) {
          if (padded) {
            p.q_lengths = Lengths({queries, queries - 3});
            p.k_lengths = Lengths({keys - 1, keys / 2});
          }
          const Result got =
              with_gradients(p, [&](const Problem& x) { return attend(*attention, x); });
          const Result expected =
              with_gradients(p, [&](const Problem& x) { return with_matrix(map, x); });
          CHECK(mismatch(got.out, expected.out, 1e-11, 1e-11) == "");
          for (size_t i = 0; i < 3; ++i) {
            CHECK(mismatch(got.grads[i], expected.grads[i], 1e-9, 1e-9) == "");
          }
        }
      }
    }
  }
}

TEST_CASE("linear and causal-linear are the same where both can be called") {
  const Problem p = make_problem(20, 30);
  CHECK(
      same_bits(attend(*make_attention("linear"), p), attend(*make_attention("causal-linear"), p)));
  Problem causal = p;
  causal.causal = true;
  CHECK_THAT(error_of([&] { attend(*make_attention("linear"), causal); }),
             Contains("linear: this variant cannot be causal"));
}

TEST_CASE("random features estimate softmax attention, the better the more there are", "[slow]") {
  // Short vectors: the variance of the estimate grows exponentially with |q + k|^2.
  Problem p = make_problem(12, 12);
  p.q = raw::mul(p.q, 0.5);
  p.k = raw::mul(p.k, 0.5);
  const auto error_with = [&](int64_t features, uint64_t draws) {
    const auto attention = make_attention(concat("causal-linear:map=favor,features=", features));
    double worst = 0;
    for (bool causal : {false, true}) {
      p.causal = causal;
      const Tensor exact = attend(*make_attention("full"), p);
      double total = 0;
      for (uint64_t seed = 0; seed < draws; ++seed) {
        Rng rng(seed);
        const Tensor apart = raw::binary(Binary::sub, attend(*attention, p, false, &rng), exact);
        total += raw::mean(raw::square(apart)).item();
      }
      worst = std::max(worst, total / static_cast<double>(draws));
    }
    return worst;
  };
  const double coarse = error_with(64, 8), fine = error_with(65536, 2);
  INFO("mean square error " << coarse << " with 64 features, " << fine << " with 65536");
  CHECK(coarse < 1e-2);
  CHECK(fine < coarse / 200);  // without bias, 1 / 1024 on average
}

TEST_CASE("frequencies are orthogonal in blocks, and as long as normal vectors") {
  Rng rng(5);
  const int64_t width = 6, count = 20000;
  const Tensor w = orthogonal_normals(count, width, rng);
  const std::vector<double> values = doubles(w);
  double total = 0, cross = 0;
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t s = r - r % width; s <= r; ++s) {
      double dot = 0;
      for (int64_t i = 0; i < width; ++i) dot += values[r * width + i] * values[s * width + i];
      if (s < r) cross = std::max(cross, std::fabs(dot));
      if (s == r) total += dot;
    }
  }
  CHECK(cross < 1e-9);
  CHECK(total / count == Approx(width).epsilon(0.02));
  // No direction is preferred.
  CHECK(mismatch(raw::mean(w, {0}), zeros({width}, DType::f64), 0, 0.03) == "");
  CHECK(mismatch(raw::mean(raw::square(w), {0}), ones({width}, DType::f64), 0, 0.05) == "");
}

TEST_CASE("random features are drawn anew in each training call, from the stream that is given") {
  const auto attention = make_attention("linear:map=favor,features=16");
  const Problem p = make_problem(9, 9);
  Rng rng(1), same(1);
  const Tensor first = attend(*attention, p, true, &rng),
               second = attend(*attention, p, true, &rng);
  CHECK(mismatch(first, second) != "");
  CHECK(same_bits(attend(*attention, p, false, &same), first));
}

TEST_CASE("values of any size give finite weights that sum to 1") {
  for (const char* spec : {"causal-linear", "causal-linear:map=relu", "causal-linear:map=favor"}) {
    const auto attention = make_attention(spec);
    for (double scale : {0.0, 30.0, -30.0, 3e4}) {
      for (bool causal : {false, true}) {
        INFO(spec << ", scale " << scale << ", causal " << causal);
        Problem p = make_problem(70, 70, 2, DType::f32);
        // At a negative scale every feature of elu and relu is at its smallest.
        p.q = raw::mul(scale < 0 ? raw::abs(p.q) : p.q, scale);
        p.k = raw::mul(scale < 0 ? raw::abs(p.k) : p.k, scale);
        p.v = ones(p.v.shape());
        p.causal = causal;
        for (Tensor* x : {&p.q, &p.k, &p.v}) x->set_requires_grad();
        const Tensor out = attend(*attention, p);
        CHECK(mismatch(out, ones(out.shape()), 1e-5, 1e-5) == "");
        backward(sum(out));
        for (const Tensor& x : {p.q, p.k, p.v}) CHECK_FALSE(raw::has_nonfinite(x.grad()));
      }
    }
  }
}

TEST_CASE("a long causal sequence takes memory in proportion to its length", "[host]") {
  const auto attention = make_attention("causal-linear");
  const auto peak_at = [&](int64_t length) {
    Rng rng(1);
    Tensor q = randn({1, 1, length, 8}, rng, DType::f32).set_requires_grad();
    CachingAllocator& memory = allocator({});
    memory.reset_peak();
    const uint64_t before = memory.stats().active;
    backward(sum(attention->attend({.q = q, .k = q, .v = q, .causal = true})));
    return static_cast<double>(memory.stats().peak - before);
  };
  const double small = peak_at(2048), large = peak_at(8192);
  INFO(small << " bytes for 2048 positions, " << large << " for 8192");
  CHECK(large < 4.5 * small);
  CHECK(large < 0.1 * 4 * 8192 * 8192);
}

TEST_CASE("linear attention: wrong options are named") {
  CHECK_THAT(error_of([] { make_attention("linear:map=exp"); }),
             Contains("map: expected one of") && Contains("favor") && Contains("got 'exp'"));
  CHECK_THAT(error_of([] { make_attention("linear:eps=1e-20"); }),
             Contains("eps: expected 0 or at least") && Contains("map=elu"));
  CHECK_THAT(error_of([] { make_attention("linear:map=favor,features=0"); }),
             Contains("features") && Contains("got '0'"));
}
