// Attention of groups of queries to lists of keys: the device against the CPU.
#include <catch2/catch.hpp>

#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

struct Case {
  int64_t batch, heads, queries, keys, width, value_width, groups, list;
  KeyRule rule = KeyRule::all;
  bool extra = false, partly = false, dropout = false, dlse = true;
  int layout = 0;  // 1: in the memory of projections, 2: no unit stride
};

// Order and offsets of groups, some empty and the first with half of the queries, and lists of
// different keys in any order with holes, some of them empty.
Groups make_groups(const Case& c, Rng& rng) {
  std::vector<int32_t> labels, keys;
  for (int64_t bh = 0; bh < c.batch * c.heads; ++bh) {
    for (int64_t l = 0; l < c.queries; ++l) {
      const auto any = static_cast<int32_t>(rng.below(c.groups + (c.partly ? 1 : 0)));
      const bool first = rng.below(2) && c.groups > 0 && c.groups < c.queries;
      labels.push_back(first ? 0 : any == c.groups ? -1 : any);
    }
    for (int64_t g = 0; g < c.groups; ++g) {
      const std::vector<int64_t> order = rng.permutation(c.keys);
      const bool none = rng.below(6) == 0;
      for (int64_t i = 0; i < c.list; ++i) {
        const bool hole = none || i >= c.keys || rng.below(4) == 0;
        keys.push_back(hole ? -1 : static_cast<int32_t>(order[i]));
      }
    }
  }
  const Clusters by =
      raw::clusters_of_labels(from_vector(labels, {c.batch, c.heads, c.queries}), c.groups);
  return {by.order, by.offsets, from_vector(keys, {c.batch, c.heads, c.groups, c.list})};
}

Tensor laid_out(const Tensor& x, int layout) {
  if (layout == 1) return raw::transpose(raw::clone(raw::transpose(x, 1, 2)), 1, 2);
  return layout == 2 ? strided(x) : x;
}

Tensors make_inputs(const Case& c, uint64_t seed) {
  Rng rng(seed, "gathered");
  const Groups groups = make_groups(c, rng);
  const auto numbers = [&](int64_t n, int64_t width) {
    return randn({c.batch, c.heads, n, width}, rng);
  };
  return {numbers(c.queries, c.width),
          numbers(c.keys, c.width),
          numbers(c.keys, c.value_width),
          numbers(c.queries, c.value_width),
          randn({c.batch, c.heads, c.queries}, rng),
          numbers(c.groups, c.width),
          numbers(c.groups, c.value_width),
          randn({c.batch, c.heads, c.groups}, rng),
          groups.order,
          groups.offsets,
          groups.keys};
}

// Results, without the log-sums, and gradients. Log-sums of queries that see but themselves against
// the rule are large, and all others of no weight beside them: they count in `log_sums`.
Tensors attend(const Case& c, const Tensors& x, Tensor* log_sums = nullptr) {
  const auto q = laid_out(x[0], c.layout), k = laid_out(x[1], c.layout);
  const auto v = laid_out(x[2], c.layout), dout = laid_out(x[3], c.layout);
  const Tensor extra = c.extra ? x[5] : Tensor();
  const Groups groups{x[8], x[9], x[10]};
  WeightDropout dropout, extra_dropout;
  if (c.dropout) {
    dropout = {0.3, Rng(1, "a").reserve(1)};
    extra_dropout = {0.5, Rng(1, "b").reserve(1)};
  }
  const double scale = 1.3 / std::sqrt(static_cast<double>(c.width));
  const Attended y = raw::gathered_attention(q, extra, k, v, groups, c.rule, scale, dropout,
                                             extra_dropout, c.partly);
  Attended dy{dout, c.dlse ? x[4] : Tensor(), {}, {}, {}, {}};
  if (c.extra) dy.extra_out = x[6], dy.extra_lse = c.dlse ? x[7] : Tensor();
  const raw::AttentionGrads dx = raw::gathered_attention_backward(
      q, extra, k, v, groups, c.rule, scale, dropout, extra_dropout, c.partly, y, dy);
  if (log_sums) *log_sums = y.lse;
  if (c.extra) return {y.out, dx.dq, dx.dk, dx.dv, y.extra_out, y.extra_lse, dx.dextra};
  return {y.out, dx.dq, dx.dk, dx.dv};
}

// The last resort's score is -1e5 ln 2: sums with it are not compared to a fraction of that.
Tensors bounded_log_sums(const Case& c, const Tensors& x) {
  Tensor lse;
  attend(c, x, &lse);
  std::vector<double> values = doubles(lse);
  for (double& value : values) value = std::isfinite(value) ? std::max(value, -50.0) : value;
  return {raw::cast(from_vector(values, lse.shape(), lse.device()), lse.dtype())};
}

std::string disagreement_of(const Case& c, uint64_t seed) {
  const Tensors inputs = make_inputs(c, seed);
  const std::string results = disagreement([&](const Tensors& x) { return attend(c, x); }, inputs);
  if (results != "") return results;
  return disagreement([&](const Tensors& x) { return bounded_log_sums(c, x); }, inputs);
}

void check(const std::vector<Case>& cases) {
  uint64_t seed = 0;
  for (const Case& c : cases) {
    INFO("case " << seed << ": L " << c.queries << ", S " << c.keys << ", groups " << c.groups
                 << ", list " << c.list << ", E " << c.width << ", D " << c.value_width);
    CHECK(disagreement_of(c, ++seed) == "");
  }
}

constexpr KeyRule kAll = KeyRule::all, kNotItself = KeyRule::not_itself;

}  // namespace

TEST_CASE("cuda: gathered attention of large groups") {
  check({
      {1, 2, 80, 70, 32, 32, 3, 40, kAll, true},
      {2, 1, 100, 40, 16, 24, 2, 33, kNotItself, true, true, true},
      {1, 1, 64, 90, 17, 5, 1, 64, kNotItself, false, false, false, false},
      {1, 1, 40, 50, 80, 128, 2, 10, kAll, true, true, true, true, 1},
      {1, 1, 70, 40, 132, 70, 2, 9, kAll, false, true, false, true, 2},
      {1, 1, 33, 20, 256, 256, 1, 12, kNotItself, true, false, false, false},
      {1, 1, 31, 8, 8, 8, 1, 8, kAll, true},
      {1, 1, 320, 30, 8, 8, 40, 8, kNotItself, true, true},
  });
}

TEST_CASE("cuda: gathered attention of small groups") {
  check({
      {1, 2, 40, 50, 32, 32, 40, 16, kAll, false, false, true},
      {2, 1, 30, 20, 17, 5, 10, 40, kNotItself, true, true, true},
      {1, 1, 21, 33, 72, 100, 9, 7, kAll, true, false, false, false, 1},
      {1, 1, 9, 12, 256, 130, 4, 5, kNotItself, true, true, false, true, 2},
      {1, 2, 64, 8, 12, 8, 4, 1, kAll},
      {1, 1, 1, 1, 1, 1, 1, 1, kNotItself, true},
  });
}

TEST_CASE("cuda: gathered attention of nothing") {
  check({
      {1, 1, 0, 5, 4, 4, 3, 2, kAll, true},
      {0, 2, 4, 5, 4, 4, 3, 2, kAll, true},
      {1, 1, 9, 5, 4, 4, 1, 0, kAll, true},
      {1, 1, 9, 0, 4, 4, 1, 8, kAll, true},
      {1, 1, 9, 5, 4, 4, 0, 8, kAll, true, true},
  });
}

TEST_CASE("cuda: gathered attention keeps NaN to the queries that meet it") {
  for (const Case& c :
       {Case{1, 1, 40, 20, 8, 8, 2, 10, kAll, true}, Case{1, 1, 10, 20, 8, 8, 5, 6}}) {
    Tensors x = make_inputs(c, 3);
    x[0].data<double>()[3 * 8] = NAN;
    x[2].data<double>()[7 * 8 + 1] = NAN;
    CHECK(disagreement([&](const Tensors& y) { return Tensors{attend(c, y)[0]}; }, x) == "");
  }
}

TEST_CASE("cuda: gathered attention gives the same bits every time") {
  const Case c{1, 2, 80, 30, 16, 16, 4, 20, kAll, true, true, true};
  const Tensors x = moved(with_floats(make_inputs(c, 5), DType::f32), kCuda);
  const Tensors first = attend(c, x), second = attend(c, x);
  for (size_t i = 0; i < first.size(); ++i) CHECK(same_bits(first[i], second[i]));
}

TEST_CASE("cuda: gathered attention reports a key that is not there") {
  for (const int64_t groups : {1, 9}) {
    const Case c{1, 1, 16, 20, 8, 8, groups, 8};
    Tensors x = make_inputs(c, 7);
    x[10].data<int32_t>()[3] = 20;
    const std::string message = error_of([&] {
      const Tensors y = attend(c, moved(with_floats(x, DType::f32), kCuda));
      raw::to(y[0], Device{});
    });
    CHECK(message.find("gathered_attention: keys: index 20 at position 3") != std::string::npos);
  }
}
