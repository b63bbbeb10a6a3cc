// K-means in Hamming space (kmeans.cuh has what a block does).
//
// Where the heads fill the device, or are short, one block does all iterations of a head: centroids
// and counts stay in shared memory, and nothing is started again. Else every iteration is two
// kernels: blocks over parts of the codes assign and count, in shared memory first, and a block per
// head updates. A head that has converged is skipped; the host knows nothing of it.
#include "cuda/kmeans.cuh"

namespace centroid::cuda {
namespace {

constexpr int kRankInts = rank_ints(kMeansThreads / kWarp, kBits + 1);

struct KMeans {
  const uint64_t* codes;
  const int64_t *lengths, *clusters;
  uint64_t* centroids;
  int32_t *labels, *counts, *lists, *moving;
  int64_t counts_stride;  // of a head
  int heads, positions, most;
  int parts, part_size;  // of the positions

  CENTROID_DEVICE int valid(int bh) const {
    return static_cast<int>(max(int64_t{0}, min(lengths[bh / heads], int64_t{positions})));
  }
  // At least as many as valid positions: each is a cluster of its own.
  CENTROID_DEVICE int wanted(int bh) const {
    return static_cast<int>(max(int64_t{0}, min(clusters[bh / heads], int64_t{most})));
  }
  CENTROID_DEVICE const uint64_t* codes_of(int bh) const { return codes + int64_t{bh} * positions; }
  CENTROID_DEVICE int32_t* labels_of(int bh) const { return labels + int64_t{bh} * positions; }
  CENTROID_DEVICE uint64_t* centroids_of(int bh) const { return centroids + int64_t{bh} * most; }

  // Evenly spaced codes, then zeros.
  CENTROID_DEVICE uint64_t first_centroid(int bh, int c) const {
    const int n = valid(bh), k = min(wanted(bh), n);
    return c < k ? codes_of(bh)[int64_t{c} * n / k] : 0;
  }
  // Of a position that no assignment reaches.
  CENTROID_DEVICE int32_t first_label(int bh, int l) const { return l < valid(bh) ? l : -1; }
};

// ---- a block per head ---------------------------------------------------------------------------

// Shared memory of one block: centroids, counts (and in their place ranks, once counts are used
// up), sizes and the list.
CENTROID_HD constexpr int64_t count_words(int64_t clusters) {
  return clusters * kWarp > kRankInts ? clusters * kWarp : kRankInts;
}
constexpr int64_t whole_shared_bytes(int64_t clusters) {
  return clusters * 16 + count_words(clusters) * 4;
}

CENTROID_DEVICE Means<true> shared_means(int clusters) {
  uint64_t* centroids = dynamic_shared<uint64_t>();
  auto* words = reinterpret_cast<unsigned*>(centroids + clusters);
  int* sizes = reinterpret_cast<int*>(words + count_words(clusters));
  return {centroids, {words, sizes}, sizes + clusters, nullptr};
}

// The iterations of one head; its centroids are left in `means`.
CENTROID_DEVICE void iterate(const Means<true>& means, const uint64_t* codes, int n, int clusters,
                             int64_t iterations, int32_t* labels, int* shared) {
  int* ranks = reinterpret_cast<int*>(means.counts.words);
  for (int64_t step = 1;; ++step) {
    const bool last = step == iterations;
    if (!last) means.counts.clear(clusters);
    __syncthreads();
    means.label(means.centroids, clusters, codes, n,
                [&](int l, uint64_t code, int label, int shares) {
                  if (label >= 0 && threadIdx.x % shares == 0) labels[l] = label;
                  if (!last) means.count(code, label, shares);
                });
    if (last) return;
    __syncthreads();
    const bool changed = __syncthreads_or(means.vote(clusters));
    const int empty =
        means.list_where(clusters, shared, [&](int c) { return means.counts.size(c) == 0; });
    if (!changed && empty == 0) return;
    if (empty > 0) means.refill(empty, codes, labels, n, ranks);
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kMeansThreads) whole_kernel(KMeans a, int64_t iterations) {
  __shared__ int shared;
  const int bh = blockIdx.x, n = a.valid(bh), k = a.wanted(bh);
  const Means<true> means = shared_means(a.most);
  for (int c = threadIdx.x; c < a.most; c += blockDim.x) {
    means.centroids[c] = a.first_centroid(bh, c);
  }
  for (int l = (k < n ? n : 0) + threadIdx.x; l < a.positions; l += blockDim.x) {
    a.labels_of(bh)[l] = a.first_label(bh, l);
  }
  if (k < n && k > 0) {
    iterate(means, a.codes_of(bh), n, k, iterations, a.labels_of(bh), &shared);
  }
  __syncthreads();
  for (int c = threadIdx.x; c < a.most; c += blockDim.x) {
    a.centroids_of(bh)[c] = means.centroids[c];
  }
}

// ---- many blocks per head -----------------------------------------------------------------------

__global__ void __launch_bounds__(kThreads) start_kernel(KMeans a) {
  const int bh = blockIdx.x / a.parts, step = a.parts * kThreads;
  const int n = a.valid(bh), k = a.wanted(bh);
  const int first = blockIdx.x % a.parts * kThreads + threadIdx.x;
  for (int c = first; c < a.most; c += step) a.centroids_of(bh)[c] = a.first_centroid(bh, c);
  for (int64_t l = first + (k < n ? n : 0); l < a.positions; l += step) {
    a.labels_of(bh)[l] = a.first_label(bh, static_cast<int>(l));
  }
  int32_t* counts = a.counts + bh * a.counts_stride;
  for (int64_t i = first; i < int64_t{a.most} * (kBits + 1); i += step) counts[i] = 0;
  if (first == 0) a.moving[bh] = k < n && k > 0;
}

// Labels of one part of a head's codes, and counts unless it is the `last` time.
template <bool kShared>
__global__ void __launch_bounds__(kThreads) assign_kernel(KMeans a, bool last) {
  const int bh = blockIdx.x / a.parts, n = a.valid(bh), k = a.wanted(bh);
  const int begin = blockIdx.x % a.parts * a.part_size, count = min(n - begin, a.part_size);
  if (count <= 0 || k == 0 || k >= n || (!last && !a.moving[bh])) return;
  const WideCounts total{a.counts + bh * a.counts_stride};
  Means<kShared> means;
  if constexpr (kShared) {
    means = shared_means(a.most);
    for (int c = threadIdx.x; c < k; c += kThreads) means.centroids[c] = a.centroids_of(bh)[c];
    if (!last) means.counts.clear(k);
    __syncthreads();
  } else {
    means = {a.centroids_of(bh), total, nullptr, dynamic_shared<uint64_t>()};
  }
  int32_t* labels = a.labels_of(bh) + begin;
  means.label(means.centroids, k, a.codes_of(bh) + begin, count,
              [&](int l, uint64_t code, int label, int shares) {
                if (label >= 0 && threadIdx.x % shares == 0) labels[l] = label;
                if (!last) means.count(code, label, shares);
              });
  if constexpr (kShared) {
    if (last) return;
    __syncthreads();
    for (int i = threadIdx.x; i < k * kWarp; i += kThreads) {
      const unsigned word = means.counts.words[i];
      int* to = total.of(i / kWarp) + i % kWarp;
      if (word & 0xffff) atomicAdd(to, static_cast<int>(word & 0xffff));
      if (word >> 16) atomicAdd(to + kWarp, static_cast<int>(word >> 16));
    }
    for (int c = threadIdx.x; c < k; c += kThreads) {
      const int size = means.counts.size(c);
      if (size > 0) atomicAdd(total.of(c) + kBits, size);
    }
  }
}

__global__ void __launch_bounds__(kMeansThreads) update_kernel(KMeans a) {
  __shared__ int ranks[kRankInts], shared;
  const int bh = blockIdx.x, n = a.valid(bh), k = a.wanted(bh);
  if (!a.moving[bh]) return;
  const Means<false> means{a.centroids_of(bh),
                           {a.counts + bh * a.counts_stride},
                           a.lists + int64_t{bh} * a.most,
                           nullptr};
  const bool changed = __syncthreads_or(means.vote(k));
  const int empty = means.list_where(k, &shared, [&](int c) { return means.counts.size(c) == 0; });
  means.counts.clear(k);
  if (empty > 0) means.refill(empty, a.codes_of(bh), a.labels_of(bh), n, ranks);
  if (threadIdx.x == 0) a.moving[bh] = changed || empty > 0;
}

// Comparing n codes with k clusters takes one multiprocessor about n k / 8 clocks (two popcounts of
// 16 per clock each). Spread over all of them it takes their share of that, but every iteration
// starts two kernels, which is worth about 8000 clocks.
bool block_per_head(int64_t items, int64_t n, int64_t most) {
  constexpr int64_t kClocksPerIteration = 8000, kPairsPerClock = 8;
  if (whole_shared_bytes(most) > kMeansShared || n > kMostPacked) return false;
  const int64_t idle = limits().multiprocessors - items;
  return idle <= 0 ||
         n * most / kPairsPerClock * idle <= kClocksPerIteration * limits().multiprocessors;
}

// Enough parts to fill the device.
void cut(KMeans& means, int64_t items) {
  constexpr int64_t kFewestPerPart = 512, kBlocksPerMultiprocessor = 4;
  const int64_t blocks = limits().multiprocessors * kBlocksPerMultiprocessor;
  const int64_t n = std::max(means.positions, 1);
  const int64_t parts = std::clamp<int64_t>(div_up(blocks, items), 1, div_up(n, kFewestPerPart));
  const int64_t even = div_up(div_up(n, parts), kWarp) * kWarp;
  means.part_size = static_cast<int>(std::min<int64_t>(even, kMostPacked / kWarp * kWarp));
  means.parts = static_cast<int>(div_up(n, means.part_size));
}

void iterate_in_parts(const KMeans& means, int64_t items, int64_t iterations) {
  const bool shared = whole_shared_bytes(means.most) <= kMeansShared;
  const auto blocks = static_cast<unsigned>(items * means.parts);
  const int64_t bytes =
      shared ? whole_shared_bytes(means.most) : kCentroidChunk * int64_t{sizeof(uint64_t)};
  const auto assign = shared ? assign_kernel<true> : assign_kernel<false>;
  launch(start_kernel, blocks, kThreads, 0, means);
  for (int64_t step = 1; step < iterations; ++step) {
    launch(assign, blocks, kThreads, bytes, means, false);
    launch(update_kernel, static_cast<unsigned>(items), kMeansThreads, 0, means);
  }
  launch(assign, blocks, kThreads, bytes, means, true);
}

}  // namespace

void hamming_kmeans(const Tensor& codes, const Tensor& lengths, const Tensor& clusters,
                    int64_t iterations, const Tensor& counts, const Tensor& centroids,
                    const Tensor& labels) {
  const int64_t heads = codes.size(1), items = codes.size(0) * heads, n = codes.size(2);
  const int64_t most = centroids.size(2);
  const bool whole = block_per_head(items, n, most);
  Tensor lists, moving;
  if (!whole) {
    lists = empty({items, most}, DType::i32, codes.device());
    moving = empty({items}, DType::i32, codes.device());
  }
  KMeans means{reinterpret_cast<const uint64_t*>(codes.data<int64_t>()),
               lengths.data<int64_t>(),
               clusters.data<int64_t>(),
               reinterpret_cast<uint64_t*>(centroids.data<int64_t>()),
               labels.data<int32_t>(),
               counts.data<int32_t>(),
               data_or_null<int32_t>(lists),
               data_or_null<int32_t>(moving),
               counts.size(2) * most * (kBits + 1),
               static_cast<int>(heads),
               static_cast<int>(n),
               static_cast<int>(most),
               1,
               static_cast<int>(n)};
  if (items == 0) return;
  if (whole) {
    launch(whole_kernel, static_cast<unsigned>(items), means_threads(n), whole_shared_bytes(most),
           means, iterations);
  } else {
    cut(means, items);
    iterate_in_parts(means, items, iterations);
  }
}

}  // namespace centroid::cuda
