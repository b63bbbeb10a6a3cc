// Sign hashing, k-means in Hamming space, and sums over groups.
#include <functional>
#include <map>

#include "tests/tensor/hash_codes.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

// ---- k-means of chosen codes --------------------------------------------------------------------

struct Means {
  std::vector<int32_t> labels;  // (B, H, L)
  Codes centroids;              // (B, H, K)
};

// codes (items, heads, L); `iterations` assignments, the centroids updated between two. What stands
// in the outputs and in the workspace before does not matter.
Means kmeans(const Tensor& codes, const std::vector<int64_t>& lengths,
             const std::vector<int64_t>& clusters, int64_t iterations, int64_t parts = 1) {
  const int64_t items = codes.size(0), heads = codes.size(1), n = codes.size(2);
  const int64_t most = *std::max_element(clusters.begin(), clusters.end());
  const Tensor labels = full({items, heads, n}, 77, DType::i32);
  const Tensor centroids = full({items, heads, most}, 77, DType::i64);
  const Tensor work = full({items, heads, parts, most, kBits + 1}, 77, DType::i32);
  cpu::hamming_kmeans(codes, from_vector(lengths, {items}), from_vector(clusters, {items}),
                      iterations, work, centroids, labels);
  return {labels.to_vector<int32_t>(), centroids.to_vector<int64_t>()};
}

Means kmeans(const Codes& codes, int64_t clusters, int64_t iterations, int64_t parts = 1) {
  const int64_t n = static_cast<int64_t>(codes.size());
  return kmeans(from_vector(codes, {1, 1, n}), {n}, {clusters}, iterations, parts);
}

int64_t total_distance(const Codes& codes, const Means& means) {
  int64_t total = 0;
  for (size_t l = 0; l < codes.size(); ++l) {
    total += distance(codes[l], means.centroids[means.labels[l]]);
  }
  return total;
}

// Where one Lloyd step from `before` leads: majorities; then the empty clusters, in order, take the
// codes farthest from the new centroids of their own clusters, the first ones on ties.
Codes lloyd_step(const Codes& codes, const Means& before) {
  Codes next = before.centroids;
  std::vector<size_t> empty;
  for (size_t c = 0; c < next.size(); ++c) {
    const auto member = [&](size_t l) { return before.labels[l] == static_cast<int32_t>(c); };
    bool any = false;
    for (size_t l = 0; l < codes.size(); ++l) any = any || member(l);
    if (any) next[c] = majority(codes, member);
    if (!any) empty.push_back(c);
  }
  std::multimap<int, size_t> far;  // keeps the order of those equally far
  for (size_t l = 0; l < codes.size(); ++l) {
    const int d = distance(codes[l], next[before.labels[l]]);
    if (d > 0) far.emplace(-d, l);
  }
  auto it = far.begin();
  for (size_t c : empty) {
    if (it != far.end()) next[c] = codes[(it++)->second];
  }
  return next;
}

}  // namespace

// ---- hashing ------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("hash codes are the signs of projections minus bias, for 1 to 64 bits", "",
                   float, double) {
  constexpr DType kType = dtype_of<TestType>();
  int64_t decided = 0, undecided = 0, ones = 0;
  for (int64_t bits = 1; bits <= kBits; ++bits) {
    const int64_t n = bits % 7 == 0 ? 197 : 13,
                  width = std::vector<int64_t>{1, 3, 33, 64}[bits % 4];
    Rng rng(bits, "hash");
    Tensor x = randn({2, 3, n, width}, rng, kType);
    if (bits % 3 == 1) x = strided(x);
    if (bits % 3 == 2) x = raw::transpose(raw::clone(raw::transpose(x, 1, 2)), 1, 2);
    const Lengths lengths({n, bits % 5});
    const bool with_bias = bits % 2;
    Rng drawn = rng;
    const ClusterOptions options{.bits = bits, .bias = with_bias};
    const Codes codes = raw::hash_codes(x, lengths, options, rng).template to_vector<int64_t>();
    const auto planes = doubles(raw::normal({width, bits}, drawn, 0, 1, kType));
    std::vector<double> bias(bits, 0.0);
    if (with_bias) bias = doubles(raw::normal({bits}, drawn, 0, 1, kType));
    CHECK(rng.state() == drawn.state());
    const std::vector<double> xs = doubles(x);
    int64_t wrong = 0;
    for (int64_t row = 0; row < 2 * 3 * n; ++row) {
      if (row % n >= lengths[row / (3 * n)]) {
        wrong += codes[row] != 0;
        continue;
      }
      wrong += low_bits(codes[row], static_cast<int>(bits)) != codes[row];
      for (int64_t b = 0; b < bits; ++b) {
        double sum = -bias[b], size = std::fabs(bias[b]);
        for (int64_t e = 0; e < width; ++e) {
          const double term = xs[row * width + e] * planes[e * bits + b];
          sum += term, size += std::fabs(term);
        }
        if (std::fabs(sum) <= 4 * std::numeric_limits<TestType>::epsilon() * size) {
          ++undecided;
          continue;
        }
        ++decided;
        ones += sum > 0;
        wrong += (codes[row] >> b & 1) != (sum > 0);
      }
    }
    INFO(bits << " bits, head size " << width);
    CHECK(wrong == 0);
  }
  CHECK(undecided * 1000 < decided);
  CHECK(std::fabs(2.0 * ones / decided - 1) < 0.05);
}

TEST_CASE("a hash bit needs a projection above the bias, and equal rows have equal codes") {
  Rng rng(1);
  const Tensor zero = zeros({1, 1, 5, 3});
  CHECK(raw::hash_codes(zero, {}, {.bias = false}, rng).to_vector<int64_t>() == Codes(5, 0));
  const Tensor row = randn({1, 1, 1, 33}, rng, DType::f32);
  const Codes codes = raw::hash_codes(raw::expand(row, {2, 3, 131, 33}), {}, {.bits = 64}, rng)
                          .to_vector<int64_t>();
  CHECK(std::count(codes.begin(), codes.end(), codes[0]) == 2 * 3 * 131);
}

// ---- k-means ------------------------------------------------------------------------------------

TEST_CASE("k-means: two points end up as the two centroids, for 1 to 64 bits", "[host]") {
  for (int bits = 1; bits <= kBits; ++bits) {
    const int64_t all = low_bits(-1, bits);
    Rng rng(bits);
    Codes codes(50, 0);
    codes.insert(codes.end(), 50, all);
    for (const bool shuffle : {false, true}) {
      if (shuffle) codes = shuffled(codes, rng);
      const Means means = kmeans(codes, 2, 10);
      INFO(bits << " bits, shuffled " << shuffle);
      CHECK(total_distance(codes, means) == 0);
      CHECK(std::count(means.labels.begin(), means.labels.end(), 0) == 50);
      CHECK(means.centroids[0] + means.centroids[1] == all);
    }
  }
}

TEST_CASE("k-means: as many clusters as there are different codes reach distance 0", "[host]") {
  for (uint64_t seed = 1; seed < 9; ++seed) {
    Rng rng(seed);
    Codes one_hot;
    for (int i = 0; i < 80; ++i) one_hot.push_back(int64_t{1} << (i % 8 * 7));
    one_hot = shuffled(one_hot, rng);
    const Means means = kmeans(one_hot, 8, 20);
    CHECK(total_distance(one_hot, means) == 0);
    for (int32_t c = 0; c < 8; ++c) {
      CHECK(std::count(means.labels.begin(), means.labels.end(), c) == 10);
    }
  }
  for (int b = 1; b <= 10; ++b) {
    Rng rng(b);
    Codes all;
    for (int64_t code = 0; code < int64_t{1} << b; ++code) all.push_back(code);
    all = shuffled(all, rng);
    CHECK(total_distance(all, kmeans(all, int64_t{1} << b, 10)) == 0);
  }
}

TEST_CASE(
    "k-means takes Lloyd steps from evenly spaced codes, refills empty clusters, and ends "
    "with the nearest centroids",
    "[host]") {
  int empty = 0;
  for (const size_t n : {2, 3, 7, 97, 211, 509}) {
    for (const int64_t clusters : {1, 2, 3, 17, 100}) {
      if (clusters >= static_cast<int64_t>(n)) continue;
      for (const int noise : {0, 3, 64}) {  // 0: fewer different codes than clusters
        Rng rng(n * 1000 + clusters, "codes");
        const Codes codes = lumpy_codes(n, 11, noise, rng);
        Means before = kmeans(codes, clusters, 1);
        for (int64_t c = 0; c < clusters; ++c) {
          CHECK(before.centroids[c] == codes[c * n / clusters]);
        }
        for (int64_t steps = 1; steps <= 5; ++steps) {
          const Means after = kmeans(codes, clusters, steps + 1);
          INFO("L " << n << ", clusters " << clusters << ", noise " << noise << ", step " << steps);
          CHECK(after.centroids == lloyd_step(codes, before));
          bool right = true;
          for (size_t l = 0; l < n; ++l) {
            right = right && after.labels[l] == nearest(codes[l], after.centroids);
          }
          CHECK(right);
          for (int32_t c = 0; c < clusters; ++c) {
            empty += !std::count(after.labels.begin(), after.labels.end(), c);
          }
          before = after;
        }
      }
    }
  }
  CHECK(empty > 0);  // or refilling was not tested
}

TEST_CASE("k-means counts thousands of members, in any number of parts", "[host]") {
  Rng rng(3);
  const Codes codes = lumpy_codes(5003, 4, 9, rng);
  for (const int64_t clusters : {1, 5}) {
    const Means before = kmeans(codes, clusters, 2), after = kmeans(codes, clusters, 3);
    CHECK(after.centroids == lloyd_step(codes, before));
    for (const int64_t parts : {2, 3, 64, 5003}) {
      const Means same = kmeans(codes, clusters, 3, parts);
      CHECK(same.centroids == after.centroids);
      CHECK(same.labels == after.labels);
    }
  }
  for (const int64_t n : {254, 255, 256, 510, 511}) {
    const Codes same(n, -1);
    CHECK(kmeans(same, 1, 2).centroids == Codes{-1});
    Codes one_off = same;
    for (int64_t l = 0; l < n / 2; ++l) one_off[l] = 0;
    CHECK(kmeans(one_off, 1, 2).centroids == Codes{n % 2 ? -1 : 0});  // a tie gives 0
  }
}

TEST_CASE("k-means: items have their own lengths and clusters, and padding does not matter",
          "[host]") {
  Rng rng(5);
  const int64_t n = 97;
  const std::vector<int64_t> lengths{97, 40, 1, 0, 5}, clusters{10, 7, 1, 1, 9};
  Tensor codes = empty({5, 2, n}, DType::i64);
  for (int64_t i = 0; i < codes.numel(); ++i) codes.data<int64_t>()[i] = random_code(rng, 12);
  const Means batch = kmeans(codes, lengths, clusters, 4);
  for (int64_t b = 0; b < 5; ++b) {
    for (int64_t h = 0; h < 2; ++h) {
      const int64_t at = (b * 2 + h) * n;
      const Codes all = codes.to_vector<int64_t>();
      const Codes own(all.begin() + at, all.begin() + at + lengths[b]);
      const std::vector<int32_t> labels(batch.labels.begin() + at, batch.labels.begin() + at + n);
      INFO("item " << b);
      CHECK(std::count(labels.begin(), labels.end(), -1) == n - lengths[b]);
      if (own.empty()) continue;
      const Means single = kmeans(own, clusters[b], 4);
      CHECK(std::equal(single.labels.begin(), single.labels.end(), labels.begin()));
      CHECK(std::equal(single.centroids.begin(), single.centroids.end(),
                       batch.centroids.begin() + (b * 2 + h) * 10));
      if (b != 4) continue;  // fewer positions than clusters: each has its own, in order
      for (int32_t l = 0; l < 5; ++l) CHECK(labels[l] == l);
      CHECK(std::equal(own.begin(), own.end(), single.centroids.begin()));
    }
  }
}

// ---- clusters of queries ------------------------------------------------------------------------

TEST_CASE("cluster_counts: at most one per query, at least one; fractions are of the length") {
  const Lengths lengths({100, 7, 1, 0});
  CHECK(raw::cluster_counts({.clusters = 10}, lengths).values() == Codes{10, 7, 1, 1});
  CHECK(raw::cluster_counts({.clusters = 1}, lengths).values() == Codes{1, 1, 1, 1});
  CHECK(raw::cluster_counts({.clusters = 0.25}, lengths).values() == Codes{25, 2, 1, 1});
  for (int64_t percent = 1; percent < 100; ++percent) {  // 0.07 * 100 is above 7
    const double share = std::stod((percent < 10 ? "0.0" : "0.") + std::to_string(percent));
    for (const int64_t n : {100, 300, 701}) {
      INFO(share << " of " << n);
      CHECK(raw::cluster_counts({.clusters = share}, Lengths({n}))[0] == (percent * n + 99) / 100);
    }
  }
}

TEST_CASE("cluster_queries: labels, counts, order and codes fit to each other", "[host]") {
  for (const int64_t n : {1, 2, 13, 101, 4099}) {
    Rng rng(n, "queries");
    const Tensor q = randn({3, 2, n, 5}, rng, DType::f32);
    const Lengths lengths({n, n / 2, 0});
    const ClusterOptions options{.clusters = 12, .bits = 20, .iterations = 3};
    Rng first = rng;
    const Clusters c = raw::cluster_queries(q, lengths, options, rng);
    CHECK(same_bits(c.codes, raw::hash_codes(q, lengths, options, first)));
    CHECK(c.count() == std::min<int64_t>(12, n));
    const auto labels = c.labels.to_vector<int32_t>(), order = c.order.to_vector<int32_t>();
    const auto offsets = c.offsets.to_vector<int32_t>(), counts = c.counts().to_vector<int32_t>();
    const int64_t k = c.count();
    for (int64_t bh = 0; bh < 6; ++bh) {
      int64_t sum = 0;
      for (int64_t g = 0; g < k; ++g) sum += counts[bh * k + g];
      CHECK(sum == lengths[bh / 2]);
      // Sorted by label, then by position; those without a label last.
      std::vector<int32_t> expected(n);
      for (int64_t l = 0; l < n; ++l) expected[l] = static_cast<int32_t>(l);
      std::stable_sort(expected.begin(), expected.end(), [&](int32_t a, int32_t b) {
        return static_cast<uint32_t>(labels[bh * n + a]) <
               static_cast<uint32_t>(labels[bh * n + b]);
      });
      CHECK(std::equal(expected.begin(), expected.end(), order.begin() + bh * n));
      for (int64_t g = 0; g < k; ++g) {
        const auto begin = labels.begin() + bh * n;
        CHECK(std::count(begin, begin + n, g) == counts[bh * k + g]);
        CHECK(offsets[bh * (k + 1) + g + 1] - offsets[bh * (k + 1) + g] == counts[bh * k + g]);
      }
    }
    // What cluster_queries calls k-means with is lengths and cluster_counts.
    const Means means =
        kmeans(c.codes, lengths.values(), raw::cluster_counts(options, lengths).values(), 3);
    CHECK(means.labels == labels);
    CHECK(means.centroids == c.centroids.to_vector<int64_t>());
  }
}

TEST_CASE("clustering gives the same bits on any number of threads") {
  Rng rng(2);
  const Tensor long_one = randn({1, 1, 5003, 16}, rng, DType::f32);
  const Tensor batch = randn({3, 4, 211, 16}, rng, DType::f32);
  for (const Tensor& q : {long_one, batch}) {
    CHECK(same_on_any_threads([&] {
      Rng own(7);
      const Clusters c = raw::cluster_queries(q, {}, {.clusters = 50}, own);
      const PastClusters p = raw::cluster_past(q, {}, {.clusters = 9, .iterations = 3}, 64, own);
      return std::vector<Tensor>{
          c.labels,      c.order,        c.codes, c.centroids, raw::group_sum(q, c),
          p.seen.labels, p.joined.labels};
    }));
  }
}

// ---- groups -------------------------------------------------------------------------------------

TEMPLATE_TEST_CASE("group_sum and group_broadcast agree with loops", "", float, double) {
  Rng rng(4);
  const int64_t n = 67, groups = 9, width = 5;
  const Tensor x = randn({2, 3, n, width}, rng, dtype_of<TestType>());
  std::vector<int32_t> labels;
  for (int i = 0; i < 2 * 3 * n; ++i) {  // group 4 stays empty
    const int32_t g = static_cast<int32_t>(rng.below(groups + 1)) - 1;
    labels.push_back(g == 4 ? 8 : g);
  }
  const Clusters clusters = raw::clusters_of_labels(from_vector(labels, {2, 3, n}), groups);
  const std::vector<double> xs = doubles(x), sizes = doubles(clusters.counts());
  std::vector<double> sums(6 * groups * width), means(sums.size());
  for (int64_t r = 0; r < 6 * n; ++r) {
    for (int64_t e = 0; e < width && labels[r] >= 0; ++e) {
      sums[(r / n * groups + labels[r]) * width + e] += xs[r * width + e];
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) means[i] = sums[i] / std::max(1.0, sizes[i / width]);
  for (const Tensor& from : {x, strided(x)}) {
    CHECK(mismatch(raw::group_sum(from, clusters), sums, 1e-6, 1e-6) == "");
    CHECK(mismatch(raw::group_sum(from, clusters, true), means, 1e-6, 1e-6) == "");
  }
  const Tensor y = raw::group_sum(x, clusters);
  for (const bool mean : {false, true}) {
    std::vector<double> rows;
    for (int64_t r = 0; r < 6 * n; ++r) {
      for (int64_t e = 0; e < width; ++e) {
        const auto& of = mean ? means : sums;
        rows.push_back(labels[r] < 0 ? 0 : of[(r / n * groups + labels[r]) * width + e]);
      }
    }
    const Tensor spread = raw::group_broadcast(strided(y), clusters, mean);
    CHECK(mismatch(spread, rows, 1e-6, 1e-6) == "");
    CHECK(raw::permute(spread, {0, 2, 1, 3}).is_contiguous());
  }
}

// ---- arguments ----------------------------------------------------------------------------------

TEST_CASE("clustering explains options and labels it cannot use") {
  Rng rng(1);
  const Tensor q = randn({1, 1, 5, 3}, rng);
  const auto error = [&](const ClusterOptions& options, const Lengths& lengths = {}) {
    return error_of([&] { raw::cluster_queries(q, lengths, options, rng); });
  };
  CHECK(error({}) == "<no error>");
  CHECK_THAT(error({.clusters = 0}), Contains("clusters: expected a whole number, or a fraction"));
  CHECK_THAT(error({.clusters = 2.5}), Contains("got 2.5"));
  CHECK_THAT(error({.bits = 0}), Contains("bits: expected 1 to 64, got 0"));
  CHECK_THAT(error({.bits = 65}), Contains("bits: expected 1 to 64, got 65"));
  CHECK_THAT(error({.iterations = 0}), Contains("iterations: expected at least 1, got 0"));
  CHECK_THAT(error({}, Lengths({6})), Contains("hash_codes: lengths"));
  CHECK_THAT(error_of([&] { raw::cluster_past(q, {}, {}, 0, rng); }),
             Contains("block: expected at least 1, got 0"));
  CHECK_THAT(error_of([&] { raw::cluster_past(q, {}, {.clusters = 0.5}, 2, rng); }),
             Contains("clusters: expected a whole number, got 0.5"));
  const Tensor labels = from_vector<int32_t>({0, 3, -1}, {1, 1, 3});
  CHECK_THAT(error_of([&] { raw::clusters_of_labels(labels, 3); }),
             Contains("labels: expected -1 to 2, got -1 to 3"));
  CHECK_THAT(error_of([&] { raw::clusters_of_labels(raw::cast(labels, DType::i64), 4); }),
             Contains("expected labels (B, H, L) i32"));
}
