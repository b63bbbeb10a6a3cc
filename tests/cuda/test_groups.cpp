// Positions sorted by label, and sums over groups.
#include <catch2/catch.hpp>

#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// Labels in [-1, groups), the group in the middle always empty.
Tensor some_labels(const Shape& shape, int64_t groups, Rng& rng) {
  std::vector<int32_t> labels(numel(shape));
  for (int32_t& label : labels) {
    label = static_cast<int32_t>(rng.below(groups + 1)) - 1;
    if (label == groups / 2) label = -1;
  }
  return from_vector(labels, shape);
}

struct Sorted {
  Tensor order, offsets;
};
Sorted sorted(const Tensor& labels, int64_t groups) {
  const Shape& s = labels.shape();
  const Device device = labels.device();
  const Sorted result{empty(s, DType::i32, device),
                      empty({s[0], s[1], groups + 1}, DType::i32, device)};
  CENTROID_DISPATCH(device, group_by_label, labels, result.order, result.offsets);
  return result;
}

// x (B, H, L, E) whose memory is (B, L, H, E).
Tensor heads_apart(const Tensor& x) {
  const Shape& s = x.shape();
  return raw::transpose(raw::reshape(x, {s[0], s[2], s[1], s[3]}), 1, 2);
}

}  // namespace

TEST_CASE("cuda: positions sorted by label, stably, for few and for many labels") {
  struct Case {
    Shape shape;
    int64_t groups;
  };
  const std::vector<Case> cases = {{{2, 3, 67}, 9},     {{1, 1, 1}, 1},     {{2, 2, 0}, 3},
                                   {{0, 2, 5}, 3},      {{1, 2, 5}, 0},     {{1, 1, 3000}, 5},
                                   {{1, 1, 2500}, 255}, {{1, 2, 700}, 256}, {{1, 2, 700}, 1000},
                                   {{2, 1, 90}, 70000}};
  for (const Case& c : cases) {
    Rng rng(c.groups, "labels");
    const auto f = [&](const Tensors& in) {
      const Sorted s = sorted(in[0], c.groups);
      return Tensors{s.order, s.offsets};
    };
    INFO(c.shape << ", " << c.groups << " groups");
    CHECK(disagreement(f, {some_labels(c.shape, c.groups, rng)}) == "");
  }
  const auto f = [](const Tensors& in) {
    const Sorted s = sorted(in[0], 4);
    return Tensors{s.order, s.offsets};
  };
  CHECK(disagreement(f, {full({1, 1, 99}, -1, DType::i32)}) == "");
  CHECK(disagreement(f, {full({1, 1, 99}, 3, DType::i32)}) == "");
}

TEST_CASE("cuda: a label out of range sorts with those that have none") {
  const Tensor labels = from_vector<int32_t>({1, 7, 0, -5, 1}, {1, 1, 5});
  const Sorted s = sorted(raw::to(labels, kCuda), 2);
  CHECK(s.order.to_vector<int32_t>() == std::vector<int32_t>{2, 0, 4, 1, 3});
  CHECK(s.offsets.to_vector<int32_t>() == std::vector<int32_t>{0, 1, 3});
}

TEST_CASE("cuda: group sums and means") {
  struct Case {
    Shape shape;
    int64_t groups;
  };
  const std::vector<Case> cases = {{{2, 3, 67, 5}, 9}, {{2, 3, 67, 16}, 9}, {{1, 2, 40, 150}, 3},
                                   {{1, 2, 1, 8}, 1},  {{2, 2, 0, 4}, 3},   {{1, 2, 5, 4}, 0},
                                   {{1, 2, 5, 0}, 2},  {{0, 2, 5, 4}, 2},   {{1, 1, 1100, 4}, 2}};
  for (const Case& c : cases) {
    Rng rng(c.shape[2], "sums");
    const Tensor labels = some_labels({c.shape[0], c.shape[1], c.shape[2]}, c.groups, rng);
    const auto f = [&](const Tensors& in) {
      const Sorted s = sorted(in[1], c.groups);
      Tensors results;
      for (const Tensor& x : {in[0], heads_apart(in[0])}) {
        for (const bool mean : {false, true}) {
          const Tensor y =
              empty({c.shape[0], c.shape[1], c.groups, c.shape[3]}, x.dtype(), x.device());
          CENTROID_DISPATCH(x.device(), group_sum, x, s.order, s.offsets, mean, y);
          results.push_back(y);
        }
      }
      return results;
    };
    INFO(c.shape << ", " << c.groups << " groups");
    CHECK(disagreement(f, {randn(c.shape, rng), labels}) == "");
  }
}

TEST_CASE("cuda: group sums of rows that do not begin at multiples of 16 bytes, and of NaN") {
  Rng rng(2);
  const Tensor x = randn({1, 2, 50, 9}, rng), labels = some_labels({1, 2, 50}, 4, rng);
  x.data<double>()[100] = NAN;
  x.data<double>()[200] = INFINITY;
  const auto f = [&](const Tensors& in) {
    const Sorted s = sorted(in[1], 4);
    const Tensor y = empty({1, 2, 4, 8}, in[0].dtype(), in[0].device());
    CENTROID_DISPATCH(y.device(), group_sum, raw::slice(in[0], 3, 1, 9), s.order, s.offsets, true,
                      y);
    return Tensors{y};
  };
  CHECK(disagreement(f, {x, labels}) == "");
}

TEST_CASE("cuda: groups' rows for their members") {
  struct Case {
    Shape shape;
    int64_t groups;
  };
  const std::vector<Case> cases = {{{2, 3, 67, 5}, 9}, {{2, 3, 67, 16}, 9}, {{1, 2, 40, 300}, 3},
                                   {{1, 2, 1, 8}, 1},  {{2, 2, 0, 4}, 3},   {{1, 2, 5, 4}, 0},
                                   {{1, 2, 5, 0}, 2},  {{0, 2, 5, 4}, 2}};
  for (const Case& c : cases) {
    Rng rng(c.shape[2], "rows");
    const Shape& s = c.shape;
    const Tensor labels = some_labels({s[0], s[1], s[2]}, c.groups, rng);
    const auto f = [&](const Tensors& in) {
      const Sorted order = sorted(in[1], c.groups);
      Tensors results;
      for (const bool mean : {false, true}) {
        const auto spread = [&](const Tensor& x) {
          CENTROID_DISPATCH(x.device(), group_broadcast, in[0], in[1], order.offsets, mean, x);
        };
        const Tensor x = empty(s, in[0].dtype(), in[0].device());
        spread(x);
        results.push_back(x);
        const Tensor apart = empty({s[0], s[2], s[1], s[3]}, in[0].dtype(), in[0].device());
        spread(raw::transpose(apart, 1, 2));
        results.push_back(apart);
      }
      return results;
    };
    INFO(c.shape << ", " << c.groups << " groups");
    CHECK(disagreement(f, {randn({s[0], s[1], c.groups, s[3]}, rng), labels}) == "");
  }
}
