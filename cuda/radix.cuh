#pragma once
// Stable sorting of rows of (key, position) pairs by digits of 8 bits, the least significant first.
//
// A row is cut into tiles. For every digit, one kernel counts the digits of each tile, one turns
// the counts of a row, digit by digit and tile by tile, into where each tile's run of each digit
// begins, and one moves the pairs there, ranked within the tile by stable_ranks of rank.cuh. A row
// of one tile needs the last kernel only.
#include <bit>
#include <utility>

#include "cuda/rank.cuh"

namespace centroid::cuda {

inline constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;
inline constexpr int kRadixTile = 4096;
inline constexpr int kRankInts = rank_ints(kThreads / kWarp, kDigits);
inline constexpr int kScanThreads = 1024;

/// Rows of pairs, n of each.
template <typename K>
struct Pairs {
  K* key;
  uint32_t* position;
};

template <typename K>
CENTROID_DEVICE int digit_of(K key, int shift) {
  return static_cast<int>(key >> shift & (kDigits - 1));
}

namespace detail {

/// Block (row, tile): counts (R, digits, tiles).
template <typename K>
__global__ void __launch_bounds__(kThreads)
    count_digits_kernel(const K* keys, int64_t n, int tiles, int shift, int* counts) {
  __shared__ int count[kDigits];
  static_assert(kDigits == kThreads);
  const int64_t row = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const int64_t end = ::min(n, (tile + 1) * kRadixTile);
  count[threadIdx.x] = 0;
  __syncthreads();
  for (int64_t i = tile * kRadixTile + threadIdx.x; i < end; i += kThreads) {
    atomicAdd(&count[digit_of(keys[row * n + i], shift)], 1);
  }
  __syncthreads();
  counts[(row * kDigits + threadIdx.x) * tiles + tile] = count[threadIdx.x];
}

/// Block per row: each count becomes the sum of those before it; a row has 16-byte alignment.
template <typename Count4>
__global__ void __launch_bounds__(kScanThreads) scan_kernel(Count4* counts, int64_t width) {
  __shared__ int shared[kScanThreads / kWarp];
  counts += blockIdx.x * width;
  int done = 0;
  for (int64_t from = 0; from < width; from += kScanThreads) {
    const int64_t i = from + threadIdx.x;
    const Count4 v = i < width ? counts[i] : Count4{};
    int total;
    const int before = done + block_sum_before(v.x + v.y + v.z + v.w, shared, total);
    if (i < width) counts[i] = {before, before + v.x, before + v.x + v.y, before + v.x + v.y + v.z};
    done += total;
    __syncthreads();
  }
}

/// Block (row, tile): moves its pairs. `starts` are the scanned counts; null for rows of one tile.
template <typename K>
__global__ void __launch_bounds__(kThreads)
    move_pairs_kernel(Pairs<K> from, Pairs<K> to, int64_t n, int tiles, int shift,
                      const int* starts) {
  __shared__ int shared[kRankInts];
  __shared__ int start[kDigits];  // of the tile's run of each digit, less its rank in the tile
  const int64_t row = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const int64_t begin = row * n + tile * kRadixTile;
  const int count = static_cast<int>(::min(n - tile * kRadixTile, int64_t{kRadixTile}));
  stable_ranks(
      count, kDigits, shared, [&](int i) { return digit_of(from.key[begin + i], shift); },
      [&](int digit, int rank) {
        start[digit] = starts ? starts[(row * kDigits + digit) * tiles + tile] - rank : 0;
      },
      [&](int i, int digit, int rank) {
        const int64_t at = row * n + start[digit] + rank;
        to.key[at] = from.key[begin + i];
        to.position[at] = from.position[begin + i];
      });
}

}  // namespace detail

/// Sorts rows of n < 2^31 pairs by the low `bits` bits of their keys, stably. Returns the one of
/// the two arrays that holds the result; the other is overwritten.
template <typename K>
Pairs<K> radix_sort(int64_t rows, int64_t n, int bits, Pairs<K> pairs, Pairs<K> spare,
                    Device device) {
  CENTROID_CHECK(n <= INT32_MAX, "sort: rows of at most 2^31 - 1 elements on CUDA, got ", n);
  if (rows * n == 0) return pairs;
  const int tiles = static_cast<int>(div_up(n, kRadixTile));
  const unsigned blocks = static_cast<unsigned>(rows * tiles);
  const Tensor counts = empty({tiles > 1 ? rows * kDigits * tiles : 0}, DType::i32, device);
  int* starts = tiles > 1 ? counts.data<int32_t>() : nullptr;
  for (int shift = 0; shift < bits; shift += kDigitBits) {
    if (tiles > 1) {
      launch(detail::count_digits_kernel<K>, blocks, kThreads, 0, pairs.key, n, tiles, shift,
             starts);
      launch(detail::scan_kernel<int4>, static_cast<unsigned>(rows), kScanThreads, 0,
             reinterpret_cast<int4*>(starts), int64_t{kDigits} * tiles / 4);
    }
    launch(detail::move_pairs_kernel<K>, blocks, kThreads, 0, pairs, spare, n, tiles, shift,
           starts);
    std::swap(pairs, spare);
  }
  return pairs;
}

/// Memory for two arrays of `count` pairs.
template <typename K>
class PairBuffers {
 public:
  PairBuffers(int64_t count, Device device)
      : keys_(empty({2, count}, sizeof(K) == 8 ? DType::i64 : DType::i32, device)),
        positions_(empty({2, count}, DType::i32, device)),
        count_(count) {}
  Pairs<K> at(int which) const {
    return {reinterpret_cast<K*>(keys_.bytes()) + which * count_,
            reinterpret_cast<uint32_t*>(positions_.bytes()) + which * count_};
  }

 private:
  Tensor keys_, positions_;
  int64_t count_;
};

}  // namespace centroid::cuda
