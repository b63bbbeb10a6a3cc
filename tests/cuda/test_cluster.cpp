// Sign hashes and k-means in Hamming space: the same bits as on the CPU.
#include <catch2/catch.hpp>
#include <limits>

#include "tests/cuda/compare.h"
#include "tests/tensor/hash_codes.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// ---- hashing ------------------------------------------------------------------------------------

// {x (B, H, L, E), planes (E, 64), bias (64), lengths (B) or undefined} -> {codes}; the memory of x
// is (B, L, H, E), or for an odd number of heads (B, H, L, E).
Tensors hashed(const Tensors& in) {
  const Shape& s = in[0].shape();
  Tensor x = in[0];
  if (s[1] % 2 == 0) x = raw::transpose(raw::reshape(x, {s[0], s[2], s[1], s[3]}), 1, 2);
  const Tensor codes = empty({s[0], s[1], s[2]}, DType::i64, x.device());
  CENTROID_DISPATCH(x.device(), hash_codes, x, in[1], in[2], in[3], codes);
  return {codes};
}

Tensors hash_inputs(const Shape& shape, int64_t bits, const std::vector<int64_t>& lengths,
                    Rng& rng) {
  const int64_t width = shape[3];
  std::vector<double> planes(width * kBits, 0.0), bias(kBits, INFINITY);
  for (int64_t b = 0; b < bits; ++b) {
    bias[b] = b % 3 ? rng.normal() : 0;
    for (int64_t e = 0; e < width; ++e) planes[e * kBits + b] = rng.normal();
  }
  return {
      randn(shape, rng), from_vector(planes, {width, kBits}), from_vector(bias, {kBits}),
      lengths.empty() ? Tensor() : from_vector(lengths, {static_cast<int64_t>(lengths.size())})};
}

// ---- k-means ------------------------------------------------------------------------------------

struct Problem {
  Tensor codes;                            // (B, H, L)
  std::vector<int64_t> lengths, clusters;  // (B)
  int64_t most = 0;                        // clusters of the item with the most
};

// {centroids, labels}; whatever stands in the outputs and in the workspace before.
Tensors kmeans(const Problem& p, int64_t iterations, Device device) {
  const int64_t items = p.codes.size(0), heads = p.codes.size(1), n = p.codes.size(2);
  const auto on = [&](const Tensor& x) { return raw::to(x, device); };
  const Tensor labels = on(full({items, heads, n}, 77, DType::i32));
  const Tensor centroids = on(full({items, heads, p.most}, 77, DType::i64));
  const Tensor work = on(full({items, heads, 1, p.most, kBits + 1}, 77, DType::i32));
  CENTROID_DISPATCH(device, hamming_kmeans, on(p.codes), on(from_vector(p.lengths, {items})),
                    on(from_vector(p.clusters, {items})), iterations, work, centroids, labels);
  return {raw::to(centroids, Device{}), raw::to(labels, Device{})};
}

bool same_means(const Problem& p, int64_t iterations) {
  const Tensors host = kmeans(p, iterations, Device{}), device = kmeans(p, iterations, kCuda);
  return same_bits(host[0], device[0]) && same_bits(host[1], device[1]);
}

Problem problem(const Codes& codes, int64_t items, int64_t heads,
                const std::vector<int64_t>& lengths, const std::vector<int64_t>& clusters) {
  const int64_t n = static_cast<int64_t>(codes.size()) / (items * heads);
  return {from_vector(codes, {items, heads, n}), lengths, clusters,
          *std::max_element(clusters.begin(), clusters.end())};
}
Problem problem(const Codes& codes, int64_t clusters) {
  return problem(codes, 1, 1, {static_cast<int64_t>(codes.size())}, {clusters});
}

int64_t unused_clusters(const Problem& p, int64_t iterations) {
  if (p.codes.numel() <= p.most) return 0;
  const std::vector<int32_t> labels = kmeans(p, iterations, Device{})[1].to_vector<int32_t>();
  int64_t unused = 0;
  for (int32_t c = 0; c < p.most; ++c) unused += !std::count(labels.begin(), labels.end(), c);
  return unused;
}

}  // namespace

TEST_CASE("cuda: hash codes have the CPU's bits") {
  struct Case {
    Shape shape;
    int64_t bits;
    std::vector<int64_t> lengths;
  };
  const std::vector<Case> cases = {
      {{2, 2, 37, 64}, 63, {37, 20}}, {{1, 3, 130, 8}, 64, {}},      {{2, 1, 70, 33}, 5, {0, 70}},
      {{1, 2, 129, 30}, 32, {}},      {{3, 2, 1, 1}, 64, {1, 0, 1}}, {{1, 1, 5, 0}, 64, {}},
      {{2, 2, 0, 4}, 64, {}},         {{0, 2, 3, 4}, 64, {}},        {{1, 1, 64, 100}, 17, {}}};
  for (const Case& c : cases) {
    Rng rng(c.shape[2], "hash");
    INFO(c.shape << ", " << c.bits << " bits");
    CHECK(disagreement(hashed, hash_inputs(c.shape, c.bits, c.lengths, rng)) == "");
  }
}

TEST_CASE("cuda: a hash bit of a NaN is 0, of infinities their sign") {
  Rng rng(3);
  Tensors inputs = hash_inputs({1, 1, 5, 4}, 64, {}, rng);
  double* x = inputs[0].data<double>();
  x[0] = std::numeric_limits<double>::quiet_NaN();
  x[5] = INFINITY;
  x[8] = x[9] = x[10] = x[11] = 0;
  CHECK(disagreement(hashed, inputs) == "");
  CHECK(hashed(inputs)[0].to_vector<int64_t>()[0] == 0);
}

TEST_CASE("cuda: rows of hashes that do not begin at multiples of 16 bytes") {
  Rng rng(4);
  const auto shifted = [](const Tensors& in) {
    const Tensor x = raw::slice(in[0], 3, 1, in[0].size(3));
    const Tensor codes = empty({1, 2, 19}, DType::i64, x.device());
    CENTROID_DISPATCH(x.device(), hash_codes, x, in[1], in[2], Tensor(), codes);
    return Tensors{codes};
  };
  Tensors inputs = hash_inputs({1, 2, 19, 8}, 64, {}, rng);
  inputs[0] = randn({1, 2, 19, 9}, rng);
  CHECK(disagreement(shifted, inputs) == "");
}

TEST_CASE("cuda: k-means has the CPU's labels and centroids, with refills") {
  int64_t unused = 0;
  for (const size_t n : {1, 2, 7, 97, 300}) {
    for (const int64_t clusters : {1, 3, 17, 100}) {
      for (const int noise : {0, 3, 64}) {
        Rng rng(n * 1000 + clusters, "codes");
        const Problem p = problem(lumpy_codes(n, 11, noise, rng), clusters);
        for (const int64_t iterations : {1, 2, 6}) {
          INFO("L " << n << ", clusters " << clusters << ", noise " << noise << ", iterations "
                    << iterations);
          CHECK(same_means(p, iterations));
          if (noise > 0) unused += unused_clusters(p, iterations);
        }
      }
    }
  }
  CHECK(unused > 0);  // or refilling was not tested
}

TEST_CASE("cuda: k-means of items with their own lengths and clusters") {
  Rng rng(5);
  const int64_t n = 97;
  const Codes codes = lumpy_codes(5 * 2 * n, 20, 5, rng);
  const Problem p = problem(codes, 5, 2, {97, 40, 1, 0, 5}, {10, 7, 1, 1, 9});
  for (const int64_t iterations : {1, 4}) CHECK(same_means(p, iterations));
  CHECK(same_means(problem({}, 3, 2, {0, 0, 0}, {1, 1, 1}), 3));
}

TEST_CASE("cuda: k-means of long sequences, cut into parts") {
  Rng rng(6);
  const Problem tight = problem(lumpy_codes(2 * 1700, 30, 2, rng), 2, 1, {1700, 1203}, {120, 61});
  for (const int64_t iterations : {1, 2, 5}) CHECK(same_means(tight, iterations));
  const Problem one_cluster = problem(Codes(66000, -1), 1);  // more than 16 bits count
  CHECK(same_means(one_cluster, 2));
}

TEST_CASE("cuda: k-means with more clusters than fit into shared memory") {
  Rng rng(7);
  const Problem p = problem(lumpy_codes(2 * 600, 150, 4, rng), 2, 1, {600, 441}, {440, 440});
  for (const int64_t iterations : {1, 3}) CHECK(same_means(p, iterations));
  const Problem chunks = problem(lumpy_codes(1100, 900, 4, rng), 1050);
  CHECK(same_means(chunks, 2));
}

TEST_CASE("cuda: clusters of the past have the CPU's labels") {
  struct Case {
    std::vector<int64_t> lengths;
    int64_t n, block, clusters, iterations;
  };
  const std::vector<Case> cases = {
      {{67, 50}, 67, 16, 4, 3}, {{67}, 67, 16, 40, 2},   {{5}, 5, 1, 3, 4}, {{0, 1}, 1, 8, 2, 1},
      {{300}, 300, 64, 9, 5},   {{130}, 130, 600, 7, 3}, {{0}, 0, 8, 2, 2}, {{40}, 40, 16, 425, 2}};
  for (const Case& c : cases) {
    const int64_t items = static_cast<int64_t>(c.lengths.size());
    Rng rng(c.n * c.block, "past");
    const Tensor codes = from_vector(lumpy_codes(items * 2 * c.n, 7, 5, rng), {items, 2, c.n});
    const auto f = [&](const Tensors& in) {
      const Device device = in[0].device();
      const Tensor joined = raw::to(full(codes.shape(), 77, DType::i32), device);
      const Tensor seen = raw::to(full(codes.shape(), 77, DType::i32), device);
      const GrowingMeans means = raw::growing_means(items, 2, c.clusters, device);
      CENTROID_DISPATCH(device, hamming_kmeans_past, in[0], in[1], c.block, c.clusters,
                        c.iterations, joined, seen, means.centroids, means.counts);
      const Tensor next = raw::nearest_learnt(in[0], means).labels;
      return Tensors{joined, seen, means.centroids, means.counts, next};
    };
    INFO("L " << c.n << ", block " << c.block << ", clusters " << c.clusters);
    CHECK(disagreement(f, {codes, from_vector(c.lengths, {items})}) == "");
  }
}
