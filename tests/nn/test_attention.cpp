// The battery: what every registered attention variant must hold, according to its Capabilities. A
// variant is tested because it is registered; nothing is added here for it. Properties that a
// variant does not claim are skipped with a printed reason.
#include <catch2/catch.hpp>

#include "autograd/gradcheck.h"
#include "tensor/parallel.h"
#include "tests/nn/attention_battery.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

// softmax(q k^T / sqrt(E)) v by loops over one (item, head): (L, D)
void reference_head(const Problem& p, const Tensor& q, const Tensor& k, const Tensor& v, int64_t b,
                    std::vector<double>& out) {
  const int64_t queries = q.size(0), width = q.size(1), value_width = v.size(1);
  const int64_t valid_q = p.q_lengths.empty() ? queries : p.q_lengths[b];
  const int64_t valid_k = p.k_lengths.empty() ? k.size(0) : p.k_lengths[b];
  const std::vector<double> qs = doubles(q), ks = doubles(k), vs = doubles(v);
  for (int64_t l = 0; l < queries; ++l) {
    const int64_t seen = l < valid_q ? (p.causal ? std::min(valid_k, l + 1) : valid_k) : 0;
    std::vector<double> weights(seen);
    double total = 0;
    for (int64_t s = 0; s < seen; ++s) {
      double dot = 0;
      for (int64_t e = 0; e < width; ++e) dot += qs[l * width + e] * ks[s * width + e];
      total += weights[s] = std::exp(dot / std::sqrt(static_cast<double>(width)));
    }
    for (int64_t d = 0; d < value_width; ++d) {
      double sum = 0;
      for (int64_t s = 0; s < seen; ++s) sum += weights[s] / total * vs[s * value_width + d];
      out.push_back(sum);
    }
  }
}

Tensor reference(const Problem& p) {
  std::vector<double> out;
  for (int64_t b = 0; b < p.q.size(0); ++b) {
    for (int64_t h = 0; h < p.q.size(1); ++h) {
      const auto head = [&](const Tensor& x) { return raw::select(raw::select(x, 0, b), 0, h); };
      reference_head(p, head(p.q), head(p.k), head(p.v), b, out);
    }
  }
  return from_vector(out, {p.q.size(0), p.q.size(1), p.q.size(2), p.v.size(3)});
}

}  // namespace

TEST_CASE("battery: what is skipped, and why") {
  for (const std::string& name : attention_names()) {
    const Capabilities can = make_attention(name)->capabilities();
    const auto skipped = [&](bool skip, const char* what) {
      if (skip) WARN(name << ": skipped, as the variant does not claim it: " << what);
    };
    skipped(!can.causal, "causal calls");
    skipped(!can.cross, "cross-attention");
    skipped(!can.key_order_invariant, "permutation of the keys");
    skipped(can.exact_options == "-", "the limit case, full attention");
  }
  CHECK_FALSE(attention_names().empty());
}

TEST_CASE(
    "battery: the output is (B, H, L, D) in (B, L, H, D) memory, whatever the inputs' strides") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    Problem p = make_problem(mode);
    const Tensor out = run(attention, p);
    const Sizes s = mode.sizes();
    CHECK(out.shape() == Shape{s.batch, s.heads, s.queries, s.value_width});
    CHECK(raw::permute(out, {0, 2, 1, 3}).is_contiguous());
    CHECK_FALSE(raw::has_nonfinite(out));
    for (Tensor* x : {&p.q, &p.k, &p.v}) {
      *x = raw::permute(raw::contiguous(raw::permute(*x, {0, 2, 1, 3})), {0, 2, 1, 3});
    }
    CHECK(mismatch(run(attention, p), out, 1e-12, 1e-12) == "");
  });
}

TEST_CASE("battery: what stands in the padding does not matter; padded rows and gradients are 0") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    Problem p = make_problem(mode);
    p.q_lengths = Lengths({7, 4});
    p.k_lengths = mode.keys({7, 4}, {8, 3});
    const Result clean = run_with_gradients(attention, p);
    Problem dirty = p;
    for (Tensor* x : {&dirty.q, &dirty.k, &dirty.v}) *x = raw::clone(*x);
    Rng rng(9);
    for (int64_t b = 0; b < 2; ++b) {
      const auto soil = [&](const Tensor& x, int64_t length) {
        const Tensor padding = beyond(item(x, b), length);
        raw::copy_(padding, randn(padding.shape(), rng, DType::f64, 100));
      };
      soil(dirty.q, p.q_lengths[b]);
      soil(dirty.k, p.k_lengths[b]);
      soil(dirty.v, p.k_lengths[b]);
    }
    const Result other = run_with_gradients(attention, dirty);
    CHECK(mismatch(other.out, clean.out, 1e-12, 1e-12) == "");
    for (size_t i = 0; i < 3; ++i) {
      CHECK(mismatch(other.grads[i], clean.grads[i], 1e-12, 1e-12) == "");
      for (int64_t b = 0; b < 2; ++b) {
        const int64_t length = i == 0 ? p.q_lengths[b] : p.k_lengths[b];
        CHECK(not_zero(beyond(item(other.grads[i], b), length)) == "");
      }
    }
    CHECK(not_zero(beyond(item(other.out, 1), 4)) == "");
  });
}

TEST_CASE("battery: a padded batch equals its items run singly") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    Problem p = make_problem(mode);
    p.q_lengths = Lengths({5, 2});
    p.k_lengths = mode.keys({5, 2}, {11, 1});
    const Tensor out = run(attention, p);
    for (int64_t b = 0; b < 2; ++b) {
      Problem single = p;
      single.q = prefix(item(p.q, b), p.q_lengths[b]);
      single.k = prefix(item(p.k, b), p.k_lengths[b]);
      single.v = prefix(item(p.v, b), p.k_lengths[b]);
      single.q_lengths = single.k_lengths = {};
      CHECK(mismatch(prefix(item(out, b), p.q_lengths[b]), run(attention, single), 1e-11, 1e-11) ==
            "");
    }
  });
}

TEST_CASE("battery: items of a batch and heads do not see each other") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    const Problem p = make_problem(mode), other = make_problem(mode, 2);
    const Tensor out = run(attention, p);
    for (int dim : {0, 1}) {
      Problem changed = p;
      const auto change = [&](const Tensor& x, const Tensor& from) {
        const Tensor y = raw::clone(x);
        raw::copy_(raw::select(y, dim, 1), raw::select(from, dim, 1));
        return y;
      };
      changed.q = change(p.q, other.q);
      changed.k = change(p.k, other.k);
      changed.v = change(p.v, other.v);
      const Tensor moved = run(attention, changed);
      CHECK(mismatch(raw::select(moved, dim, 0), raw::select(out, dim, 0), 1e-12, 1e-12) == "");
      CHECK(mismatch(raw::select(moved, dim, 1), raw::select(out, dim, 1)) != "");
    }
  });
}

TEST_CASE("battery: permuting the keys with their values changes nothing") {
  for (const std::string& spec : specs()) {
    const auto attention = make_attention(spec);
    if (!attention->capabilities().key_order_invariant) continue;
    for (const Mode& mode : modes_of(attention->capabilities())) {
      if (mode.causal) continue;  // a causal mask goes by position
      DYNAMIC_SECTION(spec << ", " << mode.name) {
        const Problem p = make_problem(mode);
        Rng rng(4);
        const Tensor order = from_vector(rng.permutation(p.k.size(2)), {p.k.size(2)});
        Problem permuted = p;
        permuted.k = raw::index_select(p.k, 2, order);
        permuted.v = raw::index_select(p.v, 2, order);
        CHECK(mismatch(run(*attention, permuted), run(*attention, p), 1e-11, 1e-11) == "");
      }
    }
  }
}

TEST_CASE("battery: a causal output does not change with the future") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    if (!mode.causal) return;
    const Problem p = make_problem(mode), other = make_problem(mode, 2);
    const Tensor out = run(attention, p);
    for (int64_t now = 0; now + 1 < p.q.size(2); ++now) {
      Problem changed = p;
      const auto change = [&](const Tensor& x, const Tensor& from) {
        const Tensor y = raw::clone(x);
        raw::copy_(beyond(y, now + 1), beyond(from, now + 1));
        return y;
      };
      changed.q = change(p.q, other.q);
      changed.k = change(p.k, other.k);
      changed.v = change(p.v, other.v);
      const Tensor moved = run(attention, changed);
      CHECK(mismatch(prefix(moved, now + 1), prefix(out, now + 1), 1e-12, 1e-12) == "");
      CHECK(mismatch(beyond(moved, now + 1), beyond(out, now + 1)) != "");
    }
  });
}

TEST_CASE("battery: gradients are those of the differences, the choices replayed", "[slow]") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    const Sizes s{.batch = 2,
                  .heads = 2,
                  .queries = 5,
                  .keys = mode.cross ? 6 : 5,
                  .width = 3,
                  .value_width = 2};
    Problem p = make_problem(s, 5);
    p.causal = mode.causal;
    p.q_lengths = Lengths({5, 3});
    p.k_lengths = mode.keys({5, 3}, {6, 4});
    for (bool training : {false, true}) {
      Choices choices;
      run(attention, p, training, &choices);
      const auto f = [&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
        Problem at = p;
        at.q = in[0];
        at.k = in[1];
        at.v = in[2];
        return {run(attention, at, training, nullptr, &choices)};
      };
      const auto input = [](const Tensor& x) { return raw::clone(x).set_requires_grad(); };
      const bool shared = attention.capabilities().shared_qk;
      const Tensor keys = shared ? raw::clone(p.k) : input(p.k);
      const GradcheckReport report = gradcheck(f, {input(p.q), keys, input(p.v)});
      INFO(report.message);
      CHECK(report.ok);
    }
  });
}

TEST_CASE("battery: f32 agrees with f64 under the same choices") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    Problem p = make_problem(mode, 6);
    p.q_lengths = Lengths({7, 4});
    p.k_lengths = mode.keys({7, 4}, {11, 5});
    for (Tensor* x : {&p.q, &p.k, &p.v}) *x = raw::cast(raw::cast(*x, DType::f32), DType::f64);
    Choices choices;
    const Result wide = run_with_gradients(attention, p, false, &choices);
    for (Tensor* x : {&p.q, &p.k, &p.v}) *x = raw::cast(*x, DType::f32);
    const Result narrow = run_with_gradients(attention, p, false, nullptr, &choices);
    CHECK(narrow.out.dtype() == DType::f32);
    CHECK(mismatch(narrow.out, wide.out, 1e-5, 1e-5) == "");
    for (size_t i = 0; i < 3; ++i) {
      CHECK(mismatch(narrow.grads[i], wide.grads[i], 1e-4, 1e-5) == "");
    }
  });
}

TEST_CASE("battery: replaying the recorded choices repeats the call") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    const Problem p = make_problem(mode);
    Choices choices;
    const Tensor out = run(attention, p, false, &choices);
    CHECK(same_bits(run(attention, p, false, nullptr, &choices), out));
  });
}

TEST_CASE("battery: the same bits on any number of threads", "[slow]") {
  const int before = num_threads();
  for_each_variant([](Attention& attention, const Mode& mode) {
    // Large enough that loops are cut into several chunks.
    const Sizes s{.batch = 3,
                  .heads = 4,
                  .queries = 127,
                  .keys = mode.cross ? 131 : 127,
                  .width = 16,
                  .value_width = 16};
    Problem p = make_problem(s, 8, DType::f32);
    p.causal = mode.causal;
    p.q_lengths = Lengths({127, 101, 1});
    p.k_lengths = mode.keys({127, 101, 1}, {131, 2, 59});
    std::vector<Result> results;
    for (int threads : {1, 2, 4}) {
      set_num_threads(threads);
      results.push_back(run_with_gradients(attention, p, true));
    }
    for (size_t i = 1; i < results.size(); ++i) {
      CHECK(same_bits(results[i].out, results[0].out));
      for (size_t j = 0; j < 3; ++j) {
        CHECK(same_bits(results[i].grads[j], results[0].grads[j]));
      }
    }
  });
  set_num_threads(before);
}

TEST_CASE("battery: in its limit case a variant is full attention, output and gradients") {
  const auto full = make_attention("full");
  for (const std::string& name : attention_names()) {
    const std::string options = make_attention(name)->capabilities().exact_options;
    if (options == "-") continue;
    const bool plain = options.empty() || options[0] == '(';
    const std::string spec = name + (plain ? "" : ":") + options;
    const auto attention = make_attention(spec);
    for (const Mode& mode : modes_of(attention->capabilities())) {
      DYNAMIC_SECTION(spec << ", " << mode.name) {
        Problem p = make_problem(mode);
        for (bool padded : {false, true}) {
          if (padded) {
            p.q_lengths = Lengths({7, 3});
            p.k_lengths = mode.keys({7, 3}, {10, 4});
          }
          const Result got = run_with_gradients(*attention, p);
          const Result expected = run_with_gradients(*full, p);
          CHECK(mismatch(got.out, reference(p), 1e-10, 1e-10) == "");
          for (size_t i = 0; i < 3; ++i) {
            CHECK(mismatch(got.grads[i], expected.grads[i], 1e-9, 1e-9) == "");
          }
        }
      }
    }
  }
}

TEST_CASE("battery: lengths of 1 and prime sizes", "[slow]") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    for (int64_t queries : {1, 2, 13, 67}) {
      for (int64_t keys : {1, 13, 71}) {
        if (!mode.cross) keys = queries;
        Problem p = make_problem({.batch = 1,
                                  .heads = 1,
                                  .queries = queries,
                                  .keys = keys,
                                  .width = 1,
                                  .value_width = 3});
        p.causal = mode.causal;
        const Result result = run_with_gradients(attention, p);
        CHECK(result.out.shape() == Shape{1, 1, queries, 3});
        for (const Tensor& x : {result.out, result.grads[0], result.grads[1], result.grads[2]}) {
          CHECK_FALSE(raw::has_nonfinite(x));
        }
        // Values that are all 1 give 1: each row of weights has sum 1.
        p.v = ones(p.v.shape(), DType::f64);
        CHECK(mismatch(run(attention, p), ones(result.out.shape(), DType::f64), 1e-9, 1e-9) == "");
      }
    }
  });
}

TEST_CASE("battery: an item without valid keys has output 0 and gradient 0") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    Problem p = make_problem(mode);
    p.q_lengths = Lengths(mode.cross ? std::vector<int64_t>{7, 7} : std::vector<int64_t>{0, 7});
    p.k_lengths = Lengths(mode.cross ? std::vector<int64_t>{0, 11} : std::vector<int64_t>{0, 7});
    const Result result = run_with_gradients(attention, p);
    CHECK(not_zero(item(result.out, 0)) == "");
    CHECK(not_zero(item(result.out, 1)) != "");
    for (size_t i = 0; i < 3; ++i) {
      CHECK(not_zero(item(result.grads[i], 0)) == "");
      if (i == 1 && attention.capabilities().shared_qk) continue;
      CHECK(not_zero(item(result.grads[i], 1)) != "");
    }
  });
}

TEST_CASE("battery: the check for NaN finds none in padded batches") {
  const bool before = check_nan();
  for_each_variant([](Attention& attention, const Mode& mode) {
    Problem p = make_problem(mode);
    p.q_lengths = Lengths({7, 0});
    p.k_lengths = mode.keys({7, 0}, {11, 0});
    set_check_nan(true);
    CHECK(error_of([&] { run_with_gradients(attention, p, true); }) == "<no error>");
    set_check_nan(false);
  });
  set_check_nan(before);
}

TEST_CASE("battery: attention_weights times values is the output") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    Problem p = make_problem(mode);
    p.q_lengths = Lengths({7, 5});
    p.k_lengths = mode.keys({7, 5}, {11, 2});
    Rng rng(7, "battery");
    const Tensor weights = attention_weights(attention, {.q = p.q,
                                                         .k = p.k,
                                                         .q_lengths = p.q_lengths,
                                                         .k_lengths = p.k_lengths,
                                                         .causal = p.causal,
                                                         .rng = &rng});
    CHECK(weights.shape() == Shape{2, 3, p.q.size(2), p.k.size(2)});
    CHECK(mismatch(raw::matmul(weights, p.v), run(attention, p), 1e-10, 1e-10) == "");
  });
}

TEST_CASE("battery: bad input is named") {
  for (const std::string& spec : specs()) {
    DYNAMIC_SECTION(spec) {
      const auto attention = make_attention(spec);
      const Capabilities can = attention->capabilities();
      const auto error_with = [&](const std::function<void(Problem&)>& spoil) {
        Problem p = make_problem(Sizes{});
        p.causal = can.causal_only;
        spoil(p);
        return error_of([&] { run(*attention, p); });
      };
      Rng rng(1);
      const auto rows = [&](int64_t b, int64_t h, int64_t n, int64_t e) {
        return randn({b, h, n, e}, rng);
      };
      CHECK_THAT(error_with([&](Problem& p) { p.q = Tensor(); }), Contains("must be given"));
      CHECK_THAT(error_with([&](Problem& p) { p.q = raw::select(p.q, 0, 0); }),
                 Contains("expected q (B, H, L, E)") && Contains("q is (3, 7, 4)"));
      CHECK_THAT(error_with([&](Problem& p) { p.k = rows(2, 3, 7, 5); }),
                 Contains("head sizes of q and k differ") && Contains("k is (2, 3, 7, 5)"));
      CHECK_THAT(error_with([&](Problem& p) { p.k = rows(1, 3, 7, 4); }),
                 Contains("batch or heads differ"));
      CHECK_THAT(error_with([&](Problem& p) { p.v = rows(2, 3, 6, 5); }),
                 Contains("k and v differ in length"));
      CHECK_THAT(error_with([&](Problem& p) { p.v = rows(2, 3, 7, 0); }), Contains("empty input"));
      CHECK_THAT(error_with([&](Problem& p) { p.k = raw::cast(p.k, DType::f32); }),
                 Contains("q is f64, k is f32"));
      CHECK_THAT(error_with([&](Problem& p) {
                   for (Tensor* x : {&p.q, &p.k, &p.v}) *x = raw::cast(*x, DType::i64);
                 }),
                 Contains("expected f32 or f64, got i64"));
      CHECK_THAT(error_with([&](Problem& p) {
                   p.k_lengths = Lengths({7, 8});
                 }),
                 Contains("k_lengths") && Contains("item 1") && Contains("got 8"));
      CHECK_THAT(error_with([&](Problem& p) { p.q_lengths = Lengths({7}); }),
                 Contains("q_lengths"));
      if (!can.causal) {
        CHECK_THAT(error_with([&](Problem& p) { p.causal = true; }), Contains("causal"));
      }
      if (!can.cross) {
        CHECK_THAT(error_with([&](Problem& p) { p.q = rows(2, 3, 6, 4); }), Contains("cross"));
      }
      const Problem p = make_problem(Sizes{});
      if (can.causal_only) {
        CHECK_THAT(error_with([&](Problem& p) { p.causal = false; }), Contains("must be causal"));
      }
      CHECK_THAT(error_of([&] {
                   attention->attend(
                       {.q = p.q, .k = p.k, .v = p.v, .causal = can.causal_only, .training = true});
                 }),
                 Contains("AttentionInput::rng"));
    }
  }
}

TEST_CASE(
    "full attention: temperature is the factor before the softmax, dropout acts in training") {
  const Problem p = make_problem(Sizes{});
  const Tensor plain = run(*make_attention("full"), p);
  CHECK(mismatch(run(*make_attention("full:temperature=0.5"), p), plain, 1e-12, 1e-12) == "");
  CHECK(mismatch(run(*make_attention("full:temperature=2"), p), plain) != "");
  const auto dropping = make_attention("full:dropout=0.5");
  CHECK(same_bits(run(*dropping, p), plain));
  CHECK(mismatch(run(*dropping, p, true), plain) != "");
}
