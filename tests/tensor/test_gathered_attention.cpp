// Attention to lists of keys against dense attention under the mask that the lists make.
#include "tests/tensor/attention_problems.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

struct Listed {
  Problem p, extra;  // the queries, and one more per group
  Groups groups;
  KeyRule rule = KeyRule::all;
  bool partly = false;
  Tensor last_resort;  // u8 (B, H, L): queries that see nothing but themselves against the rule
};

// Groups of random size, some empty; lists of up to `longest` different keys in any order with
// holes, some without a key.
Listed make_listed(const Sizes& s, int64_t count, int64_t longest, KeyRule rule, bool partly,
                   uint64_t seed) {
  Listed x{make_problem(s, seed),
           make_problem({s.batch, s.heads, count, s.keys, s.width, s.value_width}, seed + 1000),
           {},
           rule,
           partly,
           {}};
  Rng rng(seed, "lists");
  std::vector<int32_t> labels, keys;
  std::vector<uint8_t> of_members, of_extra, alone;
  for (int64_t bh = 0; bh < s.batch * s.heads; ++bh) {
    std::vector<std::vector<uint8_t>> seen(count + 1, std::vector<uint8_t>(s.keys, 0));
    for (int64_t g = 0; g < count; ++g) {
      const std::vector<int64_t> order = rng.permutation(s.keys);
      const bool none = rng.below(6) == 0;
      for (int64_t i = 0; i < longest; ++i) {
        const bool hole = none || i >= s.keys || rng.below(4) == 0;
        keys.push_back(hole ? -1 : static_cast<int32_t>(order[i]));
        if (!hole) seen[g][order[i]] = 1;
      }
      of_extra.insert(of_extra.end(), seen[g].begin(), seen[g].end());
    }
    for (int64_t l = 0; l < s.queries; ++l) {
      // Half of them in the first group: more than are worked on at once.
      const int64_t among = count + (partly ? 1 : 0);
      int64_t g = rng.below(2) ? 0 : static_cast<int64_t>(rng.below(among));
      std::vector<uint8_t> row = seen[g];
      labels.push_back(g == count ? -1 : static_cast<int32_t>(g));
      alone.push_back(0);
      if (rule == KeyRule::not_itself && l < s.keys && row[l]) {
        alone.back() = std::count(row.begin(), row.end(), 1) == 1;
        row[l] = alone.back();
      }
      of_members.insert(of_members.end(), row.begin(), row.end());
    }
  }
  const Clusters clusters =
      raw::clusters_of_labels(from_vector(labels, {s.batch, s.heads, s.queries}), count);
  x.groups = {clusters.order, clusters.offsets,
              from_vector(keys, {s.batch, s.heads, count, longest})};
  x.p.visible = from_vector(of_members, {s.batch, s.heads, s.queries, s.keys});
  x.extra.visible = from_vector(of_extra, {s.batch, s.heads, count, s.keys});
  x.extra.k = x.p.k, x.extra.v = x.p.v, x.extra.scale = x.p.scale;
  x.last_resort = from_vector(alone, {s.batch, s.heads, s.queries});
  return x;
}

// Results for the queries, then out, lse and dq of the extra ones.
std::vector<Tensor> listed_fused(const Listed& x, bool with_extra) {
  const Problem &p = x.p, &e = x.extra;
  const Tensor extra = with_extra ? e.q : Tensor();
  const Attended y = raw::gathered_attention(p.q, extra, p.k, p.v, x.groups, x.rule, p.scale,
                                             p.dropout, e.dropout, x.partly);
  Attended dy{p.dout, p.dlse, {}, {}, {}, {}};
  if (with_extra) dy.extra_out = e.dout, dy.extra_lse = e.dlse;
  const raw::AttentionGrads dx = raw::gathered_attention_backward(
      p.q, extra, p.k, p.v, x.groups, x.rule, p.scale, p.dropout, e.dropout, x.partly, y, dy);
  // How far below all others the score of a last resort lies is the kernel's business.
  std::vector<Tensor> all{y.out, raw::where(x.last_resort, zeros({1}, y.lse.dtype()), y.lse), dx.dq,
                          dx.dk, dx.dv};
  if (with_extra) all.insert(all.end(), {y.extra_out, y.extra_lse, dx.dextra});
  return all;
}

std::vector<Tensor> listed_composed(const Listed& x, bool with_extra) {
  Problem p = x.p;
  p.dlse = raw::where(x.last_resort, zeros({1}, p.dlse.dtype()), p.dlse);
  Results r = composed(p);
  std::vector<Tensor> all = r.all();
  all[1] = raw::where(x.last_resort, zeros({1}, r.lse.dtype()), r.lse);
  if (!with_extra) return all;
  const Results of_extra = composed(x.extra);
  all[3] = raw::add(all[3], of_extra.dk);
  all[4] = raw::add(all[4], of_extra.dv);
  all.insert(all.end(), {of_extra.out, of_extra.lse, of_extra.dq});
  return all;
}

}  // namespace

TEST_CASE("gathered_attention is dense attention under the mask that its lists make", "[slow]") {
  const OneThread one;
  uint64_t seed = 0;
  for (const Sizes& s : {Sizes{2, 3, 65, 67, 33, 17}, Sizes{1, 1, 130, 64, 64, 64},
                         Sizes{3, 2, 2, 1, 1, 3}, Sizes{1, 2, 63, 130, 3, 65}}) {
    for (const int64_t count : {1, 3, 20}) {
      for (const int64_t longest : {1, 16, 33}) {
        ++seed;
        for (const KeyRule rule : {KeyRule::all, KeyRule::not_itself}) {
          const bool with_extra = seed % 2, partly = seed % 3 != 0;
          Listed x = make_listed(s, count, longest, rule, partly, seed);
          if (seed % 5 == 0) {
            x.p.dropout = {0.2, Rng(seed, "a").reserve(1)};
            x.extra.dropout = {0.4, Rng(seed, "b").reserve(1)};
          }
          x.p = laid_out(x.p, static_cast<int>(seed % 4));
          x.extra.v = x.p.v;
          x.extra.q = seed % 4 == 2 ? strided(x.extra.q) : x.extra.q;
          const auto got = listed_fused(x, with_extra), expected = listed_composed(x, with_extra);
          INFO("L " << s.queries << ", S " << s.keys << ", groups " << count << ", list " << longest
                    << ", extra " << with_extra << ", partly " << partly);
          for (size_t i = 0; i < got.size(); ++i) {
            INFO("result " << i);
            // The log-sum of a last resort is large: what is made from it has fewer digits.
            CHECK(mismatch(got[i], expected[i], 1e-9, 1e-9) == "");
          }
        }
      }
    }
  }
}

TEST_CASE("gathered_attention in f32 errs no more than twice what its composition does") {
  const OneThread one;
  Judge judge[8];
  for (uint64_t seed = 1; seed < 7; ++seed) {
    Listed wide = make_listed({2, 2, 130, 131, 33, 64}, 5, 32, KeyRule::not_itself, true, seed);
    for (Problem* p : {&wide.p, &wide.extra}) *p = in_precision(*p, DType::f64);
    Listed x = wide;
    for (Problem* p : {&x.p, &x.extra}) *p = in_precision(*p, DType::f32);
    const auto got = listed_fused(x, true), plain = listed_composed(x, true);
    const auto exact = listed_composed(wide, true);
    for (size_t i = 0; i < got.size(); ++i) judge[i].add(got[i], plain[i], exact[i]);
  }
  for (const Judge& j : judge) CHECK(j.verdict() == "");
}

TEST_CASE("gathered_attention gives the same bits on any number of threads, also with one head") {
  for (const Sizes& s : {Sizes{1, 1, 130, 200, 16, 16}, Sizes{2, 3, 65, 67, 5, 3}}) {
    Listed x = make_listed(s, 70, 16, KeyRule::all, true, 4);
    for (Problem* p : {&x.p, &x.extra}) *p = in_precision(*p, DType::f32);
    x.p.dropout = x.extra.dropout = {0.1, Rng(1, "dropout").reserve(1)};
    CHECK(same_on_any_threads([&] { return listed_fused(x, true); }));
  }
}

TEST_CASE("gathered_attention explains arguments that do not fit") {
  const Listed x = make_listed({2, 3, 5, 7, 4, 3}, 2, 4, KeyRule::all, false, 1);
  const auto gathered = [&](const Groups& groups, const Tensor& extra = {}) {
    return error_of([&] {
      raw::gathered_attention(x.p.q, extra, x.p.k, x.p.v, groups, x.rule, 1, {}, {}, false);
    });
  };
  Groups groups = x.groups;
  CHECK(gathered(groups) == "<no error>");
  groups.keys = raw::cast(groups.keys, DType::i64);
  CHECK_THAT(gathered(groups),
             Contains("gathered_attention: keys: expected contiguous i32, got i64"));
  groups = x.groups;
  groups.order = arange(5, DType::i32);
  CHECK_THAT(gathered(groups), Contains("order: expected shape (2, 3, 5), got (5,)"));
  CHECK_THAT(gathered(x.groups, x.p.q),
             Contains("extra: expected shape (2, 3, 2, 4), got (2, 3, 5, 4)"));
}
