// LSH attention against dense references that follow its buckets.
#include <catch2/catch.hpp>

#include "tensor/trace.h"

#include "tests/nn/attention_weights.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;

TEST_CASE("reformer with one chunk is attention to the normalised queries but one's own") {
  for (const int64_t time : {1, 2, 33}) {
    const Problem p = make_problem(
        {.batch = 2, .heads = 2, .queries = time, .keys = time, .width = 4, .value_width = 3}, 7);
    Tensor own = raw::one_hot(arange(time), time, DType::f64);
    if (time == 1) own = zeros({1, 1}, DType::f64);  // there is no other
    const auto plain = [&](const Tensor& q, const Tensor& v) {
      const Tensor k = q / sqrt(sum(square(q), {-1}, true));
      const Tensor scores = matmul(q, transpose(k, 2, 3)) / 2.0 - own * 1e9;
      return matmul(softmax(scores), v);
    };
    Tensor q = raw::clone(p.q).set_requires_grad(), v = raw::clone(p.v).set_requires_grad();
    const Tensor expected = plain(q, v);
    Rng rng(3, "cotangent");
    backward(expected, randn(expected.shape(), rng));
    if (time == 1) q.set_grad(zeros(q.shape(), DType::f64));  // the one weight is 1
    for (const char* options : {"rounds=1", "rounds=3", "rounds=3,uniform=true"}) {
      INFO(options << ", L " << time);
      const auto attention = make_attention(concat("reformer:chunk=33,", options));
      const Result got = run_with_gradients(*attention, p);
      CHECK(mismatch(got.out, expected.detach(), 1e-10, 1e-10) == "");
      CHECK(mismatch(got.grads[0], q.grad(), 1e-9, 1e-9) == "");
      CHECK(mismatch(got.grads[2], v.grad(), 1e-9, 1e-9) == "");
    }
  }
}

TEST_CASE("labels that a variant chose itself are not read back to be checked") {
  const Problem p = make_problem({.queries = 40, .keys = 40}, 7, DType::f32);
  const auto reductions = [&](const char* spec, const Choices* replay, Choices* record) {
    const auto attention = make_attention(spec);
    start_kernel_times();
    run(*attention, p, false, record, replay);
    int64_t calls = 0;
    for (const KernelTime& kernel : stop_kernel_times()) {
      if (kernel.name.starts_with("reduce")) calls += kernel.calls;
    }
    return calls;
  };
  for (const char* spec : {"multipole:chunk=4", "reformer:chunk=4", "clustered:clusters=4"}) {
    INFO(spec);
    Choices choices;
    const int64_t own = reductions(spec, nullptr, &choices);
    CHECK(own == (spec[0] == 'r' ? 1 : 0));  // reformer's norms of the queries
    CHECK(reductions(spec, &choices, nullptr) > own);
  }
}

TEST_CASE(
    "reformer: chunks of the sorted buckets, rounds weighted by their normalisers or equally") {
  const int64_t time = 45, chunk = 7, rounds = 3;
  Problem p = make_problem({.batch = 2, .heads = 2, .queries = time, .keys = time}, 9);
  p.q_lengths = p.k_lengths = Lengths({45, 29});
  for (const bool uniform : {false, true}) {
    Choices choices;
    const Table weights(weights_of(
        concat("reformer:rounds=3,chunk=7,buckets=6,uniform=", uniform ? "true" : "false"), p,
        &choices));
    const Table q(p.q);
    const Table k(raw::div(p.q, raw::sqrt(raw::sum(raw::square(p.q), {3}, true))));
    for (int64_t bh = 0; bh < 4; ++bh) {
      const int64_t b = bh / 2, h = bh % 2, valid = p.q_lengths[b];
      std::vector<std::vector<int64_t>> rank(rounds, std::vector<int64_t>(time, -1000));
      for (int64_t r = 0; r < rounds; ++r) {
        const Table bucket(choices.at(concat("buckets", r)));
        std::vector<int64_t> order(valid);
        for (int64_t l = 0; l < valid; ++l) order[l] = l;
        std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) {
          return bucket(b, h, x, 0) < bucket(b, h, y, 0);
        });
        for (int64_t i = 0; i < valid; ++i) rank[r][order[i]] = i;
      }
      for (int64_t l = 0; l < time; ++l) {
        Row expected(time, 0.0), sums(rounds, 0.0);
        std::vector<Row> row(rounds);
        double total = 0;
        for (int64_t r = 0; r < rounds && l < valid; ++r) {
          const int64_t own = rank[r][l] / chunk;
          const auto near = [&](int64_t s) {
            return s != l && s < valid && rank[r][s] / chunk <= own &&
                   rank[r][s] / chunk >= own - 1;
          };
          sums[r] = uniform ? 1 : std::exp(softmax_over(q(b, h, l), k, b, h, 0.5, near, row[r]));
          if (uniform) softmax_over(q(b, h, l), k, b, h, 0.5, near, row[r]);
          total += sums[r];
        }
        for (int64_t r = 0; r < rounds && l < valid; ++r) {
          for (int64_t s = 0; s < time; ++s) expected[s] += sums[r] / total * row[r][s];
        }
        REQUIRE(l2(weights(b, h, l), expected) < 1e-10);
      }
    }
  }
}
