// conditional-full: which of the two answers.
#include <catch2/catch.hpp>

#include "nn/attention.h"
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

Problem make_problem(int64_t queries, int64_t keys) {
  Rng rng(1, "problem");
  return {.q = randn({3, 2, queries, 4}, rng),
          .k = randn({3, 2, keys, 4}, rng),
          .v = randn({3, 2, keys, 5}, rng)};
}

Tensor attend(const std::string& spec, const Problem& p, bool training = false) {
  Rng rng(7);
  return make_attention(spec)->attend({.q = p.q,
                                       .k = p.k,
                                       .v = p.v,
                                       .q_lengths = p.q_lengths,
                                       .k_lengths = p.k_lengths,
                                       .causal = p.causal,
                                       .training = training,
                                       .rng = &rng});
}

Tensor item(const Tensor& x, int64_t b) { return raw::slice(x, 0, b, b + 1); }

}  // namespace

TEST_CASE("conditional-full is full up to the limit, in queries and in keys") {
  for (const auto& [queries, keys] :
       std::vector<std::pair<int64_t, int64_t>>{{8, 8}, {8, 3}, {1, 8}}) {
    const Problem p = make_problem(queries, keys);
    CHECK(same_bits(attend("conditional-full:limit=8(linear)", p), attend("full", p)));
  }
  for (const auto& [queries, keys] :
       std::vector<std::pair<int64_t, int64_t>>{{9, 9}, {9, 3}, {1, 9}}) {
    const Problem p = make_problem(queries, keys);
    CHECK(same_bits(attend("conditional-full:limit=8(linear:map=relu)", p),
                    attend("linear:map=relu", p)));
  }
}

TEST_CASE("conditional-full decides for each item of a batch by its own lengths") {
  Problem p = make_problem(9, 10);
  p.q_lengths = Lengths({9, 5, 4});
  p.k_lengths = Lengths({2, 5, 10});
  const Tensor full = attend("full", p), linear = attend("linear", p);
  const Tensor out = attend("conditional-full:limit=5(linear)", p);
  CHECK(mismatch(item(out, 0), item(linear, 0), 1e-12, 1e-12) == "");
  CHECK(mismatch(item(out, 1), item(full, 1), 1e-12, 1e-12) == "");
  CHECK(mismatch(item(out, 2), item(linear, 2), 1e-12, 1e-12) == "");
  CHECK(mismatch(item(full, 0), item(linear, 0)) != "");
}

TEST_CASE("conditional-full, causal: full for the first positions, however many follow") {
  for (const auto& [queries, keys] :
       std::vector<std::pair<int64_t, int64_t>>{{9, 9}, {9, 3}, {9, 20}}) {
    Problem p = make_problem(queries, keys);
    p.causal = true;
    p.q_lengths = Lengths({9, 7, 2});
    const Tensor full = attend("full", p), linear = attend("causal-linear", p);
    const Tensor out = attend("conditional-full:limit=5(causal-linear)", p);
    const auto rows = [](const Tensor& x, int64_t begin, int64_t end) {
      return raw::slice(x, 2, begin, end);
    };
    CHECK(mismatch(rows(out, 0, 5), rows(full, 0, 5), 1e-12, 1e-12) == "");
    CHECK(mismatch(rows(out, 5, 9), rows(linear, 5, 9), 1e-12, 1e-12) == "");
    CHECK(mismatch(rows(full, 0, 5), rows(linear, 0, 5)) != "");
  }
}

TEST_CASE("conditional-full passes its options on to full attention, the rest to the inner one") {
  const Problem p = make_problem(6, 6);
  CHECK(same_bits(attend("conditional-full:temperature=0.3,dropout=0.4(linear)", p, true),
                  attend("full:temperature=0.3,dropout=0.4", p, true)));
  CHECK(mismatch(attend("conditional-full:dropout=0.4(linear)", p, true), attend("full", p)) != "");
  CHECK_THAT(error_of([] { make_attention("conditional-full(linaer)"); }),
             Contains("unknown variant 'linaer'"));
  CHECK_THAT(error_of([] { make_attention("conditional-full:limit=0(linear)"); }),
             Contains("option limit"));
  CHECK_THAT(error_of([] { make_attention("conditional-full(reformer)"); }),
             Contains("'reformer' takes the queries as keys"));
}

TEST_CASE("conditional-full can do what its inner variant can do") {
  CHECK(make_attention("conditional-full(causal-linear)")->capabilities().causal);
  CHECK_FALSE(make_attention("conditional-full(linear)")->capabilities().causal);
  Problem p = make_problem(3, 3);
  p.causal = true;
  CHECK_THAT(error_of([&] { attend("conditional-full(linear)", p); }),
             Contains("conditional-full: this variant cannot be causal"));
}
