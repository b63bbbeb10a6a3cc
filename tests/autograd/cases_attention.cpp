// Attention and clusters: their cases for the list of all operations, and their meaning in terms of
// plain operations.
#include <catch2/catch.hpp>

#include "tests/autograd/cases.h"

namespace centroid::test {

namespace {

constexpr double kScale = 0.7;

// The log-sum of a query without keys is -inf: 0 here, so that it can be weighted.
Tensor finite(const Tensor& lse) {
  return where(raw::compare(Compare::gt, lse, -1e30), lse, zeros({1}, lse.dtype()));
}

WeightDropout dropout_of(double p) { return {p, Rng(3, "dropout").reserve(1)}; }

Tensor ints(const std::vector<int32_t>& values, const Shape& shape) {
  return from_vector(values, shape);
}

// ---- tile_attention -----------------------------------------------------------------------------

struct TileCase {
  const char* what;
  KeyMask mask;
  double p = 0;
};

// For batch 2, 3 queries, 5 keys.
std::vector<TileCase> tile_cases() {
  const auto lengths = [](const std::vector<int64_t>& values) { return Lengths(values).tensor(); };
  const Tensor begin = ints({-1, 1, 2}, {3}), end = ints({2, 9, 2}, {3});
  KeyMask keys, both, none, causal, window, all;
  keys.k_lengths = both.k_lengths = all.k_lengths = lengths({5, 3});
  both.q_lengths = lengths({3, 2});
  none.k_lengths = lengths({4, 0});
  causal.end = ints({1, 2, 3}, {3});
  window.begin = begin, window.end = end;  // the last query sees nothing
  all = both, all.begin = begin;
  return {{"everything", {}},     {"key lengths", keys},
          {"both lengths", both}, {"an item without keys", none},
          {"causal", causal},     {"window", window},
          {"dropout", {}, 0.3},   {"lengths, begin and dropout", all, 0.3}};
}

// ---- gathered_attention -------------------------------------------------------------------------

// Batch 1, 2 heads, 5 queries, 4 keys, 3 groups with lists of up to 3 keys. Query 3 of head 0 is in
// no group when `partly`; one group is empty, one has no keys; query 0 of head 1 lists itself
// alone.
Groups make_groups(bool partly) {
  const int32_t last = partly ? -1 : 2;
  const Clusters clusters =
      raw::clusters_of_labels(ints({0, 2, 0, last, 2, 1, 0, 0, 2, 0}, {1, 2, 5}), 3);
  const Tensor keys =
      ints({3, 0, 2, 1, 2, -1, 2, -1, 1, 1, 3, 2, 0, -1, -1, -1, -1, -1}, {1, 2, 3, 3});
  return {clusters.order, clusters.offsets, keys};
}

std::vector<Case> gathered_cases() {
  using X = const Tensors&;
  std::vector<Case> cases;
  const Tensors inputs = {param({1, 2, 5, 3}), param({1, 2, 4, 3}, -2, 2, 8),
                          param({1, 2, 4, 2}, -2, 2, 9)};
  for (const KeyRule rule : {KeyRule::all, KeyRule::not_itself}) {
    for (const bool partly : {false, true}) {
      for (const double p : {0.0, 0.3}) {
        const std::string what = concat(rule == KeyRule::all ? "all" : "not itself",
                                        partly ? ", partly" : "", p > 0 ? ", dropout" : "");
        const Groups groups = make_groups(partly);
        cases.push_back({"gathered_attention: " + what,
                         [=](X x) {
                           const Attended y =
                               gathered_attention(x[0], Tensor(), x[1], x[2], groups, rule, kScale,
                                                  dropout_of(p), {}, partly);
                           // The score of a last resort is a constant of the kernel's choice.
                           return Tensors{y.out, clamp(finite(y.lse), -100, 100)};
                         },
                         inputs,
                         {}});
        Tensors with_extra = inputs;
        with_extra.push_back(param({1, 2, 3, 3}, -2, 2, 10));
        cases.push_back({"gathered_attention: extra queries, " + what,
                         [=](X x) {
                           const Attended y =
                               gathered_attention(x[0], x[3], x[1], x[2], groups, rule, kScale,
                                                  dropout_of(p), dropout_of(p / 2), partly);
                           return Tensors{y.out, clamp(finite(y.lse), -100, 100), y.extra_out,
                                          finite(y.extra_lse)};
                         },
                         with_extra,
                         {}});
      }
    }
  }
  cases.push_back({"gathered_attention: extra queries alone",
                   [=](X x) {
                     const Attended y = gathered_attention(
                         x[0], x[3], x[1], x[2], make_groups(false), KeyRule::all, kScale);
                     return Tensors{finite(y.extra_lse)};
                   },
                   {inputs[0].detach(), inputs[1], inputs[2].detach(), param({1, 2, 3, 3})},
                   {}});
  return cases;
}

// ---- merge_attention ----------------------------------------------------------------------------

std::vector<Case> merge_cases() {
  using X = const Tensors&;
  const auto merged = [](X x, const std::vector<double>& signs) {
    std::vector<Attended> parts;
    for (size_t i = 0; i < x.size(); i += 2) {
      parts.push_back({x[i], x[i + 1], {}, {}, {}, {}});
    }
    const Attended y = merge_attention(parts, signs);
    return Tensors{y.out, finite(y.lse)};
  };
  const auto out = [](uint64_t seed) { return param({1, 2, 3, 4}, -2, 2, seed); };
  const auto lse = [](double low, uint64_t seed) { return param({1, 2, 3}, low, low + 2, seed); };
  // Rows 0 and 1 of the second part have no keys, row 0 of the first has none either.
  const Tensor no_keys = from_vector<double>({0, 0, 1, 1, 1, 1}, {1, 2, 3});
  const Tensor first_too = from_vector<double>({0, 1, 1, 1, 1, 1}, {1, 2, 3});
  const auto without = [](const Tensor& x, const Tensor& keys) {
    const Tensor there = raw::compare(Compare::gt, keys, 0.0);
    return where(there, x, full({1}, -std::numeric_limits<double>::infinity(), x.dtype()));
  };
  return {
      {"merge_attention: one part", [=](X x) { return merged(x, {}); }, {out(1), lse(-1, 2)}, {}},
      {"merge_attention: three parts",
       [=](X x) { return merged(x, {}); },
       {out(1), lse(-1, 2), out(3), lse(-1, 4), out(5), lse(-1, 6)},
       {}},
      {"merge_attention: a part taken away",
       [=](X x) {
         return merged(x, {1, 1, -1});
       },
       {out(1), lse(1, 2), out(3), lse(1, 4), out(5), lse(-2, 6)},
       {}},
      {"merge_attention: parts without keys",
       [=](X x) {
         return merged({x[0], without(x[1], first_too), x[2], without(x[3], no_keys)}, {});
       },
       {out(1), lse(-1, 2), out(3), lse(-1, 4)},
       {}}};
}

// ---- clusters -----------------------------------------------------------------------------------

// Of 7 queries in 2 heads: 4 clusters, one of them empty, and one query in none.
Clusters make_clusters() {
  return raw::clusters_of_labels(ints({0, 3, 1, 0, -1, 3, 0, 1, 1, 1, 0, 3, 1, 3}, {1, 2, 7}), 4);
}

std::vector<Case> cluster_cases() {
  using X = const Tensors&;
  const Clusters clusters = make_clusters();
  return {{"group_sum: mean",
           [=](X x) { return Tensors{group_sum(x[0], clusters, true)}; },
           {param({1, 2, 7, 3})},
           {}},
          {"group_sum: sum",
           [=](X x) { return Tensors{group_sum(x[0], clusters)}; },
           {param({1, 2, 7, 3})},
           {}},
          {"group_broadcast",
           [=](X x) { return Tensors{group_broadcast(x[0], clusters)}; },
           {param({1, 2, 4, 3})},
           {}},
          {"correct_rows",
           [=](X x) { return Tensors{correct_rows(x[0], clusters, x[1], x[2], x[3], x[4])}; },
           {param({1, 2, 7, 3}), param({1, 2, 4}, 0, 1), param({1, 2, 4}, 0, 1, 8),
            param({1, 2, 4, 3}), param({1, 2, 4, 3}, -2, 2, 8)},
           {}}};
}

}  // namespace

std::vector<Case> attention_cases() {
  using X = const Tensors&;
  std::vector<Case> cases;
  for (const TileCase& c : tile_cases()) {
    cases.push_back(
        {concat("tile_attention: ", c.what),
         [=](X x) {
           const Attended y = tile_attention(x[0], x[1], x[2], c.mask, kScale, dropout_of(c.p));
           return Tensors{y.out, finite(y.lse)};
         },
         {param({2, 2, 3, 3}), param({2, 2, 5, 3}, -2, 2, 8), param({2, 2, 5, 2}, -2, 2, 9)},
         {}});
  }
  cases.push_back({"tile_attention: the log-sum alone",
                   [](X x) { return Tensors{tile_attention(x[0], x[1], x[2], {}, kScale).lse}; },
                   {param({1, 1, 3, 3}), param({1, 1, 5, 3}), zeros({1, 1, 5, 2}, DType::f64)},
                   {}});
  for (const auto& more : {gathered_cases(), merge_cases(), cluster_cases()}) {
    cases.insert(cases.end(), more.begin(), more.end());
  }
  return cases;
}

TEST_CASE("correct_rows without groups: results and gradients are 0") {
  const Clusters none = raw::clusters_of_labels(full({1, 2, 7}, -1, DType::i32), 0);
  Tensor top = ones({1, 2, 7, 64}, DType::f64);
  top.set_requires_grad(true);
  const Tensor mass = zeros({1, 2, 0}, DType::f64), of_group = zeros({1, 2, 0, 64}, DType::f64);
  const Tensor y = correct_rows(top, none, mass, mass, of_group, of_group);
  { const Tensor used = full(top.shape(), 7, DType::f64); }  // what its memory held is met again
  backward(y, ones(y.shape(), DType::f64));
  CHECK(raw::sum(raw::abs(y)).item() == 0);
  CHECK(raw::sum(raw::abs(top.grad())).item() == 0);
}

}  // namespace centroid::test

// ---- what they mean -----------------------------------------------------------------------------

using namespace centroid;
using namespace centroid::test;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// The gradients of sum(w * f(x)) for random w.
Tensors gradients(const TensorFunction& f, const Tensors& inputs) {
  Tensors xs;
  for (const Tensor& x : inputs) xs.push_back(raw::clone(x).set_requires_grad());
  Rng rng(3);
  Tensor total;
  for (const Tensor& y : f(xs)) {
    const Tensor part = sum(y * randn(y.shape(), rng, y.dtype()));
    total = total.defined() ? total + part : part;
  }
  backward(total);
  Tensors result;
  for (const Tensor& x : xs) result.push_back(x.grad());
  return result;
}

void check_equal(const TensorFunction& f, const TensorFunction& g, const Tensors& inputs) {
  const Tensors fy = f(inputs), gy = g(inputs);
  for (size_t i = 0; i < fy.size(); ++i) CHECK(mismatch(fy[i], gy[i], 1e-11, 1e-11) == "");
  const Tensors fx = gradients(f, inputs), gx = gradients(g, inputs);
  for (size_t i = 0; i < fx.size(); ++i) CHECK(mismatch(fx[i], gx[i], 1e-10, 1e-10) == "");
}

}  // namespace

TEST_CASE("tile_attention has the results and gradients of the graph it replaces") {
  Rng data(1);
  const Lengths q_lengths({70, 33}), k_lengths({131, 64});
  for (const bool causal : {false, true}) {
    for (const double p : {0.0, 0.2}) {
      const Tensors inputs = {randn({2, 3, 70, 9}, data), randn({2, 3, 131, 9}, data),
                              randn({2, 1, 131, 5}, data)};
      const auto values = [](const Tensor& v) { return expand(v, {2, 3, 131, 5}); };
      const auto fused = [&](const Tensors& x) {
        Rng rng(5);
        const KeyMask mask = raw::key_mask(x[0], x[1], q_lengths, k_lengths, causal);
        return Tensors{tile_attention(x[0], x[1], values(x[2]), mask, 0.3,
                                      {p, p > 0 ? rng.reserve(1) : RngState{}})
                           .out};
      };
      const auto graph = [&](const Tensors& x) {
        Rng rng(5);
        const Tensor scores = matmul(x[0], transpose(x[1], 2, 3));
        const Tensor weights = masked_softmax(scores, 0.3, q_lengths, k_lengths, causal);
        return Tensors{matmul(dropout(weights, p, rng), values(x[2]))};
      };
      check_equal(fused, graph, inputs);
    }
  }
}

TEST_CASE("parts of the keys merged are all of them, and a part can be taken away again") {
  Rng data(2);
  const Tensors inputs = {randn({2, 2, 13, 5}, data), randn({2, 2, 23, 5}, data),
                          randn({2, 2, 23, 3}, data)};
  const auto part = [](const Tensors& x, int64_t begin, int64_t end) {
    return tile_attention(x[0], slice(x[1], 2, begin, end), slice(x[2], 2, begin, end), {}, kScale);
  };
  const auto together = [&](const Attended& y) { return Tensors{y.out, y.lse}; };
  const auto whole = [&](const Tensors& x) { return together(part(x, 0, 23)); };
  check_equal(
      [&](const Tensors& x) {
        return together(merge_attention({part(x, 0, 1), part(x, 1, 17), part(x, 17, 23)}));
      },
      whole, inputs);
  check_equal(
      [&](const Tensors& x) {
        return together(
            merge_attention({part(x, 0, 20), part(x, 9, 23), part(x, 9, 20)}, {1, 1, -1}));
      },
      whole, inputs);
  // A part without keys changes nothing; nothing but parts without keys is 0.
  const Attended none{
      full({2, 2, 13, 3}, 0, DType::f64), full({2, 2, 13}, -kInf, DType::f64), {}, {}, {}, {}};
  check_equal(
      [&](const Tensors& x) {
        return together(merge_attention({none, part(x, 0, 23)}));
      },
      whole, inputs);
  const Attended empty = merge_attention({none, none});
  CHECK(mismatch(empty.out, none.out, 0, 0) == "");
  CHECK(mismatch(empty.lse, none.lse, 0, 0) == "");
  // All that is there taken away leaves nothing, whatever rounding does.
  const Attended nothing = merge_attention({part(inputs, 0, 23), part(inputs, 0, 23)}, {1, -1});
  CHECK(mismatch(nothing.out, none.out, 0, 0) == "");
  CHECK(mismatch(nothing.lse, none.lse, 0, 0) == "");
}

TEMPLATE_TEST_CASE("where only rounding is left of a part, the others are as without it", "", float,
                   double) {
  constexpr DType kType = dtype_of<TestType>();
  Rng data(3);
  const auto attended = [&](double lse, uint64_t seed) {
    Attended part;
    part.out = param({1, 2, 3, 4}, -2, 2, seed).detach();
    part.lse = full({1, 2, 3}, lse, DType::f64);
    for (Tensor* x : {&part.out, &part.lse}) {
      *x = raw::cast(*x, kType).set_requires_grad();
    }
    return part;
  };
  const double unit = std::numeric_limits<TestType>::epsilon();
  for (const double above : {0.0, 3.0, -5.0}) {  // the lse of what is taken, in roundings of `all`
    const Attended all = attended(20, 1), near = attended(-30, 2);
    const Attended taken = attended(20 * (1 + above * unit), 3);
    const Attended y = merge_attention({all, near, taken}, {1, 1, -1});
    CHECK(mismatch(y.out.detach(), near.out.detach(), 4 * unit, 0) == "");
    CHECK(mismatch(y.lse.detach(), near.lse.detach(), 0, 0) == "");
    backward(sum(y.out) + sum(y.lse));
    for (const Attended& part : {all, taken}) {
      CHECK(mismatch(part.out.grad(), zeros(part.out.shape(), kType), 0, 0) == "");
      CHECK(mismatch(part.lse.grad(), zeros(part.lse.shape(), kType), 0, 0) == "");
    }
    CHECK(mismatch(near.out.grad(), full(near.out.shape(), 1, kType), 4 * unit, 0) == "");
  }
  // One hundredth of it is left: more than enough.
  const Attended y = merge_attention({attended(20, 1), attended(20 + std::log(0.99), 3)}, {1, -1});
  CHECK(mismatch(y.lse.detach(), full({1, 2, 3}, 20 + std::log(0.01), kType), 2e3 * unit, 0) == "");
}

TEST_CASE("merge_attention explains parts that do not fit") {
  const Tensor out = zeros({1, 2, 3, 4}), lse = zeros({1, 2, 3});
  const Attended a{out, lse, {}, {}, {}, {}};
  const Attended b{zeros({1, 2, 5, 4}), zeros({1, 2, 5}), {}, {}, {}, {}};
  using Catch::Matchers::Contains;
  CHECK_THAT(error_of([&] { merge_attention({}); }), Contains("expected at least one part"));
  CHECK_THAT(error_of([&] { merge_attention({a, a}, {1}); }), Contains("expected 2 signs, got 1"));
  CHECK_THAT(error_of([&] {
               merge_attention({a, a}, {-1, 1});
             }),
             Contains("nothing can be taken away before the first part"));
  CHECK_THAT(error_of([&] {
               merge_attention({a, b});
             }),
             Contains("parts differ: (1, 2, 3, 4) and (1, 2, 5, 4)"));
}
