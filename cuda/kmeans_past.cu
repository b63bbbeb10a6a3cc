// K-means over growing prefixes. Blocks of codes are learnt one after the other, so one thread
// block does all of a head: centroids and the counts of the codes it is learning are in shared
// memory where they fit, the counts of all earlier ones in global memory, which only votes read.
// With iterations = 0 it only looks.
#include "cuda/kmeans.cuh"

namespace centroid::cuda {
namespace {

struct Past {
  const uint64_t* codes;
  const int64_t* lengths;
  int32_t *joined, *seen;
  // Learnt before, and from now on: (items, K) and (items, K, 65).
  uint64_t* centroids;
  int32_t* totals;
  // In global memory where they do not fit into shared: (items, K), (items, K, 65) and (items, K).
  uint64_t* alive;
  int32_t *counts, *lists;
  int64_t iterations;
  int heads, positions, block, clusters;
};

// Centroids and those that are alive, counts, sizes and the list; or a chunk of centroids.
constexpr int64_t past_shared_bytes(int64_t clusters, bool shared) {
  return shared ? clusters * (16 + 4 * kWarp + 8) : kCentroidChunk * 8;
}

template <bool kShared>
CENTROID_DEVICE Means<kShared> past_means(const Past& a, uint64_t*& alive) {
  const int64_t at = int64_t{blockIdx.x} * a.clusters;
  uint64_t* dynamic = dynamic_shared<uint64_t>();
  if constexpr (kShared) {
    alive = dynamic + a.clusters;
    auto* words = reinterpret_cast<unsigned*>(alive + a.clusters);
    int* sizes = reinterpret_cast<int*>(words + a.clusters * kWarp);
    return {dynamic, {words, sizes}, sizes + a.clusters, nullptr};
  } else {
    alive = a.alive + at;
    return {a.centroids + at, {a.counts + at * (kBits + 1)}, a.lists + at, dynamic};
  }
}

// The nearest cluster that has members, for codes [0, n), whose labels begin at `first`; -1 while
// there is none.
template <bool kShared>
CENTROID_DEVICE void look(const Means<kShared>& means, const WideCounts& totals, uint64_t* alive,
                          int clusters, const uint64_t* codes, int n, int first, int32_t* seen,
                          int* shared) {
  const int count = means.list_where(clusters, shared, [&](int c) { return totals.size(c) > 0; });
  for (int i = threadIdx.x; i < count; i += blockDim.x) alive[i] = means.centroids[means.list[i]];
  __syncthreads();
  if (count == 0) {
    for (int l = threadIdx.x; l < n; l += blockDim.x) seen[l] = -1;
    return;
  }
  means.label(alive, count, codes, n, [&](int l, uint64_t, int label, int shares) {
    if (label >= 0 && threadIdx.x % shares == 0) seen[l] = first + means.list[label];
  });
}

// Clusters without members start from evenly spaced new codes, as many as there are.
template <bool kShared>
CENTROID_DEVICE void start_empty(const Means<kShared>& means, const WideCounts& totals,
                                 int clusters, const uint64_t* codes, int n, int* shared) {
  const int empty = means.list_where(clusters, shared, [&](int c) { return totals.size(c) == 0; });
  const int fresh = min(n, empty);
  for (int i = threadIdx.x; i < fresh; i += blockDim.x) {
    means.centroids[means.list[i]] = codes[int64_t{i} * n / fresh];
  }
}

template <bool kShared>
CENTROID_DEVICE void learn(const Means<kShared>& means, const WideCounts& totals, const Past& a,
                           const uint64_t* codes, int n, int first, int32_t* joined) {
  for (int64_t step = 1; step <= a.iterations; ++step) {
    means.counts.clear(a.clusters);
    __syncthreads();
    means.label(means.centroids, a.clusters, codes, n,
                [&](int l, uint64_t code, int label, int shares) {
                  if (label >= 0 && threadIdx.x % shares == 0) joined[l] = first + label;
                  means.count(code, label, shares);
                });
    __syncthreads();
    if (step < a.iterations) means.vote(a.clusters, &totals);
    __syncthreads();
  }
  // The same threads as in votes: a cluster's counts in global memory are only one warp's.
  const int lane = threadIdx.x % kWarp;
  for (int c = threadIdx.x / kWarp; c < a.clusters; c += blockDim.x / kWarp) {
    if (means.counts.size(c) == 0) continue;
    totals.of(c)[lane] += means.counts.low(c);
    totals.of(c)[lane + kWarp] += means.counts.high(c);
    if (lane == 0) totals.of(c)[kBits] += means.counts.size(c);
  }
}

// 1 block: left to itself, ptxas aims at two and spills.
template <bool kShared>
__global__ void __launch_bounds__(kMeansThreads, 1) past_kernel(Past a) {
  __shared__ int shared;
  const int64_t at = int64_t{blockIdx.x} * a.positions;
  const int valid =
      static_cast<int>(max(int64_t{0}, min(a.lengths[blockIdx.x / a.heads], int64_t{a.positions})));
  uint64_t* alive;
  const Means<kShared> means = past_means<kShared>(a, alive);
  const WideCounts totals{a.totals + int64_t{blockIdx.x} * a.clusters * (kBits + 1)};
  uint64_t* known = a.centroids + int64_t{blockIdx.x} * a.clusters;
  for (int c = threadIdx.x; kShared && c < a.clusters; c += blockDim.x) {
    means.centroids[c] = known[c];
  }
  for (int l = valid + threadIdx.x; l < a.positions; l += blockDim.x) {
    a.seen[at + l] = -1;
    if (a.iterations > 0) a.joined[at + l] = -1;
  }
  // Between blocks, as here, the barrier is that at the beginning of list_where.
  for (int l0 = 0, first = 0; l0 < valid; first += a.clusters) {
    const int n = min(a.block, valid - l0);
    const uint64_t* codes = a.codes + at + l0;
    look(means, totals, alive, a.clusters, codes, n, max(0, first - a.clusters), a.seen + at + l0,
         &shared);
    l0 += n;
    if (a.iterations == 0) continue;
    start_empty(means, totals, a.clusters, codes, n, &shared);
    learn(means, totals, a, codes, n, first, a.joined + (codes - a.codes));
  }
  // Written by the threads that voted: wait for them.
  __syncthreads();
  for (int c = threadIdx.x; kShared && c < a.clusters; c += blockDim.x) {
    known[c] = means.centroids[c];
  }
}

}  // namespace

void hamming_kmeans_past(const Tensor& codes, const Tensor& lengths, int64_t block,
                         int64_t clusters, int64_t iterations, const Tensor& labels,
                         const Tensor& past_labels, const Tensor& centroids, const Tensor& counts) {
  const int64_t heads = codes.size(1), items = codes.size(0) * heads, n = codes.size(2);
  const int64_t at_once = std::min(block, n);
  const bool shared = past_shared_bytes(clusters, true) <= kMeansShared && at_once <= kMostPacked;
  const Shape per_bit{items, clusters, kBits + 1}, per_cluster{shared ? 0 : items, clusters};
  const auto scratch = [&](const Shape& shape, DType dtype) {
    return empty(shape, dtype, codes.device());
  };
  const Tensor alive = scratch(per_cluster, DType::i64);
  const Tensor lists = scratch(per_cluster, DType::i32);
  const Tensor of_block = shared ? lists : scratch(per_bit, DType::i32);
  const Past past{reinterpret_cast<const uint64_t*>(codes.data<int64_t>()),
                  lengths.data<int64_t>(),
                  labels.data<int32_t>(),
                  past_labels.data<int32_t>(),
                  reinterpret_cast<uint64_t*>(centroids.data<int64_t>()),
                  counts.data<int32_t>(),
                  reinterpret_cast<uint64_t*>(alive.data<int64_t>()),
                  of_block.data<int32_t>(),
                  lists.data<int32_t>(),
                  iterations,
                  static_cast<int>(heads),
                  static_cast<int>(n),
                  static_cast<int>(at_once),
                  static_cast<int>(clusters)};
  launch(shared ? past_kernel<true> : past_kernel<false>, static_cast<unsigned>(items),
         means_threads(at_once), past_shared_bytes(clusters, shared), past);
}

}  // namespace centroid::cuda
