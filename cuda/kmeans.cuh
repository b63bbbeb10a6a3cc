#pragma once
// K-means in Hamming space, as one block does it. Everything is integers: no order of additions
// matters.
//
// A group of lanes shares a code: each compares it with some of the centroids, which are read as
// broadcasts, and the least (distance, cluster) wins by shuffles. Then the warp goes through its
// codes one by one to count their ones: lane i counts bits i and i + 32, so its atomics never meet.
// A majority vote is a warp per cluster, and two ballots.
#include <type_traits>

#include "cuda/rank.cuh"

namespace centroid::cuda {

inline constexpr int kBits = 64;
inline constexpr int kMeansThreads = 1024;      ///< at most, per block
inline constexpr int kCentroidChunk = 1024;     ///< centroids staged in shared memory at a time
inline constexpr int kMostPacked = 65535;       ///< codes that packed counts can count
inline constexpr int kMeansShared = 63 * 1024;  ///< dynamic, that a block can have anywhere

/// Counts in shared memory: a cluster's bits b and b + 32 share a word.
struct PackedCounts {
  unsigned* words;  // (clusters, 32)
  int* sizes;       // (clusters)

  CENTROID_DEVICE void clear(int clusters) const {
    for (int i = threadIdx.x; i < clusters * kWarp; i += blockDim.x) words[i] = 0;
    for (int i = threadIdx.x; i < clusters; i += blockDim.x) sizes[i] = 0;
  }
  CENTROID_DEVICE void add(int cluster, uint64_t code) const {
    const int lane = threadIdx.x % kWarp;
    const unsigned low = static_cast<unsigned>(code) >> lane;
    const unsigned high = static_cast<unsigned>(code >> 32) >> lane;
    atomicAdd(words + cluster * kWarp + lane, (low & 1) | (high & 1) << 16);
    if (lane == 0) atomicAdd(sizes + cluster, 1);
  }
  CENTROID_DEVICE unsigned low(int cluster) const {
    return words[cluster * kWarp + threadIdx.x % kWarp] & 0xffff;
  }
  CENTROID_DEVICE unsigned high(int cluster) const {
    return words[cluster * kWarp + threadIdx.x % kWarp] >> 16;
  }
  CENTROID_DEVICE int size(int cluster) const { return sizes[cluster]; }
};

/// Counts in global memory, for any number of codes and clusters.
struct WideCounts {
  int* ones;  // (clusters, 65): ones per bit, then members

  CENTROID_DEVICE int* of(int cluster) const { return ones + int64_t{cluster} * (kBits + 1); }
  CENTROID_DEVICE void clear(int clusters) const {
    for (int64_t i = threadIdx.x; i < int64_t{clusters} * (kBits + 1); i += blockDim.x) ones[i] = 0;
  }
  CENTROID_DEVICE void add(int cluster, uint64_t code) const {
    const int lane = threadIdx.x % kWarp;
    if (code >> lane & 1) atomicAdd(of(cluster) + lane, 1);
    if (code >> (lane + kWarp) & 1) atomicAdd(of(cluster) + lane + kWarp, 1);
    if (lane == 0) atomicAdd(of(cluster) + kBits, 1);
  }
  CENTROID_DEVICE unsigned low(int cluster) const { return of(cluster)[threadIdx.x % kWarp]; }
  CENTROID_DEVICE unsigned high(int cluster) const {
    return of(cluster)[threadIdx.x % kWarp + kWarp];
  }
  CENTROID_DEVICE int size(int cluster) const { return of(cluster)[kBits]; }
};

/// Distance << 16 | index of the nearest of `count` <= 65536 centroids, ties to the lower index,
/// among those at share, share + shares, ...
CENTROID_DEVICE unsigned nearest_key(uint64_t code, const uint64_t* centroids, int count, int share,
                                     int shares) {
  unsigned best = ~0u;
#pragma unroll 4
  for (int c = share; c < count; c += shares) {
    const unsigned distance = __popcll(code ^ centroids[c]);
    best = min(best, distance << 16 | c);
  }
  return best;
}

/// What one block clusters with. kShared: everything is in shared memory; else in global memory,
/// and `stage` has room for kCentroidChunk centroids in shared memory.
template <bool kShared>
struct Means {
  uint64_t* centroids;
  std::conditional_t<kShared, PackedCounts, WideCounts> counts;
  int* list;  // (clusters)
  uint64_t* stage;

  /// Calls each(l, code, label) for l in [0, n), with the nearest of `of`'s `clusters` > 0
  /// centroids; several lanes may call it for one l, and those with l >= n have label -1. `shares`
  /// lanes call it for the same. The whole block must call it.
  template <typename Each>
  CENTROID_DEVICE void label(const uint64_t* of, int clusters, const uint64_t* codes, int n,
                             Each each) const {
    int shares = 1;
    while (shares < kWarp && n <= static_cast<int>(blockDim.x) / (2 * shares)) shares *= 2;
    const int step = blockDim.x / shares;
    for (int64_t l0 = 0; l0 < n; l0 += step) {
      const int64_t l = l0 + threadIdx.x / shares;
      const uint64_t code = l < n ? codes[l] : 0;
      const int label = nearest(of, clusters, code, shares);
      each(static_cast<int>(l), code, l < n ? label : -1, shares);
    }
  }

  /// Counts a warp's codes, `shares` lanes of which have the same. The whole warp must call it.
  CENTROID_DEVICE void count(uint64_t code, int label, int shares) const {
    for (int lane = 0; lane < kWarp; lane += shares) {
      const int cluster = __shfl_sync(kFullMask, label, lane);
      const uint64_t x = __shfl_sync(kFullMask, static_cast<unsigned long long>(code), lane);
      if (cluster >= 0) counts.add(cluster, x);
    }
  }

  /// Majority votes of the members, and of those in `before` where given; clusters without any
  /// stay. Whether this thread has seen a centroid change.
  CENTROID_DEVICE bool vote(int clusters, const WideCounts* before = nullptr) const {
    const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    bool changed = false;
    for (int c = warp; c < clusters; c += warps) {
      const unsigned size = counts.size(c) + (before ? before->size(c) : 0);
      if (size == 0) continue;
      const unsigned low = counts.low(c) + (before ? before->low(c) : 0);
      const unsigned high = counts.high(c) + (before ? before->high(c) : 0);
      const uint64_t code = static_cast<uint64_t>(__ballot_sync(kFullMask, 2 * high > size)) << 32 |
                            __ballot_sync(kFullMask, 2 * low > size);
      if (threadIdx.x % kWarp == 0) {
        changed = changed || centroids[c] != code;
        centroids[c] = code;
      }
    }
    return changed;
  }

  /// The clusters c with wanted(c), in ascending order, to `list`; returns how many, after a
  /// barrier on either side. The whole block must call it; `shared` is an int of shared memory.
  template <typename Wanted>
  CENTROID_DEVICE int list_where(int clusters, int* shared, Wanted wanted) const {
    __syncthreads();
    if (threadIdx.x < kWarp) {
      int count = 0;
      for (int c0 = 0; c0 < clusters; c0 += kWarp) {
        const int c = c0 + threadIdx.x;
        const bool in = c < clusters && wanted(c);
        const unsigned mask = __ballot_sync(kFullMask, in);
        if (in) list[count + __popc(mask & lanes_below())] = c;
        count += __popc(mask);
      }
      if (threadIdx.x == 0) *shared = count;
    }
    __syncthreads();
    return *shared;
  }

  /// The `empty` clusters on the list take the codes farthest from their own centroids, the first
  /// on ties, as long as there are any that differ from it. Labels are of non-empty clusters, so
  /// what is read does not change. `shared` has rank_ints(warps, kBits + 1) ints.
  CENTROID_DEVICE void refill(int empty, const uint64_t* codes, const int32_t* labels, int n,
                              int* shared) const {
    const auto bin = [&](int l) { return kBits - __popcll(codes[l] ^ centroids[labels[l]]); };
    stable_ranks(
        n, kBits + 1, shared, bin, [](int, int) {},
        [&](int l, int bin, int rank) {
          if (bin < kBits && rank < empty) centroids[list[rank]] = codes[l];
        });
  }

 private:
  CENTROID_DEVICE int nearest(const uint64_t* of, int clusters, uint64_t code, int shares) const {
    const int share = threadIdx.x % shares;
    if constexpr (kShared) {
      return best_of(nearest_key(code, of, clusters, share, shares), shares) & 0xffff;
    } else {
      unsigned distance = ~0u;
      int label = 0;
      for (int first = 0; first < clusters; first += kCentroidChunk) {
        const int chunk = min(kCentroidChunk, clusters - first);
        __syncthreads();
        for (int c = threadIdx.x; c < chunk; c += blockDim.x) stage[c] = of[first + c];
        __syncthreads();
        const unsigned key = best_of(nearest_key(code, stage, chunk, share, shares), shares);
        if (key >> 16 < distance) {
          distance = key >> 16;
          label = first + static_cast<int>(key & 0xffff);
        }
      }
      return label;
    }
  }
  static CENTROID_DEVICE unsigned best_of(unsigned key, int shares) {
    for (int step = shares / 2; step > 0; step /= 2) {
      key = min(key, __shfl_xor_sync(kFullMask, key, step));
    }
    return key;
  }
};

/// Threads of a block that labels n codes at a time: a few lanes for each.
inline unsigned means_threads(int64_t n) {
  constexpr int64_t kLanesPerCode = 8, kFewest = 128;
  return static_cast<unsigned>(
      std::clamp<int64_t>(div_up(n * kLanesPerCode, kWarp) * kWarp, kFewest, kMeansThreads));
}

}  // namespace centroid::cuda
