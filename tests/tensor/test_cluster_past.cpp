// Clusters learnt block by block, that know nothing of what follows.
#include "tests/tensor/hash_codes.h"

using namespace centroid;
using namespace centroid::test;

namespace {

struct Past {
  std::vector<int32_t> joined, seen;
};

Past past_clusters(const Codes& codes, int64_t valid, int64_t block, int64_t clusters,
                   int64_t iterations) {
  const int64_t n = static_cast<int64_t>(codes.size());
  const Tensor joined = full({1, 1, n}, 77, DType::i32), seen = full({1, 1, n}, 77, DType::i32);
  const GrowingMeans means = raw::growing_means(1, 1, clusters, Device{});
  cpu::hamming_kmeans_past(from_vector(codes, {1, 1, n}), from_vector<int64_t>({valid}, {1}), block,
                           clusters, iterations, joined, seen, means.centroids, means.counts);
  return {joined.to_vector<int32_t>(), seen.to_vector<int32_t>()};
}

}  // namespace

TEST_CASE(
    "clusters of the past: a query sees the nearest of the clusters that have members, which "
    "are the majorities of all that joined",
    "[host]") {
  for (const int64_t n : {1, 5, 16, 67, 509}) {
    for (const int64_t block : {1, 5, 16, 600}) {
      for (const int64_t clusters : {1, 3, 40}) {
        Rng rng(n * block + clusters);
        const Codes codes = lumpy_codes(n, 7, 5, rng);
        // Enough iterations that the last assignment changes nothing any more.
        const Past past = past_clusters(codes, n, block, clusters, 60);
        INFO("L " << n << ", block " << block << ", clusters " << clusters);
        bool right = true;
        for (int64_t t = 0; t * block < n; ++t) {
          const int64_t begin = t * block, end = std::min(n, begin + block);
          Codes centroids;
          std::vector<int32_t> alive;
          for (int32_t c = 0; c < clusters; ++c) {
            const auto member = [&](size_t l) {
              const int64_t own = static_cast<int64_t>(l) / block;
              return own < t && past.joined[l] == own * clusters + c;
            };
            bool any = false;
            for (int64_t l = 0; l < begin; ++l) any = any || member(l);
            if (!any) continue;
            alive.push_back(c);
            centroids.push_back(majority(codes, member));
          }
          for (int64_t l = begin; l < end; ++l) {
            const int32_t expected =
                t == 0 ? -1
                       : static_cast<int32_t>((t - 1) * clusters +
                                              alive[nearest(codes[l], centroids)]);
            right = right && past.seen[l] == expected && past.joined[l] / clusters == t;
          }
        }
        CHECK(right);
      }
    }
  }
}

TEST_CASE("clusters of the past do not change with the future, nor with the padding", "[host]") {
  Rng rng(6);
  const int64_t n = 67, block = 16;
  const Codes codes = lumpy_codes(n, 5, 6, rng);
  for (const int64_t iterations : {1, 2, 10}) {
    const Past past = past_clusters(codes, n, block, 4, iterations);
    int64_t changes = 0;
    for (int64_t now = 0; now < n; ++now) {
      Codes other = codes;
      for (int64_t l = now; l < n; ++l) other[l] = random_code(rng);
      const Past moved = past_clusters(other, n, block, 4, iterations);
      const Past cut = past_clusters(other, now, block, 4, iterations);
      const auto same = [&](const std::vector<int32_t>& a, const std::vector<int32_t>& b,
                            int64_t count) {
        return std::equal(a.begin(), a.begin() + count, b.begin());
      };
      CHECK(same(moved.seen, past.seen, now));
      CHECK(same(cut.seen, past.seen, now));
      CHECK(same(moved.joined, past.joined, now / block * block));
      CHECK(std::count(cut.joined.begin() + now, cut.joined.end(), -1) == n - now);
      CHECK(std::count(cut.seen.begin() + now, cut.seen.end(), -1) == n - now);
      changes += moved.seen != past.seen;
    }
    CHECK(changes > n / 3);
  }
}

TEST_CASE("clusters of the past: block by block they are those of the whole", "[cluster][host]") {
  for (const int64_t clusters : {1, 3, 40}) {
    const int64_t n = 67, block = 16;
    Rng rng(clusters);
    const Tensor codes = from_vector(lumpy_codes(2 * n, 7, 5, rng), {1, 2, n});
    const Tensor joined = empty({1, 2, n}, DType::i32), seen = empty({1, 2, n}, DType::i32);
    const GrowingMeans whole = raw::growing_means(1, 2, clusters, Device{});
    cpu::hamming_kmeans_past(codes, from_vector<int64_t>({n}, {1}), block, clusters, 3, joined,
                             seen, whole.centroids, whole.counts);
    const GrowingMeans means = raw::growing_means(1, 2, clusters, Device{});
    for (int64_t begin = 0; begin < n; begin += block) {
      const int64_t end = std::min(n, begin + block), t = begin / block;
      const Tensor part = raw::slice(codes, 2, begin, end);
      const auto with = [&](const Tensor& labels, int64_t group) {
        return raw::add(labels, static_cast<double>(group * clusters));
      };
      const Tensor near = raw::nearest_learnt(part, means).labels;
      CHECK(same_bits(t == 0 ? near : with(near, t - 1),
                      raw::contiguous(raw::slice(seen, 2, begin, end))));
      CHECK(same_bits(with(raw::learn_block(part, means, 3).labels, t),
                      raw::contiguous(raw::slice(joined, 2, begin, end))));
    }
    CHECK(same_bits(means.centroids, whole.centroids));
    CHECK(same_bits(means.counts, whole.counts));
  }
  const GrowingMeans none = raw::growing_means(1, 2, 4, Device{});
  const Tensor codes = zeros({1, 2, 3}, DType::i64);
  CHECK(raw::nearest_learnt(codes, none).labels.to_vector<int32_t>() ==
        std::vector<int32_t>(6, -1));
  CHECK_THROWS_AS(raw::learn_block(codes, none, 0), Error);
  CHECK_THROWS_AS(raw::nearest_learnt(zeros({1, 3, 3}, DType::i64), none), Error);
}
