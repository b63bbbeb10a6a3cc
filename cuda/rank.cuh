#pragma once
// Ranks within a block that keep the order of equals: the core of counting sorts.
//
// Every warp owns a contiguous part of the positions and a row of counters, one per bin. It counts
// its part, the block turns the counters into the first rank of each (bin, warp), and the warp goes
// through its part again, 32 positions at a time, handing out ranks: lanes of one bin find each
// other by __match_any_sync. Only the scan in between needs the other warps.
#include "cuda/reduce.cuh"

namespace centroid::cuda {

/// The shared memory, in ints, that `stable_ranks` takes.
constexpr int rank_ints(int warps, int bins) { return warps * bins + kWarp; }

CENTROID_DEVICE unsigned lanes_below() { return (1u << threadIdx.x % kWarp) - 1; }

/// The sum of `value` over the threads before this one; `total` receives that over all threads. The
/// whole block must call it; `shared` holds an int per warp, free for reuse after the next
/// __syncthreads.
CENTROID_DEVICE int block_sum_before(int value, int* shared, int& total) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int upto = value;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int before = __shfl_up_sync(kFullMask, upto, step);
    upto += lane >= step ? before : 0;
  }
  if (lane == kWarp - 1) shared[warp] = upto;
  __syncthreads();
  const int of_warp = lane < blockDim.x / kWarp ? shared[lane] : 0;
  total = warp_reduce(of_warp, Sum{});
  return warp_reduce(lane < warp ? of_warp : 0, Sum{}) + upto - value;
}

/// Calls take(i, bin, rank) for every i in [0, n), where rank counts the positions with a lower
/// bin(i) in [0, bins), and those before i with the same, and first(bin, rank) with the rank at
/// which each bin begins. The whole block, of up to 32 full warps, must call it; `shared` has
/// rank_ints(warps, bins) ints, free for reuse after the next __syncthreads.
template <typename Bin, typename First, typename Take>
CENTROID_DEVICE void stable_ranks(int n, int bins, int* shared, Bin bin, First first, Take take) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int steps = (n - 1) / static_cast<int>(blockDim.x) + 1;  // of 32 positions, per warp
  const int64_t from = int64_t{warp} * steps * kWarp;
  const int begin = static_cast<int>(min(from, int64_t{n}));
  const int end = static_cast<int>(min(from + steps * kWarp, int64_t{n}));
  int* own = shared + kWarp + warp * bins;
  for (int b = lane; b < bins; b += kWarp) own[b] = 0;
  __syncwarp();
  for (int i0 = begin; i0 < end; i0 += kWarp) {
    const int b = i0 + lane < end ? bin(i0 + lane) : -1;
    const unsigned same = __match_any_sync(kFullMask, b);
    if (b >= 0 && (same & lanes_below()) == 0) own[b] += __popc(same);
    __syncwarp();
  }
  __syncthreads();
  for (int b0 = 0, done = 0; b0 < bins; b0 += blockDim.x) {
    const int b = b0 + threadIdx.x;
    int* of_bin = shared + kWarp + b;
    int count = 0, total;
    for (int w = 0; b < bins && w < warps; ++w) count += of_bin[w * bins];
    int rank = done + block_sum_before(count, shared, total);
    done += total;
    if (b < bins) first(b, rank);
    for (int w = 0; b < bins && w < warps; ++w) {
      const int here = of_bin[w * bins];
      of_bin[w * bins] = rank;
      rank += here;
    }
    __syncthreads();
  }
  for (int i0 = begin; i0 < end; i0 += kWarp) {
    const int i = i0 + lane, b = i < end ? bin(i) : -1;
    const unsigned same = __match_any_sync(kFullMask, b), before = same & lanes_below();
    const int rank = b >= 0 ? own[b] + __popc(before) : 0;
    __syncwarp();
    if (b >= 0 && before == 0) own[b] = rank + __popc(same);
    __syncwarp();
    if (b >= 0) take(i, b, rank);
  }
}

}  // namespace centroid::cuda
