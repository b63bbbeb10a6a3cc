#pragma once
// The largest k of a stream of scores, for many rows at once.
#include <algorithm>
#include <vector>

#include "tensor/cpu/attention/block.h"

namespace centroid::cpu {

/// Keeps the k best (score, key) of each of N rows; a tie goes to the lower key. Scores arrive in
/// order of the keys. A score that does not beat its row's k-th best so far is dismissed by one
/// comparison per vector of rows; the others collect until a row's list is full and is cut to k.
template <typename T, int64_t N>
class BestKeys {
 public:
  explicit BestKeys(int64_t k)
      : k_(k), capacity_(2 * k + 16), lists_(k > 0 ? N * capacity_ : 0), count_(N, 0) {
    std::fill_n(least_, N, -std::numeric_limits<T>::infinity());
  }

  /// scores (n, N) of the keys s .. s + n, for the first `rows` rows; -inf is never kept.
  void offer(int64_t s, int64_t n, int64_t rows, const T* scores) {
    for (int64_t i = 0; i < rows; i += kLanes<T>) {
      auto least = simd::load(least_ + i);
      for (int64_t j = 0; j < n; ++j) {
        const auto above = simd::load(scores + j * N + i) > least;
        uint64_t hits = simd::mask_bits(above);
        if (!hits) [[likely]]
          continue;
        for (; hits; hits &= hits - 1) {
          const int64_t row = i + __builtin_ctzll(hits);
          if (row < rows) add(row, scores[j * N + row], static_cast<int32_t>(s + j));
        }
        least = simd::load(least_ + i);
      }
    }
  }

  /// The best keys of `row` in descending order of score, missing ones as -inf and -1; scores are
  /// multiplied by `unit`.
  void write(int64_t row, T unit, T* scores, int32_t* keys) {
    Candidate* list = lists_.data() + row * capacity_;
    const int64_t found = std::min<int64_t>(count_[row], k_);
    std::partial_sort(list, list + found, list + count_[row], better);
    for (int64_t i = 0; i < k_; ++i) {
      scores[i] = i < found ? list[i].score * unit : -std::numeric_limits<T>::infinity();
      keys[i] = i < found ? list[i].key : -1;
    }
  }

 private:
  struct Candidate {
    T score;
    int32_t key;
  };
  static bool better(const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.key < b.key);
  }

  void add(int64_t row, T score, int32_t key) {
    Candidate* list = lists_.data() + row * capacity_;
    list[count_[row]++] = {score, key};
    if (count_[row] < capacity_) return;
    std::nth_element(list, list + k_ - 1, list + capacity_, better);
    count_[row] = static_cast<int32_t>(k_);
    least_[row] = list[k_ - 1].score;
  }

  int64_t k_, capacity_;
  std::vector<Candidate> lists_;
  std::vector<int32_t> count_;
  alignas(64) T least_[N];  // a later key must score above it
};

}  // namespace centroid::cpu
