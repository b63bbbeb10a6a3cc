#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/ops.h"
#include "tensor/parallel.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

// Whether a comes before b in ascending order; NaN is the largest.
bool below(double a, double b) { return std::isnan(b) ? !std::isnan(a) : a < b; }

// Positions of one row in the order asked for, by a stable sort of its values.
std::vector<int64_t> order_by_hand(const std::vector<double>& row, bool descending) {
  std::vector<int64_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
    return descending ? below(row[j], row[i]) : below(row[i], row[j]);
  });
  return order;
}

// Checks sort in both directions and topk for several k against `order_by_hand`.
void check_rows(const Tensor& x) {
  const int64_t n = x.size(-1), rows = n ? x.numel() / n : 0;
  const auto values = doubles(x);
  for (bool descending : {false, true}) {
    const auto [sorted, index] = raw::sort(x, descending);
    std::vector<double> expected;
    std::vector<double> expected_index;
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<double> row(values.begin() + r * n, values.begin() + (r + 1) * n);
      for (int64_t i : order_by_hand(row, descending)) {
        expected.push_back(row[i]);
        expected_index.push_back(static_cast<double>(i));
      }
    }
    CHECK(mismatch(sorted, expected, 0, 0) == "");
    CHECK(mismatch(index, expected_index, 0, 0) == "");
    if (!descending) continue;
    for (int64_t k : {int64_t{1}, int64_t{2}, n / 3, n - 1, n}) {
      if (k < 1 || k > n) continue;
      INFO("k = " << k);
      const auto [top, top_index] = raw::topk(x, k);
      CHECK(mismatch(top, raw::slice(sorted, -1, 0, k), 0, 0) == "");
      CHECK(mismatch(top_index, raw::slice(index, -1, 0, k), 0, 0) == "");
    }
  }
}

}  // namespace

TEST_CASE("sort and topk order rows of any float type like a stable sort") {
  Rng rng(1);
  for (int64_t n : {1, 2, 63, 64, 65, 1000}) {
    INFO("n = " << n);
    check_rows(randn({3, n}, rng));
    check_rows(randn({2, 2, n}, rng, DType::f32));
    check_rows(strided(randn({4, n}, rng, DType::f32)));
  }
}

TEST_CASE("sort and topk break ties by the lower index") {
  Rng rng(2);
  for (int64_t values : {1, 2, 10}) {
    const Tensor ints = randint({3, 2000}, values, rng);
    for (DType dtype : {DType::f64, DType::f32, DType::i64, DType::i32, DType::u8}) {
      INFO(values << " values of " << dtype);
      check_rows(raw::cast(ints, dtype));
    }
  }
}

TEST_CASE("topk is right for rows that rise or fall, where most or no elements pass the bar") {
  const Tensor rising = arange(5000, DType::f32);
  const auto [top, index] = raw::topk(rising, 3);
  CHECK(mismatch(top, {4999, 4998, 4997}) == "");
  CHECK(mismatch(index, {4999, 4998, 4997}) == "");
  check_rows(rising);
  check_rows(raw::neg(rising));
  // A late element that is better by the smallest step there is.
  std::vector<int32_t> flat(1000, 5);
  flat[990] = 6;
  CHECK(mismatch(raw::topk(from_vector(flat, {1000}), 2).second, {990, 0}) == "");
}

TEST_CASE("NaN is the largest, infinities and zeros of both signs are in place") {
  const std::vector<double> values = {0., kNan, -1, -0., kInf, 1e-320, -kNan, -kInf, 0., -1e-320};
  for (DType dtype : {DType::f64, DType::f32}) {
    const Tensor x = raw::cast(from_vector(values, {10}), dtype);
    INFO(dtype);
    // In f32 the two smallest are zeros as well.
    const bool wide = dtype == DType::f64;
    const auto [ascending, up] = raw::sort(x);
    CHECK(mismatch(up, wide ? std::vector<double>{7, 2, 9, 0, 3, 8, 5, 4, 1, 6}
                            : std::vector<double>{7, 2, 0, 3, 5, 8, 9, 4, 1, 6}) == "");
    const auto [descending, down] = raw::sort(x, true);
    CHECK(mismatch(down, wide ? std::vector<double>{1, 6, 4, 5, 0, 3, 8, 9, 2, 7}
                              : std::vector<double>{1, 6, 4, 0, 3, 5, 8, 9, 2, 7}) == "");
    CHECK(mismatch(raw::topk(x, 4).second, raw::slice(down, 0, 0, 4)) == "");
    // Values are moved, not recomputed: -0 keeps its sign.
    CHECK(std::signbit(doubles(ascending)[wide ? 4 : 3]));
  }
}

TEST_CASE("integers at the ends of their range sort") {
  using I64 = std::numeric_limits<int64_t>;
  using I32 = std::numeric_limits<int32_t>;
  const std::vector<int64_t> wide = {0, I64::max(), -1, I64::min(), 1};
  CHECK(mismatch(raw::sort(from_vector(wide, {5})).second, {3, 2, 0, 4, 1}) == "");
  CHECK(mismatch(raw::topk(from_vector(wide, {5}), 5).second, {1, 4, 0, 2, 3}) == "");
  const std::vector<int32_t> narrow = {0, I32::max(), -1, I32::min(), 1};
  CHECK(mismatch(raw::sort(from_vector(narrow, {5}), true).second, {1, 4, 0, 2, 3}) == "");
  CHECK(mismatch(raw::sort(from_vector(std::vector<uint8_t>{255, 0, 128}, {3})).second,
                 {1, 2, 0}) == "");
}

TEST_CASE("sort and topk accept empty tensors") {
  CHECK(raw::sort(zeros({2, 0})).first.shape() == Shape{2, 0});
  CHECK(raw::sort(zeros({0, 3})).second.shape() == Shape{0, 3});
  CHECK(raw::topk(zeros({0, 3}), 2).first.shape() == Shape{0, 2});
}

TEST_CASE("many rows sort alike on any number of threads") {
  Rng rng(3);
  const Tensor x = raw::cast(randint({500, 200}, 50, rng), DType::f32);
  set_num_threads(1);
  const auto sorted = raw::sort(x), top = raw::topk(x, 7);
  set_num_threads(3);
  CHECK(same_bits(raw::sort(x).second, sorted.second));
  CHECK(same_bits(raw::topk(x, 7).second, top.second));
  set_num_threads(0);
}

TEST_CASE("sort and topk refuse what they cannot do") {
  CHECK(error_of([] {
          raw::topk(zeros({2, 3}), 4);
        }) == "topk: k: expected one in [1, 3], got 4 (the last dimension of (2, 3) has 3)");
  CHECK(error_of([] {
          raw::topk(zeros({2, 3}), 0);
        }) == "topk: k: expected one in [1, 3], got 0 (the last dimension of (2, 3) has 3)");
  CHECK(error_of([] { raw::sort(zeros({})); }) ==
        "sort: expected at least one dimension, got a scalar");
  CHECK_THAT(error_of([] { raw::sort(empty({3}, DType::bf16)); }), Catch::Contains("got bf16"));
}
