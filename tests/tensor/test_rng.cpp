#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>

#include "tensor/parallel.h"
#include "tensor/philox.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Contains;

namespace {

bool equals(const PhiloxBlock& block, std::vector<uint32_t> words) {
  return std::equal(words.begin(), words.end(), block.word);
}

struct Moments {
  double mean, variance, skewness, kurtosis;
};
Moments moments(const std::vector<double>& x) {
  const double n = static_cast<double>(x.size());
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  double m2 = 0, m3 = 0, m4 = 0;
  for (double v : x) {
    const double d = v - mean;
    m2 += d * d / n, m3 += d * d * d / n, m4 += d * d * d * d / n;
  }
  return {mean, m2, m3 / std::pow(m2, 1.5), m4 / (m2 * m2)};
}

}  // namespace

// Salmon et al. publish these with their Random123 library.
TEST_CASE("philox gives the published numbers") {
  CHECK(equals(philox(0, 0, 0), {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint64_t all = ~uint64_t{0};
  CHECK(equals(philox(all, all, all), {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  CHECK(equals(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
               {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// The polynomials are fitted up to |x| of about 5.5, which one draw in 3e7 exceeds.
TEST_CASE("normal_from_bits is the quantile of the normal distribution") {
  CHECK(normal_from_bits(0) == Approx(-6.33795775).epsilon(4e-4));
  CHECK(normal_from_bits(0xffffffff) == -normal_from_bits(0));
  CHECK(std::fabs(normal_from_bits(0x80000000)) < 1e-9);
  double before = -10;
  for (uint64_t bits = 100; bits < (uint64_t{1} << 32); bits += 9999991) {
    const double u = (static_cast<double>(bits) + 0.5) * 0x1p-32;
    const double x = normal_from_bits(static_cast<uint32_t>(bits));
    CHECK(x > before);
    before = x;
    // A relative error e of x is one of x^2 e in the tail's probability.
    const double tail = std::min(u, 1 - u);
    CHECK(0.5 * std::erfc(std::fabs(x) / std::sqrt(2.0)) ==
          Approx(tail).epsilon(4e-7 * (1 + x * x)));
  }
}

TEST_CASE("streams depend on seed and name, not on each other's draws") {
  Rng a(7, "dropout"), b(7, "dropout"), c(7, "init"), d(8, "dropout");
  CHECK(a.next() == b.next());
  CHECK(a.state() == b.state());
  CHECK(a.state().key != c.state().key);
  CHECK(a.state().key != d.state().key);
  Rng fork = a.fork("x");
  a.next();
  CHECK(a.fork("x").state() == fork.state());
  CHECK(a.fork("y").state().key != fork.state().key);
  CHECK(a.fork(1).state().key != a.fork(2).state().key);
  CHECK(a.fork(1).state().counter == 0);
}

TEST_CASE("a restored state continues the stream") {
  Rng a(3);
  a.uniform();
  Rng b(a.state());
  CHECK(a.normal() == b.normal());
  const RngState first = a.reserve(10);
  CHECK(first == b.state());
  CHECK(a.state().counter == first.counter + 10);
}

TEST_CASE("below is unbiased and within its bound") {
  Rng rng(5);
  std::vector<int> counts(7);
  for (int i = 0; i < 70000; ++i) ++counts.at(rng.below(7));
  for (int count : counts) CHECK(std::abs(count - 10000) < 500);  // more than 5 sigma
  CHECK(rng.below(1) == 0);
  CHECK(rng.below(~uint64_t{0}) < ~uint64_t{0});
  CHECK(error_of([&] { rng.below(0); }) == "Rng::below: expected n >= 1, got 0");
}

TEST_CASE("permutations contain everything once and start everywhere equally often") {
  Rng rng(6);
  CHECK(rng.permutation(0).empty());
  std::vector<int> first(5);
  for (int i = 0; i < 10000; ++i) {
    std::vector<int64_t> order = rng.permutation(5);
    ++first.at(order[0]);
    std::sort(order.begin(), order.end());
    REQUIRE(order == std::vector<int64_t>{0, 1, 2, 3, 4});
  }
  for (int count : first) CHECK(std::abs(count - 2000) < 220);
  CHECK(Rng(1).permutation(100) == Rng(1).permutation(100));
  CHECK(Rng(1).permutation(100) != Rng(2).permutation(100));
}

TEST_CASE("uniform tensors hold the words of consecutive blocks") {
  Rng rng(9);
  const RngState state = rng.state();
  const auto x = raw::uniform({11}, rng, -1, 3, DType::f64).to_vector<double>();
  CHECK(rng.state().counter == state.counter + 3);
  for (int i = 0; i < 11; ++i) {
    CHECK(x[i] == -1 + 4 * (philox(state.key, state.counter + i / 4, 0)[i % 4] * 0x1p-32));
  }
  const auto m = moments(doubles(raw::uniform({100003}, rng)));
  CHECK(m.mean == Approx(0.5).margin(0.005));
  CHECK(m.variance == Approx(1.0 / 12).epsilon(0.02));
  CHECK(raw::uniform({0}, rng).numel() == 0);
  CHECK_THAT(error_of([&] { raw::uniform({2}, rng, 1, 0); }), Contains("low <= high"));
  CHECK_THAT(error_of([&] { raw::uniform({2}, rng, 0, INFINITY); }), Contains("finite"));
  CHECK_THAT(error_of([&] { raw::uniform({2}, rng, 0, 1, DType::i64); }),
             Contains("uniform: dtype: expected f32 or f64, got i64"));
}

TEST_CASE("normal tensors have the moments and tails of the normal distribution") {
  Rng rng(10);
  const auto x = doubles(raw::normal({400001}, rng));
  const auto m = moments(x);
  CHECK(m.mean == Approx(0).margin(0.008));
  CHECK(m.variance == Approx(1).epsilon(0.01));
  CHECK(m.skewness == Approx(0).margin(0.02));
  CHECK(m.kurtosis == Approx(3).epsilon(0.02));
  const auto beyond = [&](double limit) {
    return std::count_if(x.begin(), x.end(), [&](double v) { return std::fabs(v) > limit; }) /
           static_cast<double>(x.size());
  };
  CHECK(beyond(1) == Approx(0.3173).epsilon(0.02));
  CHECK(beyond(2) == Approx(0.0455).epsilon(0.05));
  CHECK(beyond(4) < 2e-4);
  CHECK(beyond(4) > 1e-5);
  const auto scaled = moments(doubles(raw::normal({50000}, rng, 5, 0.1, DType::f64)));
  CHECK(scaled.mean == Approx(5).epsilon(0.001));
  CHECK(scaled.variance == Approx(0.01).epsilon(0.05));
  CHECK_THAT(error_of([&] { raw::normal({2}, rng, 0, -1); }), Contains("stddev >= 0"));
}

TEST_CASE("random tensors do not depend on the number of threads") {
  const auto draw = [](int threads) {
    set_num_threads(threads);
    Rng rng(11);
    std::vector<Tensor> all = {raw::uniform({100003}, rng), raw::normal({100003}, rng),
                               raw::dropout(ones({300, 333}), 0.3, rng.reserve(1))};
    set_num_threads(0);
    return all;
  };
  const auto one = draw(1), four = draw(4);
  for (size_t i = 0; i < one.size(); ++i) CHECK(same_bits(one[i], four[i]));
}

TEST_CASE("dropout keeps what the half-words of philox say") {
  const RngState state{42, 17};
  const int64_t rows = 5, n = 27, lanes = 4;
  Rng rng(12);
  const Tensor x = randn({rows, n}, rng, DType::f32);
  const double p = 0.25;
  const auto in = x.to_vector<float>();
  const auto out = raw::dropout(x, p, state).to_vector<float>();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      const PhiloxBlock block = philox(state.key, state.counter, r * lanes + c / 8);
      const uint32_t half = block[c % 8 / 2] >> (c % 2 * 16) & 0xffff;
      const float expected = half >= p * 65536 ? in[r * n + c] * (1 / 0.75f) : 0.0f;
      CHECK(out[r * n + c] == expected);
    }
  }
}

TEST_CASE("dropout: rate, reproducible, the same mask backwards") {
  Rng rng(13);
  const Tensor x = ones({64, 1001});
  for (double p : {0.1, 0.5, 0.9}) {
    const RngState state = rng.reserve(1);
    const Tensor y = raw::dropout(x, p, state);
    const double kept = raw::sum(raw::compare(Compare::ne, y, 0)).item() / x.numel();
    CHECK(kept == Approx(1 - p).margin(0.01));
    CHECK(raw::max(y).item() == Approx(1 / (1 - p)).epsilon(1e-4));
    CHECK(raw::mean(y).item() == Approx(1).margin(0.05));
    CHECK(same_bits(raw::dropout(x, p, state), y));
    CHECK_FALSE(same_bits(raw::dropout(x, p, rng.reserve(1)), y));
    const Tensor dx = raw::dropout(raw::mul(x, 2), p, state);
    CHECK(same_bits(dx, raw::mul(y, 2)));
  }
  CHECK(same_bits(raw::dropout(x, 0, rng.state()), x));
  CHECK(raw::dropout(zeros({0, 5}), 0.5, rng.state()).shape() == Shape{0, 5});
  CHECK(raw::dropout(zeros({5, 0}), 0.5, rng.state()).shape() == Shape{5, 0});
  CHECK(raw::dropout(ones({}), 0.5, rng.state()).dim() == 0);
  const Tensor turned = raw::transpose(x, 0, 1);
  CHECK(
      same_bits(raw::dropout(turned, 0.5, {1, 2}), raw::dropout(raw::clone(turned), 0.5, {1, 2})));
  for (double p : {-0.1, 1.0, 1.5, double{NAN}}) {
    CHECK_THAT(error_of([&] { raw::dropout(x, p, rng.state()); }),
               Contains("dropout: p: expected 0 <= p < 1"));
  }
}
