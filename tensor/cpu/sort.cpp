// Sorting and selection of rows. Each element becomes one unsigned integer: its value, mapped so
// that unsigned order is the order wanted, above its position. Such integers are all different, so
// any sorting or selecting of them is stable, and comparing is one instruction.
#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kGrain = 8192;  // elements in the rows of a chunk

template <typename T>
using Key = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
template <typename K>
using Packed = std::conditional_t<sizeof(K) == 8, unsigned __int128, uint64_t>;

// The value as an unsigned integer of the same order. Floats: the bits of positive numbers ascend,
// those of negative ones descend and are inverted; -0 equals 0 and any NaN is the largest.
template <typename T>
Key<T> key_of(T x) {
  using K = Key<T>;
  constexpr K kSign = K{1} << (8 * sizeof(K) - 1);
  if constexpr (std::is_floating_point_v<T>) {
    const K bits = std::bit_cast<K>(x + T(0));  // -0 + 0 is 0
    const K flip = bits & kSign ? ~K{0} : kSign;
    return x != x ? ~K{0} : bits ^ flip;
  } else if constexpr (std::is_signed_v<T>) {
    return static_cast<K>(x) ^ kSign;
  } else {
    return x;
  }
}

template <typename K>
Packed<K> pack(K key, K position) {
  return Packed<K>{key} << (8 * sizeof(K)) | position;
}

// Keeps the k best of the elements seen so far, and some that came later and may be better: when
// the buffer is full, a selection finds the k best again and raises the bar for newcomers. Few of
// n >> k elements pass the bar, so the cost is that of comparing whole blocks with it.
template <typename T>
class TopSelector {
  using K = Key<T>;

 public:
  explicit TopSelector(int64_t k) : k_(k), kept_(2 * k + 2 * kBlock) {}

  void run(const T* x, int64_t n, T* values, int64_t* index) {
    size_ = 0;
    bar_ = 0;
    int64_t begin = 0;
    for (; begin + kBlock <= n; begin += kBlock) scan<kBlock>(x, begin);
    for (; begin < n; ++begin) scan<1>(x, begin);
    select();
    std::sort(kept_.begin(), kept_.begin() + k_, std::greater<>());
    for (int64_t i = 0; i < k_; ++i) {
      // Positions are stored inverted: of equal values the earlier is the larger.
      index[i] = static_cast<K>(~kept_[i]);
      values[i] = x[index[i]];
    }
  }

 private:
  static constexpr int64_t kBlock = 64;

  // Adds those of `count` elements that pass the bar.
  template <int64_t count>
  void scan(const T* x, int64_t begin) {
    K keys[count];
    for (int64_t i = 0; i < count; ++i) keys[i] = key_of(x[begin + i]);
    K highest = keys[0];
    for (int64_t i = 1; i < count; ++i) highest = keys[i] > highest ? keys[i] : highest;
    if (highest < bar_) return;
    // Without a branch: which elements pass is not predictable.
    for (int64_t i = 0; i < count; ++i) {
      kept_[size_] = pack<K>(keys[i], static_cast<K>(~(begin + i)));
      size_ += keys[i] >= bar_;
    }
    if (size_ + kBlock > static_cast<int64_t>(kept_.size())) select();
  }

  // Leaves the k best in front. An equal key met later has the higher position and loses, so from
  // now on only higher keys pass; the highest key of all cannot be raised, and its equals lose
  // later.
  void select() {
    std::nth_element(kept_.begin(), kept_.begin() + k_ - 1, kept_.begin() + size_,
                     std::greater<>());
    const K worst = static_cast<K>(kept_[k_ - 1] >> (8 * sizeof(K)));
    bar_ = worst == ~K{0} ? worst : worst + 1;
    size_ = k_;
  }

  int64_t k_, size_ = 0;
  K bar_ = 0;  // lowest key that may still be among the k best
  std::vector<Packed<K>> kept_;
};

// Calls f(x, values, index) for each row, f made for each chunk of rows by `make<T>()`.
template <typename F>
void for_each_row(const char* op, const Tensor& x, const Tensor& values, const Tensor& index,
                  const F& make) {
  const int64_t R = x.size(0), n = x.size(1), k = values.size(1);
  if (R * k == 0) return;
  dispatch_numeric(x.dtype(), op, [&]<typename T>() {
    const T* px = x.data<T>();
    T* pv = values.data<T>();
    int64_t* pi = index.data<int64_t>();
    parallel_for(0, R, kGrain / n, [&](int64_t begin, int64_t end) {
      auto f = make.template operator()<T>();
      for (int64_t r = begin; r < end; ++r) f(px + r * n, pv + r * k, pi + r * k);
    });
  });
}

}  // namespace

void sort(const Tensor& x, bool descending, const Tensor& values, const Tensor& index) {
  const int64_t n = x.size(1);
  for_each_row("sort", x, values, index, [=]<typename T>() {
    using K = Key<T>;
    return [=, order = std::vector<Packed<K>>(n)](const T* row, T* sorted,
                                                  int64_t* positions) mutable {
      for (int64_t i = 0; i < n; ++i) {
        const K key = key_of(row[i]);
        order[i] = pack<K>(descending ? static_cast<K>(~key) : key, static_cast<K>(i));
      }
      std::sort(order.begin(), order.end());
      for (int64_t i = 0; i < n; ++i) {
        positions[i] = static_cast<K>(order[i]);
        sorted[i] = row[positions[i]];
      }
    };
  });
}

void topk(const Tensor& x, const Tensor& values, const Tensor& index) {
  for_each_row("topk", x, values, index, [n = x.size(1), k = values.size(1)]<typename T>() {
    return [n, selector = TopSelector<T>(k)](const T* row, T* best, int64_t* positions) mutable {
      selector.run(row, n, best, positions);
    };
  });
}

}  // namespace centroid::cpu
