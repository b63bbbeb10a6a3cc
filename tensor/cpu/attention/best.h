#pragma once
// The largest k of a stream of scores, for many rows at once.
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/cpu/attention/block.h"

namespace centroid::cpu {

/// An integer that is larger for a larger score. NaN has no place in the order.
template <typename T>
IntOf<T> ordered(T score) {
  const auto bits = __builtin_bit_cast(IntOf<T>, score + T(0));
  return bits ^ (bits >> (8 * sizeof(T) - 1) & std::numeric_limits<IntOf<T>>::max());
}
/// Its inverse.
template <typename T>
T from_ordered(IntOf<T> x) {
  return __builtin_bit_cast(T,
                            x ^ (x >> (8 * sizeof(T) - 1) & std::numeric_limits<IntOf<T>>::max()));
}

/// Keeps the k best (score, key) of each of N rows; a tie goes to the lower key. Scores arrive in
/// order of the keys. A score that does not beat its row's k-th best so far is dismissed by one
/// comparison per vector of rows; the others collect until a row's list is full and is cut to k.
/// Lists stay in order of the keys. Cutting and sorting count instead of branching: comparisons of
/// random scores are mispredicted half of the time.
template <typename T, int64_t N>
class BestKeys {
 public:
  explicit BestKeys(int64_t k)
      : k_(k),
        capacity_(padded<T>(std::max<int64_t>(4 * k, 128) + 16)),
        scores_(k > 0 ? N * capacity_ : 0),
        keys_(k > 0 ? N * capacity_ : 0),
        count_(N, 0) {
    std::fill_n(least_, N, -std::numeric_limits<T>::infinity());
  }

  /// scores (n, N) of the keys s .. s + n, for the first `rows` rows; -inf is never kept, and
  /// there is none if `all_seen`.
  void offer(int64_t s, int64_t n, int64_t rows, const T* scores, bool all_seen) {
    if (all_seen && count_[0] == 0 && n > k_ && padded<T>(n) <= capacity_) {
      return start(s, n, rows, scores);
    }
    for (int64_t i = 0; i < rows; i += kLanes<T>) {
      auto least = simd::load(least_ + i);
      const uint64_t real = rows - i >= kLanes<T> ? ~uint64_t{0} : (uint64_t{1} << (rows - i)) - 1;
      for (int64_t j = 0; j < n; ++j) {
        const auto above = simd::load(scores + j * N + i) > least;
        uint64_t hits = simd::mask_bits(above) & real;
        if (!hits) [[likely]]
          continue;
        if (add(static_cast<int32_t>(s + j), hits, scores + j * N + i, i)) {
          least = simd::load(least_ + i);
        }
      }
    }
  }

  /// The best keys of `row` in descending order of score, missing ones as -inf and -1; scores are
  /// multiplied by `unit`.
  void write(int64_t row, T unit, T* scores, int32_t* keys) {
    if (count_[row] > k_) cut(row);
    const int64_t n = count_[row];
    const T* list = scores_.get() + row * capacity_;
    std::fill(scores + n, scores + k_, -std::numeric_limits<T>::infinity());
    std::fill(keys + n, keys + k_, -1);
    rank_.resize(n);
    sort_ranks(list, n);
    for (int64_t i = 0; i < n; ++i) {
      scores[rank_[i]] = list[i] * unit;
      keys[rank_[i]] = static_cast<int32_t>(keys_[row * capacity_ + i]);
    }
  }

 private:
  using Int = IntOf<T>;
  using Wide = std::make_unsigned_t<Int>;

  // The first tile goes to all lists as it is: they are its columns.
  void start(int64_t s, int64_t n, int64_t rows, const T* scores) {
    transpose<T>(scores, N, n, rows, scores_.get(), capacity_);
    for (int64_t row = 0; row < rows; ++row) {
      std::iota(keys_.get() + row * capacity_, keys_.get() + row * capacity_ + n,
                static_cast<Int>(s));
      count_[row] = static_cast<int32_t>(n);
      cut(row);
    }
  }

  // Appends a key to the lists of the rows `first` + hits; whether one was full and has been cut.
  [[gnu::noinline]] bool add(int32_t key, uint64_t hits, const T* scores, int64_t first) {
    bool full = false;
    for (; hits; hits &= hits - 1) {
      const int64_t lane = __builtin_ctzll(hits), row = first + lane;
      const int64_t at = row * capacity_ + count_[row]++;
      scores_[at] = scores[lane];
      keys_[at] = key;
      if (count_[row] == capacity_) cut(row), full = true;
    }
    return full;
  }

  static int64_t count_from(const T* list, int64_t n, T least) {
    Int count = 0;
    for (int64_t i = 0; i < n; ++i) count += list[i] >= least ? 1 : 0;
    return count;
  }

  // Keeps the k best: those from the largest value up that k entries reach, of entries equal to it
  // the first. The value is found by bisection of the order of all values.
  [[gnu::noinline]] void cut(int64_t row) {
    T* list = scores_.get() + row * capacity_;
    Int* keys = keys_.get() + row * capacity_;
    const int64_t n = count_[row];
    T lowest = list[0], highest = list[0];
#pragma omp simd reduction(min : lowest) reduction(max : highest)
    for (int64_t i = 0; i < n; ++i) {
      lowest = list[i] < lowest ? list[i] : lowest;
      highest = list[i] > highest ? list[i] : highest;
    }
    Int low = ordered(lowest), high = ordered(highest);
    int64_t reached = n;  // entries from `low` up
    for (int turn = 0; low < high && reached != k_; ++turn) {
      // Halving the values is fast where they are spread out, halving the integers always ends.
      const Int half = low + static_cast<Int>((static_cast<Wide>(high) - low) / 2) + 1;
      const T value = from_ordered<T>(low) / 2 + from_ordered<T>(high) / 2;
      const Int middle = turn % 4 == 3 ? half : std::clamp<Int>(ordered(value), low + 1, high);
      const int64_t count = count_from(list, n, from_ordered<T>(middle));
      if (count >= k_) {
        low = middle;
        reached = count;
      } else {
        high = middle - 1;
      }
    }
    const T bound = from_ordered<T>(low);
    least_[row] = reached == k_ ? keep_from(list, keys, n, bound) : keep_ties(list, keys, n, bound);
    count_[row] = static_cast<int32_t>(k_);
  }

  // Moves the entries from `bound` up together; returns the least of them.
  static T keep_from(T* list, Int* keys, int64_t n, T bound) {
    using Vec = simd::Vector<T>;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i += kLanes<T>) {
      const Vec scores = simd::load(list + i);
      const auto key = simd::load(keys + i);
      const auto above = scores >= bound;
      uint64_t mask = simd::mask_bits(above);
      if (n - i < kLanes<T>) mask &= (uint64_t{1} << (n - i)) - 1;
      // What is written here has been read: kept <= i.
      simd::store(list + kept, simd::compress(scores, mask));
      simd::store(keys + kept, simd::compress(key, mask));
      kept += __builtin_popcountll(mask);
    }
    T lowest = list[0];
#pragma omp simd reduction(min : lowest)
    for (int64_t i = 1; i < kept; ++i) lowest = list[i] < lowest ? list[i] : lowest;
    return lowest;
  }

  // The same where several entries are equal to `bound` and not all of them can stay: the first do.
  T keep_ties(T* list, Int* keys, int64_t n, T bound) const {
    int64_t equal = k_, kept = 0;
    for (int64_t i = 0; i < n; ++i) equal -= list[i] > bound;
    for (int64_t i = 0; i < n; ++i) {
      const bool keep = list[i] > bound || (list[i] == bound && equal-- > 0);
      list[kept] = list[i];
      keys[kept] = keys[i];
      kept += keep;
    }
    return bound;
  }

  // rank_[i] = how many entries come before entry i.
  void sort_ranks(const T* list, int64_t n) {
    constexpr int64_t kFew = 128;
    if (n > kFew) {
      std::vector<int32_t> order(n);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return list[a] > list[b]; });
      for (int64_t i = 0; i < n; ++i) rank_[order[i]] = static_cast<int32_t>(i);
      return;
    }
    for (int64_t i = 0; i < n; ++i) {
      const T score = list[i];
      Int before = 0;
      for (int64_t j = 0; j < i; ++j) before += list[j] >= score ? 1 : 0;
      for (int64_t j = i + 1; j < n; ++j) before += list[j] > score ? 1 : 0;
      rank_[i] = static_cast<int32_t>(before);
    }
  }

  int64_t k_, capacity_;
  Scratch<T> scores_;
  Scratch<Int> keys_;
  std::vector<int32_t> count_, rank_;
  alignas(64) T least_[N];  // a later key must score above it
};

}  // namespace centroid::cpu
