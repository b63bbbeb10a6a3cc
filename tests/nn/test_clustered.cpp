// Clustered attention and its relatives: what the paper promises, and dense references that follow
// the choices a call has made.
#include <catch2/catch.hpp>
#include <set>

#include "nn/decode.h"
#include "tests/nn/attention_weights.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

// The largest singular value of the keys of one head, slightly overestimated.
double spectral_norm(const Table& k, int64_t b, int64_t h) {
  Row x(k.width, 1.0);
  double norm = 0;
  for (int step = 0; step < 300; ++step) {
    Row y(k.width, 0.0);
    for (int64_t s = 0; s < k.rows; ++s) {
      const Row row = k(b, h, s);
      const double along = dot(row, x);
      for (int64_t e = 0; e < k.width; ++e) y[e] += along * row[e];
    }
    norm = std::sqrt(dot(y, y));
    for (int64_t e = 0; e < k.width; ++e) x[e] = y[e] / norm;
  }
  return std::sqrt(norm) * (1 + 1e-9);
}

// Queries near a few centres, so that clusters mean something.
Problem lumpy_problem(const Sizes& s, uint64_t seed, double noise, DType dtype = DType::f64) {
  Problem p = make_problem(s, seed);
  Rng rng(seed, "lumps");
  const Tensor centres = randn({s.batch, s.heads, 6, s.width}, rng, DType::f64, 1.5);
  const Tensor which = randint({s.queries}, 6, rng);
  p.q = raw::add(raw::index_select(centres, 2, which), raw::mul(p.q, noise));
  for (Tensor* x : {&p.q, &p.k, &p.v}) *x = raw::cast(*x, dtype);
  return p;
}

// The keys of one list, without the missing ones.
std::set<int64_t> keys_of(const Row& list) {
  std::set<int64_t> keys;
  for (double s : list) {
    if (s >= 0) keys.insert(static_cast<int64_t>(s));
  }
  return keys;
}

const Sizes kLarge{.batch = 2, .heads = 2, .queries = 128, .keys = 96, .width = 8};

}  // namespace

// ---- without approximation
// -----------------------------------------------------------------------

TEST_CASE(
    "local-clustered with a window over everything is full attention in f32, however small "
    "the weights of a query beside those of its mean") {
  Problem p = make_problem({.queries = 64, .keys = 64, .width = 8}, 3, DType::f32);
  std::vector<float> norms;  // of queries that share a mean
  for (int l = 0; l < 64; ++l) norms.push_back(l % 2 == 0 ? 0.01F : 60.0F);
  const Tensor one = raw::slice(p.q, 2, 0, 1);
  p.q = raw::contiguous(raw::mul(raw::expand(one, p.q.shape()), from_vector(norms, {64, 1})));
  const auto full = make_attention("full");
  const Result expected = run_with_gradients(*full, p);
  for (const char* options : {"clusters=1,window=64", "clusters=3,window=10000"}) {
    INFO(options);
    const auto attention = make_attention(concat("local-clustered:", options));
    const Result got = run_with_gradients(*attention, p);
    CHECK(mismatch(got.out, expected.out, 1e-6, 1e-6) == "");
    for (size_t i = 0; i < 3; ++i) {
      CHECK(mismatch(got.grads[i], expected.grads[i], 1e-5, 1e-5) == "");
    }
  }
}

TEST_CASE("callers get the sizes of the clusters and the mass of their top keys") {
  const Sizes sizes{.batch = 2, .heads = 2, .queries = 40, .keys = 40, .width = 4};
  for (const char* gradient : {"exact", "frozen"}) {
    const Problem p = lumpy_problem(sizes, 7, 0.5);
    Choices choices;
    weights_of(concat("improved-clustered:clusters=6,topk=5,mass_gradient=", gradient), p,
               &choices);
    const Clusters clusters = raw::clusters_of_labels(choices.at("labels"), 6);
    CHECK(same_bits(choices.at("counts"), clusters.counts()));
    const Tensor index = raw::cast(choices.at("topk"), DType::i64);
    const Tensor on_top = raw::sum(raw::one_hot(index, 40, DType::f64), {3});  // (B, H, K, S)
    const Tensor scores = raw::matmul(raw::group_sum(p.q, clusters, true),
                                      raw::contiguous(raw::transpose(p.k, 2, 3)));
    const Tensor of_means = raw::softmax(raw::mul(scores, 0.5));
    CHECK(mismatch(choices.at("mass"), raw::sum(raw::mul(of_means, on_top), {3}), 1e-12, 1e-12) ==
          "");
  }
  Problem p = lumpy_problem(sizes, 7, 0.5);
  p.causal = true;
  Choices choices;
  weights_of("causal-improved-clustered:block=10,clusters=3,topk=4", p, &choices);
  CHECK(choices.at("mass").shape() == Shape{2, 2, 12});
  CHECK(raw::max(choices.at("mass")).item() <= 1 + 1e-12);
  CHECK(raw::min(choices.at("mass")).item() > 0);
  CHECK(raw::sum(raw::cast(choices.at("counts"), DType::f64)).item() == 160);
}

// ---- the two propositions -----------------------------------------------------------------------

TEST_CASE("near queries have near weights: |A_i - A_j| <= (temperature / 2) |K| |q_i - q_j|") {
  double tightest = 0;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const Problem p = lumpy_problem(kLarge, seed, 0.1);
    const double tau = 0.05 * static_cast<double>(seed);
    const std::string options = concat("clusters=9,temperature=", tau);
    Choices choices;
    const Table full(weights_of(concat("full:temperature=", tau), p));
    const Table clustered(weights_of("clustered:" + options, p, &choices));
    const Clusters clusters = raw::clusters_of_labels(choices.at("labels"), 9);
    const Table means(raw::group_broadcast(raw::group_sum(p.q, clusters, true), clusters));
    const Table q(p.q), k(p.k);
    for (int64_t b = 0; b < 2; ++b) {
      for (int64_t h = 0; h < 2; ++h) {
        const double norm = tau / 2 * spectral_norm(k, b, h);
        bool holds = true;
        for (int64_t i = 0; i < 128; ++i) {
          const int64_t j = (i * 37 + 11) % 128;
          const Row row = full(b, h, i);
          const double between = l2(row, full(b, h, j)), of_cluster = l2(row, clustered(b, h, i));
          const double bound = norm * l2(q(b, h, i), q(b, h, j));
          holds = holds && between <= bound + 1e-12;
          holds = holds && of_cluster <= norm * l2(q(b, h, i), means(b, h, i)) + 1e-12;
          if (i != j) tightest = std::max(tightest, between / bound);
        }
        CHECK(holds);
      }
    }
  }
  CHECK(tightest > 0.1);  // a bound that nothing comes near to would hold for wrong weights too
}

TEMPLATE_TEST_CASE(
    "exact weights for the top keys never hurt: row by row, improved-clustered is as "
    "near to full attention as clustered, and its error on them is |m^ - m|",
    "[slow]", float, double) {
  const double tolerance = std::is_same_v<TestType, float> ? 1e-6 : 1e-12;
  int64_t rows = 0, better = 0;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    for (const int64_t topk : {1, 8, 40}) {
      const Problem p = lumpy_problem(kLarge, seed, 0.3 * seed, dtype_of<TestType>());
      const std::string options = concat("clusters=", 3 * seed);
      Choices choices;
      const Table improved(
          weights_of(concat("improved-clustered:", options, ",topk=", topk), p, &choices));
      const Table clustered(weights_of("clustered:" + options, p, nullptr, &choices));
      const Table full(weights_of("full", p));
      const Table labels(choices.at("labels")), top(choices.at("topk"));
      bool nearer = true, residual = true, sums = true, elsewhere = true, scaled = true;
      for (int64_t r = 0; r < 2 * 2 * 128; ++r, ++rows) {
        const int64_t b = r / 256, h = r / 128 % 2, l = r % 128;
        const Row it = improved(b, h, l), ct = clustered(b, h, l), at = full(b, h, l);
        const auto keys = keys_of(top(b, h, static_cast<int64_t>(labels(b, h, l, 0))));
        double error = 0, kept = 0, own = 0, total = 0, least = 1, most = 0;
        for (int64_t s = 0; s < 96; ++s) {
          total += it[s];
          if (!keys.count(s)) {
            elsewhere = elsewhere && std::fabs(it[s] - ct[s]) <= tolerance;
            most = std::max(most, ct[s]);
            continue;
          }
          error += std::fabs(it[s] - at[s]);
          kept += ct[s], own += at[s];
          least = std::min(least, ct[s]);
        }
        for (int64_t s : keys) {
          scaled = scaled && std::fabs(it[s] - kept / own * at[s]) <= 10 * tolerance;
        }
        REQUIRE(static_cast<int64_t>(keys.size()) == topk);
        elsewhere = elsewhere && most <= least + tolerance;  // these are the top keys
        residual = residual && std::fabs(error - std::fabs(kept - own)) <= 10 * tolerance;
        sums = sums && std::fabs(total - 1) <= 10 * tolerance;
        nearer = nearer && l1(it, at) <= l1(ct, at) + 10 * tolerance;
        better += l1(it, at) < 0.9 * l1(ct, at);
      }
      INFO("seed " << seed << ", topk " << topk);
      CHECK(nearer);
      CHECK(residual);
      CHECK(sums);
      CHECK(elsewhere);
      CHECK(scaled);
    }
  }
  CHECK(rows > 9000);
  CHECK(better > rows / 2);
}

// ---- limit cases --------------------------------------------------------------------------------

TEST_CASE("improved-clustered with as many top keys as keys is full attention, padding or not") {
  for (const bool padded : {false, true}) {
    Problem p = make_problem(
        {.batch = 4, .heads = 2, .queries = 67, .keys = 67, .width = 5, .value_width = 3});
    if (padded) p.q_lengths = p.k_lengths = Lengths({67, 31, 1, 0});
    const auto improved = make_attention("improved-clustered:clusters=5,topk=67");
    const Result got = run_with_gradients(*improved, p);
    const Result expected = run_with_gradients(*make_attention("full"), p);
    CHECK(mismatch(got.out, expected.out, 1e-10, 1e-10) == "");
    for (size_t i = 0; i < 3; ++i) {
      CHECK(mismatch(got.grads[i], expected.grads[i], 1e-9, 1e-9) == "");
    }
  }
}

TEST_CASE("clustered is exact where all queries are equal") {
  Problem p = make_problem(kLarge, 3);
  p.q = raw::contiguous(raw::expand(prefix(p.q, 1), p.q.shape()));
  for (const char* spec :
       {"clustered:clusters=1", "clustered:clusters=7", "improved-clustered:clusters=7,topk=3"}) {
    const Result got = run_with_gradients(*make_attention(spec), p);
    const Result expected = run_with_gradients(*make_attention("full"), p);
    INFO(spec);
    CHECK(mismatch(got.out, expected.out, 1e-11, 1e-11) == "");
    for (size_t i : {1, 2}) CHECK(mismatch(got.grads[i], expected.grads[i], 1e-10, 1e-10) == "");
    // A gradient by the mean query is shared out among its cluster.
    const auto total = [](const Result& r) { return raw::sum(r.grads[0], {2}); };
    CHECK(mismatch(total(got), total(expected), 1e-9, 1e-9) == "");
  }
}

TEST_CASE("permuting the queries with their labels permutes the outputs") {
  const Problem p = lumpy_problem(kLarge, 2, 0.5);
  Rng rng(4);
  const Tensor order = from_vector(rng.permutation(128), {128});
  for (const char* spec : {"clustered:clusters=7", "improved-clustered:clusters=7,topk=5"}) {
    const auto attention = make_attention(spec);
    Choices choices;
    const Tensor out = run(*attention, p, false, &choices);
    Problem permuted = p;
    permuted.q = raw::index_select(p.q, 2, order);
    choices.at("labels") = raw::index_select(choices.at("labels"), 2, order);
    CHECK(mismatch(run(*attention, permuted, false, nullptr, &choices),
                   raw::index_select(out, 2, order), 1e-11, 1e-11) == "");
  }
}

TEST_CASE("queries without any key to see have output 0, wherever the clusters are") {
  Problem p = make_problem({.batch = 2, .heads = 1, .queries = 20, .keys = 20}, 4);
  p.k_lengths = Lengths({0, 20});
  for (const char* spec : {"clustered:clusters=3", "improved-clustered:clusters=3,topk=2",
                           "improved-clustered:clusters=3,topk=4,topp=0.5",
                           "causal-improved-clustered:block=4,clusters=3,topk=2"}) {
    INFO(spec);
    const auto attention = make_attention(spec);
    p.causal = attention->capabilities().causal;
    const Result result = run_with_gradients(*attention, p);
    CHECK(not_zero(item(result.out, 0)) == "");
    CHECK_FALSE(raw::has_nonfinite(result.out));
    for (const Tensor& dx : result.grads) {
      CHECK(not_zero(item(dx, 0)) == "");
      CHECK_FALSE(raw::has_nonfinite(dx));
    }
  }
}

// ---- options of improved-clustered --------------------------------------------------------------

TEST_CASE("topp keeps the fewest keys that hold that mass, at most topk") {
  Problem p = lumpy_problem(kLarge, 5, 0.3);
  p.k_lengths = Lengths({96, 3});
  int64_t capped = 0, fewer = 0;
  for (const double mass : {0.2, 0.7, 0.95}) {
    Choices choices;
    const Table weights(
        weights_of(concat("improved-clustered:clusters=7,topk=16,topp=", mass), p, &choices));
    const Table clustered(weights_of("clustered:clusters=7", p, nullptr, &choices));
    const Table labels(choices.at("labels")), top(choices.at("topk"));
    for (int64_t r = 0; r < 2 * 2 * 128; ++r) {
      const int64_t b = r / 256, h = r / 128 % 2, l = r % 128;
      const Row row = clustered(b, h, l);
      Row sorted = row;
      std::sort(sorted.rbegin(), sorted.rend());
      size_t wanted = 0;
      double held = 0;
      while (wanted < 16 && held < mass) held += sorted[wanted++];
      const auto keys = keys_of(top(b, h, static_cast<int64_t>(labels(b, h, l, 0))));
      REQUIRE(keys.size() == wanted);
      for (int64_t s : keys) REQUIRE(row[s] >= sorted[wanted - 1] - 1e-12);
      (held < mass ? capped : fewer) += 1;
    }
    Row sums = doubles(raw::sum(weights_of("improved-clustered:clusters=7,topk=16", p), {3}));
    for (double sum : sums) REQUIRE(sum == Approx(1).epsilon(1e-12));
  }
  CHECK(capped > 0);
  CHECK(fewer > 0);
}

TEST_CASE("frozen and exact mass give the same output and different gradients") {
  const Problem p = lumpy_problem(kLarge, 6, 0.5);
  const Result exact =
      run_with_gradients(*make_attention("improved-clustered:clusters=7,topk=5"), p);
  const Result frozen = run_with_gradients(
      *make_attention("improved-clustered:clusters=7,topk=5,mass_gradient=frozen"), p);
  CHECK(same_bits(exact.out, frozen.out));
  CHECK(mismatch(exact.grads[0], frozen.grads[0], 1e-3, 1e-3) != "");
  CHECK(mismatch(exact.grads[1], frozen.grads[1], 1e-3, 1e-3) != "");
  CHECK(mismatch(exact.grads[2], frozen.grads[2], 1e-12, 1e-12) == "");
  CHECK_THAT(error_of([] { make_attention("improved-clustered:mass_gradient=half"); }),
             Contains("mass_gradient: expected exact or frozen, got 'half'"));
}

// The paper's definition in plain operations: the mean's weights off the top keys, and on them
// exact weights that share the mean's mass - a constant in backward if frozen.
TEST_CASE("improved-clustered has the output and gradients of the graph that defines it") {
  const Sizes sizes{.batch = 2, .heads = 2, .queries = 40, .keys = 23, .width = 4};
  for (const bool frozen : {false, true}) {
    const Problem p = lumpy_problem(sizes, 7, 0.5);
    const auto attention = make_attention(
        concat("improved-clustered:clusters=6,topk=5,mass_gradient=", frozen ? "frozen" : "exact"));
    Choices choices;
    const Result got = run_with_gradients(*attention, p, false, &choices);
    const Clusters clusters = raw::clusters_of_labels(choices.at("labels"), 6);
    const Tensor index = raw::cast(choices.at("topk"), DType::i64);
    const Tensor on_top = raw::sum(raw::one_hot(index, 23, DType::f64), {3});  // (B, H, K, S)
    const auto of_queries = [&](const Tensor& x) { return group_broadcast(x, clusters); };

    Tensor q = raw::clone(p.q), k = raw::clone(p.k), v = raw::clone(p.v);
    for (Tensor* x : {&q, &k, &v}) x->set_requires_grad();
    const Tensor keys = transpose(k, 2, 3) * 0.5;
    const Tensor of_means = softmax(matmul(group_sum(q, clusters, true), keys));
    const Tensor mass = sum(of_means * on_top, {3}, true);
    const Tensor hidden = raw::log(of_queries(on_top));  // 0 or -inf
    const Tensor top = matmul(softmax(matmul(q, keys) + hidden), v);
    const Tensor out = of_queries(frozen ? mass.detach() : mass) * top +
                       of_queries(matmul(of_means * (1 - on_top), v));
    Rng rng(3, "cotangent");
    backward(out, randn(out.shape(), rng));
    CHECK(mismatch(got.out, out.detach(), 1e-12, 1e-12) == "");
    CHECK(mismatch(got.grads[0], q.grad(), 1e-11, 1e-11) == "");
    CHECK(mismatch(got.grads[1], k.grad(), 1e-11, 1e-11) == "");
    CHECK(mismatch(got.grads[2], v.grad(), 1e-11, 1e-11) == "");
  }
}

TEST_CASE("dropout in training zeroes weights or scales them, and touches no choice") {
  for (const std::string spec :
       {"clustered:clusters=7", "improved-clustered:clusters=7,topk=5", "exact-topk:topk=9",
        "reformer:rounds=1,chunk=16", "causal-improved-clustered:block=16,clusters=3,topk=5"}) {
    Sizes sizes = kLarge;
    sizes.keys = sizes.queries;
    Problem p = lumpy_problem(sizes, 8, 0.5);
    const auto attention = make_attention(spec + ",dropout=0.25");
    p.causal = attention->capabilities().causal_only;
    const Row plain = doubles(weights_of(*attention, p));
    const Row dropped = doubles(weights_of(*attention, p, nullptr, nullptr, true));
    int64_t seen = 0, zero = 0, wrong = 0;
    for (size_t i = 0; i < plain.size(); ++i) {
      if (plain[i] < 1e-9) continue;
      ++seen;
      const double factor = dropped[i] / plain[i];
      if (std::fabs(factor) < 1e-5) {
        ++zero;
      } else {
        wrong += std::fabs(factor - 4.0 / 3) > 1e-5;
      }
    }
    INFO(spec);
    CHECK(wrong == 0);
    CHECK(std::fabs(static_cast<double>(zero) / static_cast<double>(seen) - 0.25) < 0.05);
  }
}

// ---- causal-improved-clustered ------------------------------------------------------------------

namespace {

Problem causal_problem(int64_t time, uint64_t seed) {
  Problem p = lumpy_problem(
      {.batch = 2, .heads = 2, .queries = time, .keys = time, .width = 4, .value_width = 3}, seed,
      0.5);
  p.causal = true;
  return p;
}

}  // namespace

TEST_CASE("causal-improved-clustered shows nothing of the future, not even through its choices",
          "[slow]") {
  const int64_t time = 67;
  const Problem p = causal_problem(time, 1), other = causal_problem(time, 2);
  const auto attention = make_attention("causal-improved-clustered:block=16,clusters=4,topk=5");
  Choices choices;
  const Tensor out = run(*attention, p, false, &choices);
  CHECK(choices.at("seen").shape() == Shape{2, 2, time});
  for (int64_t now = 0; now < time; ++now) {
    for (const int which : {0, 1, 2, 3}) {  // q, k, v, or all of them from `now` on
      Problem changed = p;
      const auto change = [&](Tensor& x, const Tensor& from) {
        x = raw::clone(x);
        raw::copy_(beyond(x, now), raw::mul(beyond(from, now), 3));
      };
      if (which == 0 || which == 3) change(changed.q, other.q);
      if (which == 1 || which == 3) change(changed.k, other.k);
      if (which == 2 || which == 3) change(changed.v, other.v);
      Choices moved;
      const Tensor result = run(*attention, changed, false, &moved);
      REQUIRE(mismatch(prefix(result, now), prefix(out, now), 1e-12, 1e-12) == "");
      const auto chosen = [&](const Choices& c) { return prefix(c.at("seen"), now); };
      REQUIRE(same_bits(chosen(moved), chosen(choices)));
      if (now + 16 < time) REQUIRE(mismatch(beyond(result, now), beyond(out, now)) != "");
    }
  }
}

TEST_CASE("causal-improved-clustered is causal full attention up to the block's size") {
  for (const int64_t time : {1, 16, 31, 67}) {
    Problem p = causal_problem(time, 3);
    const std::string options = concat("block=", time, ",clusters=3,topk=2");
    const Result got =
        run_with_gradients(*make_attention("causal-improved-clustered:" + options), p);
    const Result expected = run_with_gradients(*make_attention("full"), p);
    CHECK(mismatch(got.out, expected.out, 1e-12, 1e-12) == "");
    for (size_t i = 0; i < 3; ++i) {
      CHECK(mismatch(got.grads[i], expected.grads[i], 1e-11, 1e-11) == "");
    }
  }
}

// Weights by loops: the block exactly; before it m P_i on the top keys of the mean of the cluster
// seen, the mean's own weights elsewhere; both parts by their normalisers, that of the past being
// that over the top keys divided by m.
TEST_CASE("causal-improved-clustered follows its choices as a dense reference does") {
  const int64_t time = 67, block = 16, clusters = 3;
  Problem p = causal_problem(time, 4);
  p.q_lengths = p.k_lengths = Lengths({67, 40});
  Choices choices;
  const Table weights(
      weights_of("causal-improved-clustered:block=16,clusters=3,topk=4", p, &choices));
  const Table q(p.q), k(p.k), seen(choices.at("seen")), joined(choices.at("joined"));
  const Table top(choices.at("topk"));
  for (int64_t r = 0; r < 2 * 2 * time; ++r) {
    const int64_t b = r / (2 * time), h = r / time % 2, l = r % time, begin = l / block * block;
    Row expected(time, 0.0), near, past, exact, own = q(b, h, l);
    if (l < p.q_lengths[b]) {
      const double near_sum = softmax_over(
          own, k, b, h, 0.5, [&](int64_t s) { return s >= begin && s <= l; }, near);
      double past_sum = -std::numeric_limits<double>::infinity();
      past.assign(time, 0);
      if (begin > 0) {
        const int64_t group = static_cast<int64_t>(seen(b, h, l, 0));
        REQUIRE(group / clusters == l / block - 1);
        Row mean(4, 0.0);
        double members = 0;
        for (int64_t i = 0; i < begin; ++i) {
          if (static_cast<int64_t>(joined(b, h, i, 0)) % clusters != group % clusters) continue;
          ++members;
          for (int64_t e = 0; e < 4; ++e) mean[e] += q(b, h, i, e);
        }
        REQUIRE(members > 0);
        for (double& e : mean) e /= members;
        const auto keys = keys_of(top(b, h, group));
        softmax_over(
            mean, k, b, h, 0.5, [&](int64_t s) { return s < begin; }, past);
        const auto on_top = [&](int64_t s) { return keys.count(s) == 1; };
        past_sum = softmax_over(own, k, b, h, 0.5, on_top, exact);
        double mass = 0;
        for (int64_t s : keys) mass += past[s];
        for (int64_t s : keys) past[s] = mass * exact[s];
        past_sum -= std::log(mass);
      }
      const double share = 1 / (1 + std::exp(past_sum - near_sum));
      for (int64_t s = 0; s < time; ++s) expected[s] = share * near[s] + (1 - share) * past[s];
    }
    REQUIRE(l2(weights(b, h, l), expected) < 1e-12);
  }
}

TEST_CASE("causal-improved-clustered generates step by step what it computes at once") {
  const Problem p = causal_problem(53, 5);
  const auto attention = make_attention("causal-improved-clustered:block=16,clusters=3,topk=4");
  const Tensor whole = run(*attention, p);
  const auto state = attention->start_decoding();
  for (int64_t t = 0; t < 53; ++t) {
    const auto row = [&](const Tensor& x) { return raw::slice(x, 2, t, t + 1); };
    Rng rng(7, "battery");
    const Tensor out =
        attention->step(*state, {.q = row(p.q), .k = row(p.k), .v = row(p.v), .rng = &rng});
    REQUIRE(mismatch(out, row(whole), 1e-12, 1e-12) == "");
  }
}
