// Fused attention against its composition in plain operations.
#include "tests/tensor/attention_problems.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

Results fused(const Problem& p, const KeyMask& mask) {
  const Attended y = raw::tile_attention(p.q, p.k, p.v, mask, p.scale, p.dropout);
  const raw::AttentionGrads dx = raw::tile_attention_backward(
      p.q, p.k, p.v, mask, p.scale, p.dropout, y, p.dout, p.dlse, true, true, true);
  return {y.out, y.lse, dx.dq, dx.dk, dx.dv};
}

// ---- masks --------------------------------------------------------------------------------------

struct Mask {
  const char* name;
  bool q_lengths = false, k_lengths = false, causal = false, window = false;
  double dropout = 0;
};
const Mask kMasks[] = {{"everything"},
                       {"key lengths", false, true},
                       {"both lengths", true, true},
                       {"causal", false, false, true},
                       {"causal, lengths, dropout", true, true, true, false, 0.3},
                       {"window", false, false, false, true},
                       {"window, key lengths, dropout", false, true, false, true, 0.1}};

KeyMask key_mask(const Mask& m, const Problem& p) {
  const int64_t batch = p.q.size(0), queries = p.q.size(2), keys = p.k.size(2);
  const auto lengths = [&](bool given, int64_t n, std::vector<int64_t> values) {
    values.resize(batch);
    for (int64_t& value : values) value = std::min(value, n);
    return given ? Lengths(values) : Lengths();
  };
  KeyMask mask = raw::key_mask(p.q, p.k, lengths(m.q_lengths, queries, {queries - 1, 64, 0}),
                               lengths(m.k_lengths, keys, {65, keys / 2, 0}), m.causal);
  if (m.window) {  // some before the first key, some behind the last, some empty
    std::vector<int32_t> begin, end;
    for (int64_t l = 0; l < queries; ++l) {
      begin.push_back(static_cast<int32_t>(l * keys / queries - 9));
      end.push_back(begin.back() + static_cast<int32_t>(l % 5 == 4 ? -3 : 7 + l));
    }
    mask.begin = from_vector(begin, {queries});
    mask.end = from_vector(end, {queries});
  }
  return mask;
}

// The definition of KeyMask, written out: (B, 1, L, S).
Tensor dense(const KeyMask& mask, const Problem& p) {
  const int64_t batch = p.q.size(0), queries = p.q.size(2), keys = p.k.size(2);
  std::vector<uint8_t> visible;
  const auto at = []<typename T>(const Tensor& x, int64_t i, T otherwise) {
    return x.defined() ? x.data<T>()[i] : otherwise;
  };
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t l = 0; l < queries; ++l) {
      for (int64_t s = 0; s < keys; ++s) {
        visible.push_back(l < at(mask.q_lengths, b, queries) && s < at(mask.k_lengths, b, keys) &&
                          s >= at(mask.begin, l, 0) &&
                          s < at(mask.end, l, static_cast<int32_t>(keys)));
      }
    }
  }
  return from_vector(visible, {batch, 1, queries, keys});
}

// ---- problems -----------------------------------------------------------------------------------

Problem make_problem(const Sizes& s, const Mask& m, uint64_t seed, KeyMask* mask) {
  Problem p = make_problem(s, seed);
  *mask = key_mask(m, p);
  p.visible = dense(*mask, p);
  p.dropout = {m.dropout, Rng(seed, "dropout").reserve(1)};
  return p;
}

constexpr int64_t kWidths[] = {1, 3, 16, 33, 64, 65}, kLengths[] = {1, 2, 63, 64, 65, 130};

// Every pair of lengths and every pair of widths, once.
std::vector<Sizes> all_sizes() {
  std::vector<Sizes> sizes;
  for (int64_t i = 0; i < 6; ++i) {
    for (int64_t j = 0; j < 6; ++j) {
      sizes.push_back({1 + (i + j) % 3, 1 + j % 2, kLengths[i], kLengths[j], kWidths[(i + j) % 6],
                       kWidths[(i + 2 * j) % 6]});
    }
  }
  return sizes;
}

}  // namespace

// ---- tile_attention -----------------------------------------------------------------------------

TEST_CASE("tile_attention is its composition: results, log-sums and gradients in f64", "[host]") {
  const OneThread one;
  for (const Mask& m : kMasks) {
    uint64_t seed = 0;
    for (const Sizes& s : all_sizes()) {
      KeyMask mask;
      ++seed;
      const Problem p = laid_out(make_problem(s, m, seed, &mask), static_cast<int>(seed % 4));
      INFO(m.name << ", B " << s.batch << ", H " << s.heads << ", L " << s.queries << ", S "
                  << s.keys << ", E " << s.width << ", D " << s.value_width);
      const std::vector<Tensor> got = fused(p, mask).all(), expected = composed(p).all();
      for (size_t i = 0; i < got.size(); ++i) {
        INFO(kNames[i]);
        CHECK(mismatch(got[i], expected[i], 1e-12, 1e-12) == "");
      }
    }
  }
}

TEST_CASE("tile_attention in f32 errs no more than twice what its composition does", "[host]") {
  const OneThread one;
  for (const Mask& m : kMasks) {
    INFO(m.name);
    Judge small[5], large[5];
    uint64_t seed = 100;
    std::vector<Sizes> sizes = all_sizes();
    sizes.push_back({2, 2, 130, 515, 64, 64});
    for (const Sizes& s : sizes) {
      KeyMask mask;
      const Problem wide = in_precision(make_problem(s, m, ++seed, &mask), DType::f64);
      const Problem p = in_precision(wide, DType::f32);
      const auto got = fused(laid_out(p, static_cast<int>(seed % 3)), mask).all();
      const auto plain = composed(p).all(), exact = composed(wide).all();
      for (size_t i = 0; i < 5; ++i) {
        CHECK(got[i].dtype() == DType::f32);
        CHECK(mismatch(got[i], exact[i], 1e-5, 1e-4) == "");
        // Judged on usual sizes. With one or two keys dS is the difference of numbers that the
        // composition makes equal bit by bit; with narrow heads scores are large, and weights made
        // from a log-sum carry its rounding, those made from differences to the maximum do not.
        if (s.keys <= 2 || s.width < 16) continue;
        (s.keys > 500 ? large : small)[i].add(got[i], plain[i], exact[i]);
      }
    }
    for (size_t i = 0; i < 5; ++i) {
      INFO(kNames[i]);
      CHECK(small[i].verdict() == "");
      CHECK(large[i].verdict() == "");
    }
  }
}

TEST_CASE("tile_attention masks and drops as masked_softmax and dropout do") {
  const Problem p = make_problem({3, 2, 65, 67, 5, 3}, 1);
  const Lengths q_lengths({65, 9, 0}), k_lengths({66, 0, 67});
  const WeightDropout dropout{0.4, Rng(3, "dropout").reserve(1)};
  const Tensor scores = raw::matmul(p.q, raw::transpose(p.k, 2, 3));
  for (const bool causal : {false, true}) {
    const Tensor weights = raw::masked_softmax(scores, 0.7, q_lengths, k_lengths, causal);
    const KeyMask mask = raw::key_mask(p.q, p.k, q_lengths, k_lengths, causal);
    const Attended y = raw::tile_attention(p.q, p.k, p.v, mask, 0.7, dropout);
    CHECK(mismatch(y.out, raw::matmul(drop(weights, dropout), p.v), 1e-12, 1e-12) == "");
  }
}

TEST_CASE("tile_attention survives scores that overflow or vanish without a maximum taken off") {
  Rng rng(1);
  const Tensor v = randn({1, 1, 130, 3}, rng, DType::f32);
  for (const float size : {1e4f, -1e4f}) {
    std::vector<float> keys(130);
    for (size_t s = 0; s < 130; ++s) keys[s] = size + static_cast<float>(s == 77);
    const Tensor k = from_vector(keys, {1, 1, 130, 1}), q = ones({1, 1, 2, 1});
    const Attended y = raw::tile_attention(q, k, v, {}, 100);
    CHECK(mismatch(raw::select(y.out, 2, 0), raw::select(v, 2, 77), 0, 0) == "");
    CHECK(y.lse.to_vector<float>()[0] == Approx(100 * (size + 1)).epsilon(1e-5));
  }
}

TEST_CASE("tile_attention without keys or without queries") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Problem no_keys = in_precision(make_problem({2, 3, 5, 0, 4, 3}, 1), dtype);
    const Results r = fused(no_keys, {});
    CHECK(mismatch(r.out, zeros({2, 3, 5, 3}, dtype), 0, 0) == "");
    CHECK(mismatch(r.lse, full({2, 3, 5}, -kInf, dtype), 0, 0) == "");
    CHECK(mismatch(r.dq, zeros({2, 3, 5, 4}, dtype), 0, 0) == "");
    CHECK(r.dk.shape() == Shape{2, 3, 0, 4});
    const Attended best = raw::tile_attention(no_keys.q, no_keys.k, no_keys.v, {}, 1, {}, 2);
    CHECK(mismatch(best.top_keys, full({2, 3, 5, 2}, -1, DType::i32), 0, 0) == "");

    const Problem no_queries = in_precision(make_problem({2, 3, 0, 5, 4, 3}, 1), dtype);
    const Results none = fused(no_queries, {});
    CHECK(none.out.shape() == Shape{2, 3, 0, 3});
    CHECK(none.dq.shape() == Shape{2, 3, 0, 4});
    CHECK(mismatch(none.dk, zeros({2, 3, 5, 4}, dtype), 0, 0) == "");
    CHECK(mismatch(none.dv, zeros({2, 3, 5, 3}, dtype), 0, 0) == "");
  }
}

TEST_CASE("tile_attention gives the same bits from any memory layout") {
  KeyMask mask;
  const Problem p =
      in_precision(make_problem({2, 3, 65, 130, 33, 17}, kMasks[4], 5, &mask), DType::f32);
  const auto expected = fused(p, mask).all();
  for (const int layout : {1, 2}) {
    const auto got = fused(laid_out(p, layout), mask).all();
    for (size_t i = 0; i < 5; ++i) CHECK(same_bits(got[i], expected[i]));
  }
}

TEST_CASE("tile_attention gives the same bits on any number of threads, also with one head",
          "[host]") {
  for (const Sizes& s : {Sizes{1, 1, 130, 1100, 16, 16}, Sizes{1, 1, 65, 4200, 8, 3},
                         Sizes{2, 3, 130, 600, 16, 16}}) {
    KeyMask mask;
    const Problem wide = in_precision(
        make_problem(s, {"dropout", true, false, false, false, 0.1}, 9, &mask), DType::f64);
    const Problem p = in_precision(wide, DType::f32);
    CHECK(same_on_any_threads([&] { return fused(p, mask).all(); }));
    // Splits of the keys change nothing but the order of the sums.
    const auto got = fused(wide, mask).all(), expected = composed(wide).all();
    for (size_t i = 0; i < 5; ++i) CHECK(mismatch(got[i], expected[i], 1e-12, 1e-12) == "");
  }
}

TEST_CASE("tile_attention_backward computes what is asked for and takes missing cotangents as 0",
          "[host]") {
  KeyMask mask;
  Problem p = make_problem({2, 2, 9, 70, 5, 3}, kMasks[2], 3, &mask);
  const Attended y = raw::tile_attention(p.q, p.k, p.v, mask, p.scale);
  const auto grads = [&](const Tensor& dout, const Tensor& dlse, bool dq, bool dk, bool dv) {
    return raw::tile_attention_backward(p.q, p.k, p.v, mask, p.scale, {}, y, dout, dlse, dq, dk,
                                        dv);
  };
  const raw::AttentionGrads all = grads(p.dout, p.dlse, true, true, true);
  for (int i = 0; i < 3; ++i) {
    const raw::AttentionGrads one = grads(p.dout, p.dlse, i == 0, i == 1, i == 2);
    const Tensor got[] = {one.dq, one.dk, one.dv}, expected[] = {all.dq, all.dk, all.dv};
    for (int j = 0; j < 3; ++j) {
      CHECK(got[j].defined() == (i == j));
      if (i == j) CHECK(same_bits(got[j], expected[j]));
    }
  }
  const Tensor dout = p.dout, dlse = p.dlse;
  for (const bool of_out : {false, true}) {
    p.dout = of_out ? dout : zeros(dout.shape(), DType::f64);
    p.dlse = of_out ? zeros(dlse.shape(), DType::f64) : dlse;
    const raw::AttentionGrads got =
        grads(of_out ? dout : Tensor(), of_out ? Tensor() : dlse, true, true, true);
    const Results expected = composed(p);
    CHECK(mismatch(got.dq, expected.dq, 1e-12, 1e-12) == "");
    CHECK(mismatch(got.dk, expected.dk, 1e-12, 1e-12) == "");
    CHECK(mismatch(got.dv, expected.dv, 1e-12, 1e-12) == "");
  }
}

// ---- the best keys ------------------------------------------------------------------------------

namespace {

// topk of the masked, scaled scores; what is not seen counts as missing.
std::pair<Tensor, Tensor> best_reference(const Problem& p, int64_t k) {
  const Tensor scores = raw::mul(raw::matmul(p.q, raw::transpose(p.k, 2, 3)), p.scale);
  const Tensor hidden = full({1}, -kInf, DType::f64);
  const auto [values, at] = raw::topk(raw::where(p.visible, scores, hidden), k);
  const Tensor there = raw::compare(Compare::gt, values, -kInf);
  return {values, raw::where(there, raw::cast(at, DType::i32), full({1}, -1, DType::i32))};
}

}  // namespace

TEST_CASE("the best keys are the topk of the masked scores; missing ones are -1", "[host]") {
  const OneThread one;
  for (const Mask& m : kMasks) {
    INFO(m.name);
    uint64_t seed = 40;
    for (const Sizes& s :
         {Sizes{3, 2, 65, 131, 5, 3}, Sizes{2, 1, 3, 64, 33, 1}, Sizes{3, 1, 130, 7, 4, 2}}) {
      KeyMask mask;
      const Problem p = make_problem(s, m, ++seed, &mask);
      for (const int64_t k : {int64_t{1}, int64_t{3}, std::min<int64_t>(32, s.keys), s.keys}) {
        const Attended y = raw::tile_attention(p.q, p.k, p.v, mask, p.scale, p.dropout, k);
        const auto [scores, keys] = best_reference(p, k);
        CHECK(mismatch(y.top_keys, keys, 0, 0) == "");
        CHECK(mismatch(y.top_scores, scores, 1e-12, 1e-12) == "");
        const Attended bare = raw::tile_attention(p.q, p.k, Tensor(), mask, p.scale, p.dropout, k);
        CHECK_FALSE(bare.out.defined());
        CHECK(same_bits(bare.lse, y.lse));
        CHECK(same_bits(bare.top_keys, y.top_keys));
        CHECK(same_bits(bare.top_scores, y.top_scores));
      }
    }
  }
}

TEMPLATE_TEST_CASE("of equally good keys the lower ones are kept, in order", "[host]", float,
                   double) {
  // Head size 1 and small whole numbers: keys tie exactly, and for query 0 all of them do.
  Rng rng(8);
  std::vector<TestType> queries(70), keys(200);
  for (auto& q : queries) q = static_cast<TestType>(rng.below(5)) - 2;
  for (auto& k : keys) k = static_cast<TestType>(rng.below(7)) - 3;
  Problem p;
  p.q = from_vector(queries, {1, 1, 70, 1});
  p.k = from_vector(keys, {1, 1, 200, 1});
  Problem wide = p;
  for (Tensor* x : {&wide.q, &wide.k}) *x = raw::cast(*x, DType::f64);
  for (const bool causal : {false, true}) {
    const KeyMask mask = raw::key_mask(p.q, p.k, {}, Lengths({190}), causal);
    wide.visible = dense(mask, wide);
    for (const int64_t k : {1, 2, 31, 32, 33, 100, 200}) {
      INFO("k " << k << ", causal " << causal);
      const Attended y = raw::tile_attention(p.q, p.k, Tensor(), mask, 1, {}, k);
      const auto [scores, best] = best_reference(wide, k);
      CHECK(mismatch(y.top_keys, best, 0, 0) == "");
      CHECK(mismatch(y.top_scores, scores, 1e-6, 0) == "");
    }
  }
}

// ---- arguments ----------------------------------------------------------------------------------

TEST_CASE("attention explains arguments that do not fit", "[host]") {
  const Problem p = make_problem({2, 3, 5, 7, 4, 3}, 1);
  const auto tile = [&](const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask = {},
                        double dropout = 0) {
    return error_of([&] { raw::tile_attention(q, k, v, mask, 1, {dropout, {}}); });
  };
  CHECK(tile(p.q, p.k, p.v) == "<no error>");
  CHECK_THAT(tile(p.q, p.v, p.v), Contains("tile_attention: expected q (B, H, L, E) and k (B, H, "
                                           "S, E), got (2, 3, 5, 4) and (2, 3, 7, 3)"));
  CHECK_THAT(tile(p.q, p.k, p.dout),
             Contains("expected v (B, H, S, D) to fit k (2, 3, 7, 4), got (2, 3, 5, 3)"));
  CHECK_THAT(tile(p.q, raw::cast(p.k, DType::f32), p.v),
             Contains("dtypes differ: q is f64, k is f32"));
  KeyMask mask;
  mask.end = arange(7, DType::i32);
  CHECK_THAT(tile(p.q, p.k, p.v, mask), Contains("end: expected shape (5,), got (7,)"));
  mask.end = arange(5);
  CHECK_THAT(tile(p.q, p.k, p.v, mask), Contains("end: expected i32 on cpu, got i64"));
  CHECK_THAT(tile(p.q, p.k, p.v, {}, 1), Contains("dropout: expected [0, 1), got 1"));
  CHECK_THAT(error_of([&] {
               raw::key_mask(p.q, p.k, Lengths({5, 6}), {}, false);
             }),
             Contains("attention: q_lengths"));
}
