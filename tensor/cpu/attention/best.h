#pragma once
// The largest k of a stream of scores, for many rows at once.
#include <algorithm>
#include <functional>
#include <vector>

#include "tensor/cpu/attention/block.h"

namespace centroid::cpu {

/// A score and its key as one unsigned integer: larger for a larger score, and among equal scores
/// for the lower key.
template <typename T>
struct Ranked {
  using Word = std::conditional_t<sizeof(T) == 4, uint64_t, unsigned __int128>;
  using Bits = std::make_unsigned_t<IntOf<T>>;
  static constexpr int kBits = 8 * sizeof(T);
  static constexpr Bits kSign = Bits{1} << (kBits - 1);

  static Word pack(T score, int32_t key) {
    const Bits bits = __builtin_bit_cast(Bits, score + T(0));  // -0 counts as 0
    const Bits ordered = bits & kSign ? ~bits : bits | kSign;
    return static_cast<Word>(ordered) << 32 | ~static_cast<uint32_t>(key);
  }
  static T score(Word word) {
    const Bits ordered = static_cast<Bits>(word >> 32);
    return __builtin_bit_cast(T, ordered & kSign ? ordered & ~kSign : ~ordered);
  }
  static int32_t key(Word word) { return static_cast<int32_t>(~static_cast<uint32_t>(word)); }
};

/// Keeps the k best (score, key) of each of N rows; a tie goes to the lower key. Scores arrive in
/// order of the keys. A score that does not beat its row's k-th best so far is dismissed by one
/// comparison per vector of rows; the others collect until a row's list is full and is cut to k.
template <typename T, int64_t N>
class BestKeys {
 public:
  explicit BestKeys(int64_t k)
      : k_(k), capacity_(4 * k + 16), lists_(k > 0 ? N * capacity_ : 0), count_(N, 0) {
    std::fill_n(least_, N, -std::numeric_limits<T>::infinity());
  }

  /// scores (n, N) of the keys s .. s + n, for the first `rows` rows; -inf is never kept.
  void offer(int64_t s, int64_t n, int64_t rows, const T* scores) {
    for (int64_t i = 0; i < rows; i += kLanes<T>) {
      auto least = simd::load(least_ + i);
      const uint64_t real = rows - i >= 64 ? ~uint64_t{0} : (uint64_t{1} << (rows - i)) - 1;
      for (int64_t j = 0; j < n; ++j) {
        const auto above = simd::load(scores + j * N + i) > least;
        uint64_t hits = simd::mask_bits(above) & real;
        if (!hits) [[likely]]
          continue;
        bool full = false;
        for (; hits; hits &= hits - 1) {
          const int64_t row = i + __builtin_ctzll(hits);
          lists_[row * capacity_ + count_[row]++] =
              Ranked<T>::pack(scores[j * N + row], static_cast<int32_t>(s + j));
          if (count_[row] == capacity_) cut(row), full = true;
        }
        if (full) least = simd::load(least_ + i);
      }
    }
  }

  /// The best keys of `row` in descending order of score, missing ones as -inf and -1; scores are
  /// multiplied by `unit`.
  void write(int64_t row, T unit, T* scores, int32_t* keys) {
    if (count_[row] > k_) cut(row);
    Word* list = lists_.data() + row * capacity_;
    std::sort(list, list + count_[row], std::greater<Word>());
    for (int64_t i = 0; i < k_; ++i) {
      const bool found = i < count_[row];
      scores[i] = found ? Ranked<T>::score(list[i]) * unit : -std::numeric_limits<T>::infinity();
      keys[i] = found ? Ranked<T>::key(list[i]) : -1;
    }
  }

 private:
  using Word = typename Ranked<T>::Word;

  void cut(int64_t row) {
    Word* list = lists_.data() + row * capacity_;
    std::nth_element(list, list + k_ - 1, list + count_[row], std::greater<Word>());
    count_[row] = static_cast<int32_t>(k_);
    least_[row] = Ranked<T>::score(list[k_ - 1]);
  }

  int64_t k_, capacity_;
  std::vector<Word> lists_;
  std::vector<int32_t> count_;
  alignas(64) T least_[N];  // a later key must score above it
};

}  // namespace centroid::cpu
