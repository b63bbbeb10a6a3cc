#pragma once
// Which keys the queries of a chunk see, and which of their weights dropout keeps.
#include <algorithm>
#include <vector>

#include "tensor/attention.h"
#include "tensor/cpu/attention/block.h"
#include "tensor/kernels.h"

namespace centroid::cpu {

/// Rows of one (item, head) of a (B, H, L, E) tensor with unit stride in E, or numbers of a (B, H,
/// L) one.
template <typename T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;
  Rows() = default;
  Rows(const Tensor& x, int64_t bh) {
    if (!x.defined()) return;
    const int64_t heads = x.size(1);
    data = x.data<std::remove_const_t<T>>() + bh / heads * x.strides()[0] +
           bh % heads * x.strides()[1];
    stride = x.strides()[2];
  }
  T* operator[](int64_t row) const { return data + row * stride; }

  /// n elements of the rows [first, last), or of those on a list: to be read, or written unless T
  /// is const.
  Ahead ahead(int64_t first, int64_t last, int64_t n) const {
    if (!data || first >= last) return {};
    return {(*this)[first], stride * kSize, n * kSize, nullptr, last - first, !std::is_const_v<T>};
  }
  Ahead ahead(const int32_t* list, int64_t count, int64_t n) const {
    return {data, stride * kSize, n * kSize, list, count, !std::is_const_v<T>};
  }

 private:
  static constexpr int64_t kSize = sizeof(T);
};

/// Those of every (item, head): to look them up for each row costs more than a row's arithmetic.
template <typename T>
std::vector<Rows<T>> all_rows(const Tensor& x) {
  std::vector<Rows<T>> rows;
  for (int64_t bh = 0; bh < x.size(0) * x.size(1); ++bh) rows.emplace_back(x, bh);
  return rows;
}

/// Asks for a row of n elements before it is needed: the rows of a group are all over memory.
template <bool kWrite = false, typename T>
void prefetch_row(const T* row, int64_t n) {
  for (int64_t e = 0; e < n; e += simd::kLineBytes / static_cast<int64_t>(sizeof(T))) {
    __builtin_prefetch(row + e, kWrite);
  }
}

/// Queries per chunk where each has a window of keys: the chunk sees the union of the windows.
inline constexpr int64_t kWindowQueries = 32;

/// The key ranges [begin, end) of the queries l0 .. l0 + n of item `b`, and what they have in
/// common.
template <typename T, int64_t N>
struct Visible {
  alignas(64) IntOf<T> begin[N], end[N];
  int64_t first = 0, last = 0;          ///< no query sees a key outside [first, last)
  int64_t all_first = 0, all_last = 0;  ///< every query sees all keys in [all_first, all_last)

  Visible(const KeyMask& mask, int64_t b, int64_t l0, int64_t n, int64_t keys) {
    const int64_t q_valid = mask.q_lengths.defined() ? mask.q_lengths.data<int64_t>()[b] : l0 + n;
    const int64_t k_valid = mask.k_lengths.defined() ? mask.k_lengths.data<int64_t>()[b] : keys;
    first = all_last = k_valid;
    for (int64_t i = 0; i < N; ++i) {
      int64_t from = 0, to = k_valid;
      if (i < n) {
        if (mask.begin.defined()) from = std::max(0, mask.begin.data<int32_t>()[l0 + i]);
        if (mask.end.defined()) to = std::min<int64_t>(to, mask.end.data<int32_t>()[l0 + i]);
        if (l0 + i >= q_valid || to <= from) from = to = 0;
        all_first = std::max(all_first, from);
        all_last = std::min(all_last, to);
        if (from < to) {
          first = std::min(first, from);
          last = std::max(last, to);
        }
      }
      begin[i] = static_cast<IntOf<T>>(from);
      end[i] = static_cast<IntOf<T>>(to);
    }
  }

  bool sees_all(int64_t s, int64_t n) const { return s >= all_first && s + n <= all_last; }

  /// scores (n keys from s, N queries) = -inf where the key is not seen, for the first `queries`.
  void hide(int64_t s, int64_t n, int64_t queries, T* scores) const {
    using Vec = simd::Vector<T>;
    const Vec hidden = Vec{} - std::numeric_limits<T>::infinity();
    for (int64_t i = 0; i < queries; i += kLanes<T>) {
      const auto from = simd::load(begin + i), to = simd::load(end + i);
      for (int64_t j = 0; j < n; ++j) {
        const IntOf<T> key = static_cast<IntOf<T>>(s + j);
        T* at = scores + j * N + i;
        simd::store(at, (from <= key) & (to > key) ? simd::load(at) : hidden);
      }
    }
  }
};

/// Multiplies weights (n keys from s, N queries from `row` = (b * H + h) * L + l) by their dropout
/// mask, for the first `queries`. `s` is a multiple of 8: one Philox block decides about eight
/// keys.
template <typename T, int64_t N>
void drop(const WeightDropout& dropout, int64_t keys, int64_t row, int64_t queries, int64_t s,
          int64_t n, const T* weights, T* dropped) {
  const uint32_t threshold = static_cast<uint32_t>(dropout.p * 65536 + 0.5);
  const T scale = static_cast<T>(65536.0 / (65536.0 - threshold));
  const uint64_t lanes = (keys + 7) / 8;
  for (int64_t j = 0; j < n; j += 8) {
    uint32_t word[4][N];
    for (int64_t i = 0; i < queries; ++i) {
      const PhiloxBlock block =
          philox(dropout.state.key, dropout.state.counter, (row + i) * lanes + (s + j) / 8);
      for (int w = 0; w < 4; ++w) word[w][i] = block[w];
    }
    for (int64_t c = 0; c < std::min<int64_t>(8, n - j); ++c) {
      const T* from = weights + (j + c) * N;
      T* to = dropped + (j + c) * N;
      for (int64_t i = 0; i < queries; ++i) {
        const uint32_t draw = word[c / 2][i] >> (c % 2 * 16) & 0xffff;
        to[i] = draw >= threshold ? from[i] * scale : T(0);
      }
    }
  }
}

}  // namespace centroid::cpu
