#include <catch2/catch.hpp>
#include <limits>

#include "tensor/parallel.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Contains;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Folds the elements of `x` into those of the reduced tensor, on the host in double.
std::vector<double> by_hand(const Tensor& x, const Dims& dims, double init,
                            double (*fold)(double, double)) {
  bool reduced[kMaxDims] = {};
  for (int64_t d : dims) reduced[d < 0 ? d + x.dim() : d] = true;
  if (dims.empty()) std::fill_n(reduced, kMaxDims, true);
  int64_t n = 1;
  for (int d = 0; d < x.dim(); ++d) n *= reduced[d] ? 1 : x.shape()[d];
  std::vector<double> result(n, init);
  const auto values = doubles(x);
  for (size_t i = 0; i < values.size(); ++i) {
    int64_t rest = static_cast<int64_t>(i), at = 0, step = 1;
    for (int d = x.dim() - 1; d >= 0; --d) {
      if (!reduced[d]) at += rest % x.shape()[d] * step, step *= x.shape()[d];
      rest /= x.shape()[d];
    }
    result[at] = fold(result[at], values[i]);
  }
  return result;
}

double plus(double a, double b) { return a + b; }
double larger(double a, double b) { return b > a ? b : a; }
double smaller(double a, double b) { return b < a ? b : a; }

const Dims kDims3[] = {{}, {0}, {1}, {2}, {0, 1}, {1, 2}, {0, 2}, {0, 1, 2}, {-1}, {2, 0}};

}  // namespace

TEST_CASE("sum, max and min over any dimensions of any layout") {
  Rng rng(1);
  for (const Shape& shape : {Shape{2, 3, 5}, Shape{1, 7, 1}, Shape{3, 130, 33}, Shape{130, 3, 70},
                             Shape{5, 1, 9000}, Shape{9000, 2, 3}, Shape{2, 5000, 1}}) {
    for (bool turn : {false, true}) {
      const Tensor x = turn ? strided(randn(shape, rng)) : randn(shape, rng);
      for (const Dims& dims : kDims3) {
        INFO(shape << " over " << dims << " strided " << turn);
        CHECK(mismatch(raw::sum(x, dims), by_hand(x, dims, 0, plus)) == "");
        CHECK(mismatch(raw::max(x, dims), by_hand(x, dims, -kInf, larger)) == "");
        CHECK(mismatch(raw::min(x, dims), by_hand(x, dims, kInf, smaller)) == "");
      }
    }
  }
}

TEST_CASE("reduced dimensions disappear or stay as 1") {
  const Tensor x = zeros({2, 3, 4});
  CHECK(raw::sum(x).shape() == Shape{});
  CHECK(raw::sum(x, {}, true).shape() == Shape{1, 1, 1});
  CHECK(raw::sum(x, {1}).shape() == Shape{2, 4});
  CHECK(raw::sum(x, {0, -1}, true).shape() == Shape{1, 3, 1});
  CHECK(raw::argmax(x, 1, true).shape() == Shape{2, 1, 4});
  CHECK(raw::argmax(x).shape() == Shape{2, 3});
  CHECK(raw::logsumexp(x, {0, 2}).shape() == Shape{3});
  CHECK(raw::sum(full({}, 3.0)).item() == 3);
  CHECK_THAT(error_of([&] { raw::sum(x, {0, 0}); }), Contains("sum: dimension 0 appears twice"));
  CHECK_THAT(error_of([&] { raw::max(x, {3}); }),
             Contains("max: dimension: expected one in [-3, 3)"));
}

TEST_CASE("reducing sizes of 1 gives a tensor of its own") {
  const Tensor x = ones({1, 3});
  const Tensor y = raw::sum(x, {0});
  raw::fill_(y, 5);
  CHECK(mismatch(x, {1, 1, 1}) == "");
}

TEST_CASE("f32 sums are accurate") {
  const int64_t n = 3000017;
  const Tensor x = full({n}, 0.1);
  CHECK(raw::sum(x).item() == Approx(n * double{0.1f}).epsilon(1e-6));
  Rng rng(2);
  const Tensor y = randu({30000, 37}, rng, 0, 1, DType::f32);
  CHECK(mismatch(raw::sum(y, {0}), by_hand(y, {0}, 0, plus), 1e-6) == "");
  CHECK(mismatch(raw::sum(y), by_hand(y, {}, 0, plus), 1e-6) == "");
  // Cancellation: chunks are combined in f64.
  const Tensor z = from_vector<float>(std::vector<float>(20000, 1.0f), {20000});
  raw::fill_(raw::slice(z, 0, 0, 4096), 1e6);
  raw::fill_(raw::slice(z, 0, 8192, 12288), -1e6);
  CHECK(raw::sum(z).item() == 20000 - 8192);
}

TEST_CASE("results are the same bits for any number of threads", "[slow]") {
  Rng rng(3);
  const Tensor x = raw::normal({1003, 1009}, rng);
  const auto run = [&](int threads) {
    set_num_threads(threads);
    std::vector<Tensor> all;
    for (const Dims& dims : {Dims{}, Dims{0}, Dims{1}}) {
      all.push_back(raw::sum(x, dims));
      all.push_back(raw::max(x, dims));
      all.push_back(raw::mean(x, dims));
      all.push_back(raw::var(x, dims));
      all.push_back(raw::logsumexp(x, dims));
    }
    all.push_back(raw::sum(raw::reshape(x, {17, 59, 1009}), {1}));
    all.push_back(raw::cumsum(x, 0));
    all.push_back(raw::cumsum(x, 1));
    all.push_back(raw::argmax(x, 0));
    all.push_back(raw::gelu(x));
    all.push_back(full({1}, raw::global_norm({x, raw::mul(x, 2)}), DType::f64));
    set_num_threads(0);
    return all;
  };
  const auto one = run(1);
  for (int threads : {2, 4}) {
    const auto many = run(threads);
    for (size_t i = 0; i < one.size(); ++i) {
      INFO("result " << i << " on " << threads << " threads");
      CHECK(same_bits(one[i], many[i]));
    }
  }
}

TEST_CASE("sums of integers are i64, the rest keeps its dtype") {
  const Tensor x = full({1000}, 255, DType::u8);
  CHECK(raw::sum(x).dtype() == DType::i64);
  CHECK(raw::sum(x).item() == 255000);
  CHECK(raw::sum(full({4}, INT32_MAX, DType::i32)).item<int64_t>() == 4 * int64_t{INT32_MAX});
  CHECK(raw::sum(full({2}, 0x1p62, DType::i64)).item<int64_t>() == INT64_MIN);  // wraps
  CHECK(raw::max(x).dtype() == DType::u8);
  CHECK(raw::cumsum(x).dtype() == DType::i64);
  CHECK(raw::max(from_vector<int32_t>({-5, INT32_MIN, -7}, {3})).item() == -5);
  CHECK(raw::min(from_vector<int64_t>({5, INT64_MAX, 7}, {3})).item() == 5);
  CHECK(error_of([&] { raw::mean(x); }) ==
        "mean: x: expected f32 or f64, got u8 (raw::cast converts)");
  CHECK_THAT(error_of([&] { raw::sum(zeros({2}, DType::bf16)); }), Contains("sum: dtype"));
}

TEST_CASE("nothing to reduce: sums are 0, extremes are errors") {
  CHECK(raw::sum(zeros({0})).item() == 0);
  CHECK(mismatch(raw::sum(zeros({0, 3}), {0}), {0, 0, 0}) == "");
  CHECK(raw::sum(zeros({0, 3}), {1}).shape() == Shape{0});
  CHECK(raw::max(zeros({0, 3}), {1}).shape() == Shape{0});
  CHECK(mismatch(raw::logsumexp(zeros({2, 0}), {1}), {-kInf, -kInf}) == "");
  CHECK(raw::cumsum(zeros({0})).numel() == 0);
  CHECK(raw::cumsum(zeros({3, 0}), 0).shape() == Shape{3, 0});
  CHECK(error_of([] {
          raw::max(zeros({2, 0}), {1});
        }) == "max: of no elements: shape (2, 0) is empty along the reduced dimensions");
  for (auto* f : {+[] { raw::mean(zeros({0})); }, +[] { raw::min(zeros({0})); },
                  +[] { raw::argmax(zeros({0})); },
                  +[] {
                    raw::argmin(zeros({3, 0}));
                  }}) {
    CHECK_THAT(error_of(f), Contains("of no elements"));
  }
}

TEST_CASE("NaN wins in max and min, wherever it stands") {
  for (int64_t n : {1, 5, 64, 200, 5000}) {
    for (int64_t at : {int64_t{0}, n / 2, n - 1}) {
      const Tensor x = full({n}, 1.0);
      raw::fill_(raw::slice(x, 0, at, at + 1), NAN);
      INFO(n << " " << at);
      CHECK(std::isnan(raw::max(x).item()));
      CHECK(std::isnan(raw::min(x).item()));
      CHECK(std::isnan(raw::sum(x).item()));
      CHECK(raw::argmax(x).item() == at);
      CHECK(raw::argmin(x).item() == at);
      const Tensor columns = raw::clone(raw::expand(raw::reshape(x, {n, 1}), {n, 3}));
      raw::fill_(raw::select(columns, 1, 1), 0);
      const auto top = doubles(raw::max(columns, {0}));
      CHECK((std::isnan(top[0]) && top[1] == 0 && std::isnan(top[2])));
      const double place = static_cast<double>(at);
      CHECK(mismatch(raw::argmax(columns, 0), {place, 0, place}) == "");
    }
  }
  CHECK(raw::max(full({3}, -kInf)).item() == -kInf);
  CHECK(raw::argmax(full({3}, -kInf)).item() == 0);
}

TEST_CASE("argmax and argmin give the first index of the extreme") {
  Rng rng(4);
  for (const Shape& shape : {Shape{4, 7, 3}, Shape{3, 500, 1}, Shape{2, 300, 40}, Shape{1, 1, 5}}) {
    const Tensor x = raw::cast(randint(shape, 9, rng), DType::f32);  // many ties
    for (int dim : {0, 1, 2}) {
      for (bool largest : {true, false}) {
        const Tensor index = largest ? raw::argmax(x, dim, true) : raw::argmin(x, dim, true);
        CHECK(index.dtype() == DType::i64);
        const auto v = doubles(x), found = doubles(index);
        const int64_t n = shape[dim];
        int64_t C = 1;
        for (int d = dim + 1; d < 3; ++d) C *= shape[d];
        int wrong = 0;
        for (int64_t r = 0; r < index.numel(); ++r) {
          const int64_t base = r / C * n * C + r % C;
          int64_t best = 0;
          for (int64_t i = 1; i < n; ++i) {
            const double a = v[base + i * C], b = v[base + best * C];
            if (largest ? a > b : a < b) best = i;
          }
          wrong += found[r] != static_cast<double>(best);
        }
        INFO(shape << " dimension " << dim << " largest " << largest);
        CHECK(wrong == 0);
      }
    }
  }
  CHECK(raw::argmax(raw::transpose(from_vector<int32_t>({1, 5, 7, 2}, {2, 2}), 0, 1), 0)
            .to_vector<int64_t>() == std::vector<int64_t>{1, 0});
}

TEST_CASE("mean and variance") {
  Rng rng(5);
  const Tensor x = raw::add(randn({4, 50, 6}, rng), 1000);
  const auto mean = raw::mean(x, {0, 2});
  auto expected = by_hand(x, {0, 2}, 0, plus);
  for (double& v : expected) v /= 24;
  CHECK(mismatch(mean, expected) == "");
  const auto values = doubles(x);
  std::vector<double> var(50, 0.0);
  for (int i = 0; i < 1200; ++i) var[i / 6 % 50] += std::pow(values[i] - expected[i / 6 % 50], 2);
  for (double& v : var) v /= 23;
  CHECK(mismatch(raw::var(x, {0, 2}), var) == "");
  for (double& v : var) v *= 23.0 / 24;
  CHECK(mismatch(raw::var(x, {0, 2}, true, 0), var) == "");
  CHECK(raw::var(x, {0, 2}, true, 0).shape() == Shape{1, 50, 1});
  // Two passes: a large mean does not swamp a small variance in f32.
  const Tensor shifted = raw::add(randn({10000}, rng, DType::f32, 0.01), 100);
  CHECK(raw::var(shifted).item() == Approx(1e-4).epsilon(0.05));
  CHECK(raw::var(ones({1}), {}, false, 0).item() == 0);
  CHECK_THAT(error_of([] { raw::var(ones({1})); }), Contains("var: expected more than 1 elements"));
}

TEST_CASE("logsumexp is stable and knows the infinities") {
  Rng rng(6);
  const Tensor x = randn({3, 40, 5}, rng, DType::f64, 3);
  for (const Dims& dims : kDims3) {
    INFO(dims);
    const Tensor plain = raw::log(raw::sum(raw::exp(x), dims));
    CHECK(mismatch(raw::logsumexp(x, dims), plain) == "");
    CHECK(mismatch(raw::logsumexp(raw::cast(x, DType::f32), dims), plain, 1e-6, 1e-6) == "");
    CHECK(mismatch(raw::logsumexp(strided(x), dims), plain) == "");
  }
  CHECK(raw::logsumexp(full({2}, 1e4)).item() == Approx(1e4 + std::log(2.0)));
  CHECK(raw::logsumexp(full({2}, -1e4)).item() == Approx(-1e4 + std::log(2.0)));
  CHECK(raw::logsumexp(full({3}, -kInf)).item() == -kInf);
  CHECK(raw::logsumexp(from_vector<float>({0, INFINITY}, {2})).item() == kInf);
  CHECK(raw::logsumexp(from_vector<float>({-INFINITY, 2}, {2})).item() == 2);
  CHECK(std::isnan(raw::logsumexp(from_vector<float>({0, NAN}, {2})).item()));
}

TEST_CASE("cumsum runs along its dimension") {
  const Tensor x = from_vector<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(mismatch(raw::cumsum(x), {1, 3, 6, 4, 9, 15}) == "");
  CHECK(mismatch(raw::cumsum(x, 0), {1, 2, 3, 5, 7, 9}) == "");
  CHECK(mismatch(raw::cumsum(raw::transpose(x, 0, 1), 0), {1, 4, 3, 9, 6, 15}) == "");
  CHECK(mismatch(raw::cumsum(full({1000000}, 0.1)),
                 raw::mul(raw::add(arange(1000000, DType::f64), 1), double{0.1f}), 1e-6) == "");
  const Tensor wide = ones({3, 3000});  // more columns than are summed side by side
  CHECK(raw::sum(raw::cumsum(wide, 0)).item() == 6 * 3000);
  CHECK_THAT(error_of([&] { raw::cumsum(x, 2); }), Contains("cumsum: dimension"));
}

TEST_CASE("sum_to undoes a broadcast") {
  Rng rng(7);
  const Tensor x = randn({2, 3, 4}, rng);
  CHECK(raw::sum_to(x, {2, 3, 4}).bytes() == x.bytes());
  CHECK(mismatch(raw::sum_to(x, {}), raw::sum(x)) == "");
  CHECK(mismatch(raw::sum_to(x, {4}), raw::sum(x, {0, 1})) == "");
  CHECK(mismatch(raw::sum_to(x, {3, 1}), raw::sum(raw::sum(x, {0}), {1}, true)) == "");
  CHECK(mismatch(raw::sum_to(x, {2, 1, 4}), raw::sum(x, {1}, true)) == "");
  CHECK(raw::sum_to(randn({1, 3}, rng), {3}).shape() == Shape{3});
  CHECK(raw::sum_to(zeros({0, 3}), {1, 3}).shape() == Shape{1, 3});
  CHECK_THAT(error_of([&] { raw::sum_to(x, {2, 2}); }), Contains("sum_to"));
  CHECK_THAT(error_of([&] {
               raw::sum_to(zeros({3}), {2, 3});
             }),
             Contains("sum_to: (2, 3) does not broadcast to (3,)"));
}

TEST_CASE("has_nonfinite finds NaN and both infinities") {
  const Tensor x = zeros({10007});
  CHECK_FALSE(raw::has_nonfinite(x));
  for (double bad : {double{NAN}, kInf, -kInf}) {
    const Tensor y = raw::clone(x);
    raw::fill_(raw::slice(y, 0, 7000, 7001), bad);
    CHECK(raw::has_nonfinite(y));
  }
  CHECK_FALSE(raw::has_nonfinite(zeros({0})));
  CHECK_FALSE(raw::has_nonfinite(arange(3)));
  CHECK_FALSE(raw::has_nonfinite(full({2}, 1e308, DType::f64)));
}

TEST_CASE("the global norm spans several tensors") {
  CHECK(raw::global_norm({full({2, 2}, 2.0), full({1}, 3.0)}) == Approx(5));
  CHECK(raw::global_norm({full({4}, 1e30)}) == Approx(2e30));  // squares leave f32
  CHECK(raw::global_norm({}) == 0);
  CHECK(raw::global_norm({zeros({0})}) == 0);
  CHECK(std::isnan(raw::global_norm({full({1}, NAN)})));
  CHECK_THAT(error_of([] { raw::global_norm({arange(2)}); }), Contains("global_norm"));
}
