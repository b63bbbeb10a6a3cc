// Sorting and selection of rows. As on the CPU, each element becomes a pair: its value, mapped so
// that unsigned order is the order wanted, and its position. All pairs differ, so any way of
// sorting them is stable.
//
// Rows of up to kTile elements are sorted by a bitonic network in shared memory, several short rows
// per block; longer ones by radix_sort. topk finds the k-th best pair digit by digit, from the most
// significant down: a block counts, among the elements that agree with it so far, how many have
// each digit; the passes end as soon as all that agree are wanted. What is better is collected and
// sorted in shared memory.
#include "cuda/radix.cuh"

namespace centroid::cuda {
namespace {

constexpr int kTile = 2048;      // pairs that a block sorts
constexpr int kMinTile = 512;    // where there are rows enough: two per thread
constexpr int64_t kShort = 256;  // topk sorts rows up to here
constexpr int kManyThreads = 1024;
constexpr int64_t kLong = 4096;  // rows that get a block of so many

template <typename T>
using Key = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

/// The value as an unsigned integer of the same order. Floats: the bits of positive numbers ascend,
/// those of negative ones descend and are inverted; -0 equals 0 and any NaN is the largest.
template <typename T>
CENTROID_DEVICE Key<T> key_of(T x, bool descending) {
  using K = Key<T>;
  constexpr K kSign = K{1} << (8 * sizeof(K) - 1);
  K key;
  if constexpr (std::is_floating_point_v<T>) {
    const K bits = __builtin_bit_cast(K, x + T(0));  // -0 + 0 is 0
    key = x != x ? ~K{0} : bits ^ (bits & kSign ? ~K{0} : kSign);
  } else if constexpr (std::is_signed_v<T>) {
    key = static_cast<K>(x) ^ kSign;
  } else {
    key = x;
  }
  return descending ? static_cast<K>(~key) : key;
}

/// Pairs in shared memory. The network touches pairs at a distance s: 32 lanes of a warp meet those
/// of 64 neighbours whose bit s is clear. Inverting the place within every second run of 32 words
/// makes their banks differ.
template <typename K>
struct SharedPairs {
  K* key;
  uint32_t* position;

  static constexpr size_t bytes(int count) { return count * (sizeof(K) + sizeof(uint32_t)); }
  CENTROID_DEVICE explicit SharedPairs(int count)
      : key(dynamic_shared<K>()), position(reinterpret_cast<uint32_t*>(key + count)) {}
  template <int kRun>
  static CENTROID_DEVICE int place(int i) {
    return i & kRun ? i ^ (kRun - 1) : i;
  }
  CENTROID_DEVICE K& key_at(int i) const { return key[place<128 / sizeof(K)>(i)]; }
  CENTROID_DEVICE uint32_t& position_at(int i) const { return position[place<kWarp>(i)]; }
  CENTROID_DEVICE void put(int i, K k, uint32_t p) const {
    key_at(i) = k;
    position_at(i) = p;
  }
  /// A pair after all others.
  CENTROID_DEVICE void put_last(int i) const { put(i, ~K{0}, ~uint32_t{0}); }
};

/// Sorts every row of `width`, a power of two, of `count` pairs. The whole block must call it.
template <typename K>
CENTROID_DEVICE void bitonic_sort(const SharedPairs<K>& pairs, int count, int width) {
  for (int size = 2; size <= width; size *= 2) {
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int p = threadIdx.x; p < count / 2; p += blockDim.x) {
        const int i = 2 * p - (p & (step - 1)), j = i + step;
        const bool ascending = (i & (width - 1) & size) == 0;
        const K a = pairs.key_at(i), b = pairs.key_at(j);
        const uint32_t pa = pairs.position_at(i), pb = pairs.position_at(j);
        const bool greater = a > b || (a == b && pa > pb);
        if (greater == ascending) {
          pairs.put(i, b, pb);
          pairs.put(j, a, pa);
        }
      }
    }
  }
  __syncthreads();
}

/// Each block sorts `count` / `width` rows, padded to `width`, and writes the first `keep` of each.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    sort_rows_kernel(const T* x, int64_t rows, int n, bool descending, int count, int width,
                     int keep, T* values, int64_t* index) {
  const SharedPairs<Key<T>> pairs(count);
  const int64_t first = int64_t{blockIdx.x} * (count / width);
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const int64_t row = first + i / width;
    const int at = i % width;
    if (row < rows && at < n) {
      pairs.put(i, key_of(x[row * n + at], descending), at);
    } else {
      pairs.put_last(i);
    }
  }
  bitonic_sort(pairs, count, width);
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const int64_t row = first + i / width;
    const int at = i % width;
    if (row >= rows || at >= keep) continue;
    const uint32_t position = pairs.position_at(i);
    values[row * keep + at] = x[row * n + position];
    index[row * keep + at] = position;
  }
}

/// The pairs that agree with the k-th best one in the digits known so far.
template <typename K>
struct Prefix {
  K key = 0, key_mask = 0;
  uint32_t position = 0, position_mask = 0;

  CENTROID_DEVICE bool agrees(K k, uint32_t p) const {
    return (k & key_mask) == key && (p & position_mask) == position;
  }
  /// Whether the pair agrees or comes before those that do.
  CENTROID_DEVICE bool reaches(K k, uint32_t p) const {
    return (k & key_mask) < key || ((k & key_mask) == key && (p & position_mask) <= position);
  }
};

/// What a thread of its block found out about a digit.
struct Found {
  int digit, before, count;
};

/// Block per row: the k <= kTile best, k <= n.
template <typename T>
__global__ void __launch_bounds__(kManyThreads)
    select_kernel(const T* x, int64_t n, int k, int width, T* values, int64_t* index) {
  using K = Key<T>;
  __shared__ int counts[kDigits], shared[kWarp], taken;
  __shared__ Found found;
  x += blockIdx.x * n;
  const auto for_each_pair = [&](auto f) {
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
      f(key_of(x[i], true), static_cast<uint32_t>(i));
    }
  };
  Prefix<K> prefix;
  int wanted = k;  // of those that agree
  const int position_digits = (32 - __clz(static_cast<int>(n - 1)) + kDigitBits - 1) / kDigitBits;
  constexpr int kKeyDigits = sizeof(K);
  for (int d = 0; d < kKeyDigits + position_digits; ++d) {
    const bool of_key = d < kKeyDigits;
    const int shift =
        kDigitBits * (of_key ? kKeyDigits - 1 - d : kKeyDigits + position_digits - 1 - d);
    if (threadIdx.x < kDigits) counts[threadIdx.x] = 0;
    __syncthreads();
    for_each_pair([&](K key, uint32_t position) {
      if (!prefix.agrees(key, position)) return;
      atomicAdd(&counts[of_key ? digit_of(key, shift) : digit_of(position, shift)], 1);
    });
    __syncthreads();
    const int count = threadIdx.x < kDigits ? counts[threadIdx.x] : 0;
    int total;
    const int before = block_sum_before(count, shared, total);
    if (before < wanted && wanted <= before + count) {
      found = {static_cast<int>(threadIdx.x), before, count};
    }
    __syncthreads();
    const Found last = found;
    wanted -= last.before;
    if (of_key) {
      prefix.key |= static_cast<K>(last.digit) << shift;
      prefix.key_mask |= static_cast<K>(kDigits - 1) << shift;
    } else {
      prefix.position |= static_cast<uint32_t>(last.digit) << shift;
      prefix.position_mask |= static_cast<uint32_t>(kDigits - 1) << shift;
    }
    if (last.count == wanted) break;
  }

  const SharedPairs<K> pairs(width);
  if (threadIdx.x == 0) taken = 0;
  for (int i = k + threadIdx.x; i < width; i += blockDim.x) pairs.put_last(i);
  __syncthreads();
  for_each_pair([&](K key, uint32_t position) {
    if (prefix.reaches(key, position)) pairs.put(atomicAdd(&taken, 1), key, position);
  });
  bitonic_sort(pairs, width, width);
  for (int i = threadIdx.x; i < k; i += blockDim.x) {
    const uint32_t position = pairs.position_at(i);
    values[int64_t{blockIdx.x} * k + i] = x[position];
    index[int64_t{blockIdx.x} * k + i] = position;
  }
}

template <typename T>
struct MakePairs {
  const T* x;
  int64_t n;
  bool descending;
  Pairs<Key<T>> pairs;
  CENTROID_DEVICE void operator()(int64_t i) const {
    pairs.key[i] = key_of(x[i], descending);
    pairs.position[i] = static_cast<uint32_t>(i % n);
  }
};

/// The first `keep` of each sorted row of n.
template <typename T>
struct WriteRows {
  const T* x;
  const uint32_t* position;
  int64_t n, keep;
  T* values;
  int64_t* index;
  CENTROID_DEVICE void operator()(int64_t i) const {
    const int64_t row = i / keep, from = position[row * n + i % keep];
    values[i] = x[row * n + from];
    index[i] = from;
  }
};

int power_of_two(int64_t n) { return static_cast<int>(std::bit_ceil(static_cast<uint64_t>(n))); }

/// The first values.size(1) elements of each row in order.
template <typename T>
void sort_of(const Tensor& x, bool descending, const Tensor& values, const Tensor& index) {
  using K = Key<T>;
  const int64_t rows = x.size(0), n = x.size(1), keep = values.size(1);
  const T* px = x.data<T>();
  if (n <= kTile) {
    const int width = power_of_two(n), count = std::max(width, kMinTile);
    launch(sort_rows_kernel<T>, static_cast<unsigned>(div_up(rows, count / width)), kThreads,
           SharedPairs<K>::bytes(count), px, rows, static_cast<int>(n), descending, count, width,
           static_cast<int>(keep), values.data<T>(), index.data<int64_t>());
    return;
  }
  const PairBuffers<K> buffers(rows * n, x.device());
  const Pairs<K> pairs = buffers.at(0);
  for_each(rows * n, MakePairs<T>{px, n, descending, pairs});
  const Pairs<K> sorted = radix_sort(rows, n, 8 * sizeof(T), pairs, buffers.at(1), x.device());
  for_each(rows * keep,
           WriteRows<T>{px, sorted.position, n, keep, values.data<T>(), index.data<int64_t>()});
}

template <typename T>
void topk_of(const Tensor& x, const Tensor& values, const Tensor& index) {
  const int64_t rows = x.size(0), n = x.size(1), k = values.size(1);
  if (n <= kShort || k > kTile || n > INT32_MAX) return sort_of<T>(x, true, values, index);
  const int width = power_of_two(k);
  launch(select_kernel<T>, static_cast<unsigned>(rows), n > kLong ? kManyThreads : kThreads,
         SharedPairs<Key<T>>::bytes(width), static_cast<const T*>(x.data<T>()), n,
         static_cast<int>(k), width, values.data<T>(), index.data<int64_t>());
}

}  // namespace

void sort(const Tensor& x, bool descending, const Tensor& values, const Tensor& index) {
  if (x.numel() == 0) return;
  dispatch_numeric(x.dtype(), "sort",
                   [&]<typename T>() { sort_of<T>(x, descending, values, index); });
}

void topk(const Tensor& x, const Tensor& values, const Tensor& index) {
  if (values.numel() == 0) return;
  dispatch_numeric(x.dtype(), "topk", [&]<typename T>() { topk_of<T>(x, values, index); });
}

}  // namespace centroid::cuda
