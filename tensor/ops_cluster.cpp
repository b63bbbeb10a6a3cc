// Clustering of queries by sign hashes and k-means in Hamming space (clustered attention, section
// 3.2).
#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/check.h"
#include "tensor/ops.h"

namespace centroid::raw {
namespace {

constexpr int64_t kBits = 64;

// All items are as long as the tensor where no lengths are given.
Lengths filled(const Lengths& lengths, int64_t batch, int64_t n) {
  return lengths.empty() ? Lengths(std::vector<int64_t>(batch, n)) : lengths;
}

Clusters grouped(const Tensor& labels, int64_t count) {
  Clusters result;
  result.labels = labels;
  result.order = empty(labels.shape(), DType::i32, labels.device());
  result.offsets = empty({labels.size(0), labels.size(1), count + 1}, DType::i32, labels.device());
  CENTROID_DISPATCH(labels.device(), group_by_label, labels, result.order, result.offsets);
  return result;
}

}  // namespace
}  // namespace centroid::raw

namespace centroid {

Tensor Clusters::counts() const {
  return raw::sub(raw::slice(offsets, 2, 1, count() + 1), raw::slice(offsets, 2, 0, count()));
}

}  // namespace centroid

namespace centroid::raw {

void check_options(const ClusterOptions& o) {
  CENTROID_CHECK(o.clusters > 0 && (o.clusters < 1 || o.clusters == std::floor(o.clusters)) &&
                     o.clusters < 1e9,
                 "cluster_queries: clusters: expected a whole number, or a fraction of the length "
                 "below 1, got ",
                 o.clusters);
  CENTROID_CHECK(o.bits >= 1 && o.bits <= kBits, "cluster_queries: bits: expected 1 to 64, got ",
                 o.bits);
  CENTROID_CHECK(o.iterations >= 1, "cluster_queries: iterations: expected at least 1, got ",
                 o.iterations);
}

Lengths cluster_counts(const ClusterOptions& options, const Lengths& lengths) {
  check_options(options);
  // 0.07 * 100 is 7.000000000000001: what rounding adds to a whole number must not count.
  constexpr double kBelow = 1 - 1e-12;
  std::vector<int64_t> counts;
  for (const int64_t n : lengths.values()) {
    const double wanted = options.clusters < 1
                              ? std::ceil(options.clusters * static_cast<double>(n) * kBelow)
                              : options.clusters;
    counts.push_back(std::max<int64_t>(1, std::min<int64_t>(n, static_cast<int64_t>(wanted))));
  }
  return Lengths(std::move(counts));
}

Tensor hash_codes(const Tensor& x, const Lengths& lengths, const ClusterOptions& options,
                  Rng& rng) {
  detail::check_floats("hash_codes", {{"x", x}});
  check_options(options);
  CENTROID_CHECK(x.dim() == 4, "hash_codes: expected (B, H, L, E), got ", x.shape());
  lengths.check(x.size(0), x.size(2), "hash_codes: lengths");
  const int64_t bits = options.bits, rest = kBits - bits;
  const Tensor drawn = normal({x.size(3), bits}, rng, 0, 1, x.dtype(), x.device());
  Tensor bias = zeros({bits}, x.dtype(), x.device());
  if (options.bias) bias = normal({bits}, rng, 0, 1, x.dtype(), x.device());
  const Tensor codes = empty({x.size(0), x.size(1), x.size(2)}, DType::i64, x.device());
  CENTROID_DISPATCH(x.device(), hash_codes, unit_last(x), pad(drawn, 1, 0, rest),
                    pad(bias, 0, 0, rest, std::numeric_limits<double>::infinity()),
                    lengths.tensor(x.device()), codes);
  return codes;
}

Clusters cluster_queries(const Tensor& q, const Lengths& lengths, const ClusterOptions& options,
                         Rng& rng) {
  const Tensor codes = hash_codes(q, lengths, options, rng);
  const int64_t batch = q.size(0), heads = q.size(1), n = q.size(2);
  const Lengths valid = filled(lengths, batch, n), counts = cluster_counts(options, valid);
  const int64_t most = counts.max();
  constexpr int64_t kPart = 2048, kMostParts = 64;
  const int64_t parts = std::clamp<int64_t>((n + kPart - 1) / kPart, 1, kMostParts);
  const Tensor labels = empty({batch, heads, n}, DType::i32, q.device());
  const Tensor centroids = empty({batch, heads, most}, DType::i64, q.device());
  const Tensor work = empty({batch, heads, parts, most, kBits + 1}, DType::i32, q.device());
  CENTROID_DISPATCH(q.device(), hamming_kmeans, codes, valid.tensor(q.device()),
                    counts.tensor(q.device()), options.iterations, work, centroids, labels);
  Clusters result = grouped(labels, most);
  result.codes = codes;
  result.centroids = centroids;
  return result;
}

namespace {

// The clusters joined and those seen.
std::pair<Tensor, Tensor> kmeans_past(const Tensor& codes, const Lengths& valid, int64_t block,
                                      int64_t iterations, const GrowingMeans& means) {
  CENTROID_CHECK(codes.dim() == 3 && codes.dtype() == DType::i64,
                 "k-means of the past: expected codes (B, H, L) i64, got ", codes.shape(), " ",
                 codes.dtype());
  detail::check_shape("k-means of the past", "centroids", means.centroids,
                      {codes.size(0), codes.size(1), means.centroids.size(-1)});
  const Tensor joined = empty(codes.shape(), DType::i32, codes.device());
  const Tensor seen = empty(codes.shape(), DType::i32, codes.device());
  CENTROID_DISPATCH(codes.device(), hamming_kmeans_past, contiguous(codes),
                    valid.tensor(codes.device()), block, means.centroids.size(-1), iterations,
                    joined, seen, means.centroids, means.counts);
  return {joined, seen};
}

}  // namespace

PastClusters cluster_past(const Tensor& q, const Lengths& lengths, const ClusterOptions& options,
                          int64_t block, Rng& rng) {
  CENTROID_CHECK(block >= 1, "cluster_past: block: expected at least 1, got ", block);
  CENTROID_CHECK(options.clusters >= 1, "cluster_past: clusters: expected a whole number, got ",
                 options.clusters);
  const Tensor codes = hash_codes(q, lengths, options, rng);
  const Lengths valid = filled(lengths, q.size(0), q.size(2));
  const int64_t clusters = static_cast<int64_t>(options.clusters);
  const int64_t groups = clusters * ((q.size(2) + block - 1) / block);
  const auto [joined, seen] =
      kmeans_past(codes, valid, block, options.iterations,
                  growing_means(q.size(0), q.size(1), clusters, q.device()));
  return {grouped(seen, groups), grouped(joined, groups)};
}

GrowingMeans growing_means(int64_t batch, int64_t heads, int64_t clusters, Device device) {
  return {zeros({batch, heads, clusters}, DType::i64, device),
          zeros({batch, heads, clusters, 65}, DType::i32, device)};
}

Clusters nearest_learnt(const Tensor& codes, const GrowingMeans& means) {
  const int64_t n = codes.size(2);
  return grouped(kmeans_past(codes, filled({}, codes.size(0), n), n, 0, means).second,
                 means.centroids.size(2));
}

Clusters learn_block(const Tensor& codes, const GrowingMeans& means, int64_t iterations) {
  CENTROID_CHECK(iterations >= 1, "learn_block: iterations: expected at least 1, got ", iterations);
  const int64_t n = codes.size(2);
  return grouped(kmeans_past(codes, filled({}, codes.size(0), n), n, iterations, means).first,
                 means.centroids.size(2));
}

Clusters clusters_of_labels(const Tensor& labels, int64_t count) {
  CENTROID_CHECK(labels.dim() == 3 && labels.dtype() == DType::i32,
                 "clusters_of_labels: expected labels (B, H, L) i32, got ", labels.shape(), " ",
                 labels.dtype());
  if (labels.numel() > 0) {
    const double low = min(labels).item(), high = max(labels).item();
    CENTROID_CHECK(low >= -1 && high < static_cast<double>(count),
                   "clusters_of_labels: labels: expected -1 to ", count - 1, ", got ", low, " to ",
                   high);
  }
  return clusters_of_valid_labels(labels, count);
}

Clusters clusters_of_valid_labels(const Tensor& labels, int64_t count) {
  return grouped(contiguous(labels), count);
}

Tensor group_sum(const Tensor& x, const Clusters& clusters, bool mean) {
  detail::check_floats("group_sum", {{"x", x}});
  detail::check_shape("group_sum", "labels", clusters.labels, {x.size(0), x.size(1), x.size(2)});
  const Tensor y =
      empty({x.size(0), x.size(1), clusters.count(), x.size(3)}, x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), group_sum, unit_last(x), clusters.order, clusters.offsets, mean, y);
  return y;
}

Tensor group_broadcast(const Tensor& y, const Clusters& clusters, bool mean) {
  detail::check_floats("group_broadcast", {{"y", y}});
  const Tensor& labels = clusters.labels;
  detail::check_shape("group_broadcast", "y", y,
                      {labels.size(0), labels.size(1), clusters.count(), y.size(-1)});
  const Tensor x = empty_heads_last(y, labels.size(2), y.size(3));
  CENTROID_DISPATCH(y.device(), group_broadcast, contiguous(y), labels, clusters.offsets, mean, x);
  return x;
}

}  // namespace centroid::raw
