// Indexing. gather, index_select and one_hot compute an element (or 16 bytes of a row) per thread.
//
// scatter_add and index_add add in order of i, without atomics: the destinations are sorted stably,
// together with their positions, and the thread that finds itself at the first of a run of equal
// destinations adds up the run. Those that share a row work on neighbouring columns, so that x and
// y are read in order.
//
// Indices out of range are reported by check_index; the kernels here skip them.
#include <bit>

#include "cuda/radix.cuh"
#include "tensor/math.h"

namespace centroid::cuda {
namespace {

template <typename I>
CENTROID_DEVICE bool inside(I index, int64_t n) {
  return static_cast<uint64_t>(int64_t{index}) < static_cast<uint64_t>(n);
}

template <typename I>
struct CheckIndex {
  const I* index;
  int64_t n;
  unsigned long long op;
  Fault* fault;
  CENTROID_DEVICE void operator()(int64_t i) const {
    if (!inside(index[i], n)) record_fault(fault, op, index[i], i, n);
  }
};

// y (A, m, C)
template <typename T, typename I>
struct Gather {
  const T* x;
  const I* index;
  T* y;
  int64_t n, m, C;
  CENTROID_DEVICE void operator()(int64_t at) const {
    const int64_t a = at / (m * C), c = at % C;
    const int64_t j = index[at];
    y[at] = inside(j, n) ? x[(a * n + j) * C + c] : T{};
  }
};

template <typename T, typename I>
struct SelectRows {
  const T* x;
  const I* index;
  T* y;
  int64_t n, m, C;
  CENTROID_DEVICE void operator()(int64_t at) const {
    const int64_t row = at / C, c = at - row * C, a = row / m;
    const int64_t j = index[row - a * m];
    y[at] = inside(j, n) ? x[(a * n + j) * C + c] : T{};
  }
};

template <typename T, typename I>
struct OneHot {
  const I* index;
  T* y;
  int64_t V;
  T one;
  CENTROID_DEVICE void operator()(int64_t at) const {
    const int64_t r = at / V;
    y[at] = index[r] == at - r * V ? one : T{};
  }
};

/// Where x[a, i, c], element `at`, goes, as (a C + c) n + j; `end`, the largest key, if nowhere.
template <typename I, typename K>
struct ScatterKeys {
  const I* index;
  int64_t n, m, C;
  K end;
  Pairs<K> pairs;
  CENTROID_DEVICE void operator()(int64_t at) const {
    const int64_t a = at / (m * C), c = at % C, j = index[at];
    pairs.key[at] = inside(j, n) ? static_cast<K>((a * C + c) * n + j) : end;
    pairs.position[at] = static_cast<uint32_t>(at);
  }
};

template <typename I>
struct RowKeys {
  const I* index;
  int64_t n;
  Pairs<uint32_t> pairs;
  CENTROID_DEVICE void operator()(int64_t i) const {
    pairs.key[i] = static_cast<uint32_t>(inside(index[i], n) ? int64_t{index[i]} : n);
    pairs.position[i] = static_cast<uint32_t>(i);
  }
};

/// The end of the run of equal keys that begins at `i`; 0 when none begins there.
template <typename K>
CENTROID_DEVICE int64_t end_of_run(const K* keys, int64_t i, int64_t count) {
  const K key = keys[i];
  if (i > 0 && keys[i - 1] == key) return 0;
  if (i + 1 == count || keys[i + 1] != key) return i + 1;
  int64_t low = i + 1, high = count;  // keys[low] is equal, keys[high] larger
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (keys[middle] == key ? low : high) = middle;
  }
  return high;
}

template <typename T, typename K>
struct AddScattered {
  Pairs<K> pairs;
  int64_t count, n, C;
  K end;
  const T* x;
  T* y;
  CENTROID_DEVICE void operator()(int64_t i) const {
    const K key = pairs.key[i];
    const int64_t last = key < end ? end_of_run(pairs.key, i, count) : 0;
    if (last == 0) return;
    const int64_t column = static_cast<int64_t>(key) / n, j = static_cast<int64_t>(key) % n;
    T* to = y + (column / C * n + j) * C + column % C;
    T sum = *to;
    for (int64_t k = i; k < last; ++k) sum = math::add(sum, x[pairs.position[k]]);
    *to = sum;
  }
};

/// Element (a, place among the sorted destinations, c).
template <typename T>
struct AddRows {
  Pairs<uint32_t> pairs;
  int64_t m, n, C;
  const T* x;
  T* y;
  CENTROID_DEVICE void operator()(int64_t at) const {
    const int64_t row = at / C, c = at - row * C, a = row / m, i = row - a * m;
    const int64_t j = pairs.key[i];
    const int64_t last = j < n ? end_of_run(pairs.key, i, m) : 0;
    if (last == 0) return;
    const T* from = x + a * m * C + c;
    T* to = y + (a * n + j) * C + c;
    T sum = *to;
    for (int64_t k = i; k < last; ++k) sum = math::add(sum, from[pairs.position[k] * C]);
    *to = sum;
  }
};

int bits_of_key(int64_t largest) { return std::bit_width(static_cast<uint64_t>(largest)); }

template <typename T, typename K>
void scatter_by_key(const Tensor& index, const Tensor& x, const Tensor& y) {
  const int64_t n = y.size(1), C = y.size(2), m = x.size(1), count = x.numel();
  const PairBuffers<K> buffers(count, x.device());
  const K end = static_cast<K>(y.numel());
  dispatch_index(index.dtype(), "scatter_add", [&]<typename I>() {
    for_each(count, ScatterKeys<I, K>{index.data<I>(), n, m, C, end, buffers.at(0)});
  });
  const Pairs<K> sorted =
      radix_sort(1, count, bits_of_key(y.numel()), buffers.at(0), buffers.at(1), x.device());
  for_each(count, AddScattered<T, K>{sorted, count, n, C, end, x.data<T>(), y.data<T>()});
}

template <typename T>
void select_rows(const Tensor& x, const Tensor& index, const Tensor& y, int64_t C) {
  const int64_t A = y.size(0), n = x.size(1), m = y.size(1);
  dispatch_index(index.dtype(), "index_select", [&]<typename I>() {
    for_each(A * m * C, SelectRows<T, I>{reinterpret_cast<const T*>(x.bytes()), index.data<I>(),
                                         reinterpret_cast<T*>(y.bytes()), n, m, C});
  });
}

}  // namespace

void gather(const Tensor& x, const Tensor& index, const Tensor& y) {
  dispatch_index(index.dtype(), "gather", [&]<typename I>() {
    dispatch_bytes(y.dtype(), [&]<typename T>() {
      for_each(y.numel(),
               Gather<T, I>{reinterpret_cast<const T*>(x.bytes()), index.data<I>(),
                            reinterpret_cast<T*>(y.bytes()), x.size(1), y.size(1), y.size(2)});
    });
  });
}

void index_select(const Tensor& x, const Tensor& index, const Tensor& y) {
  const int64_t bytes = y.size(2) * static_cast<int64_t>(size_of(y.dtype()));
  const auto aligned = [](const Tensor& t) {
    return reinterpret_cast<uintptr_t>(t.bytes()) % alignof(int4) == 0;
  };
  if (bytes % sizeof(int4) == 0 && aligned(x) && aligned(y)) {
    return select_rows<int4>(x, index, y, bytes / static_cast<int64_t>(sizeof(int4)));
  }
  dispatch_bytes(y.dtype(), [&]<typename T>() { select_rows<T>(x, index, y, y.size(2)); });
}

void scatter_add(const Tensor& index, const Tensor& x, const Tensor& y) {
  if (x.numel() == 0 || y.numel() == 0) return;
  dispatch_numeric(y.dtype(), "scatter_add", [&]<typename T>() {
    if (y.numel() < UINT32_MAX) {
      scatter_by_key<T, uint32_t>(index, x, y);
    } else {
      scatter_by_key<T, uint64_t>(index, x, y);
    }
  });
}

void index_add(const Tensor& index, const Tensor& x, const Tensor& y) {
  const int64_t n = y.size(1), C = y.size(2), m = x.size(1);
  if (x.numel() == 0 || n == 0) return;
  CENTROID_CHECK(n < UINT32_MAX, "index_add: at most 2^32 - 2 rows on CUDA, got ", n);
  const PairBuffers<uint32_t> buffers(m, x.device());
  dispatch_index(index.dtype(), "index_add", [&]<typename I>() {
    for_each(m, RowKeys<I>{index.data<I>(), n, buffers.at(0)});
  });
  const Pairs<uint32_t> sorted =
      radix_sort(1, m, bits_of_key(n), buffers.at(0), buffers.at(1), x.device());
  dispatch_numeric(y.dtype(), "index_add", [&]<typename T>() {
    for_each(x.numel(), AddRows<T>{sorted, m, n, C, x.data<T>(), y.data<T>()});
  });
}

void one_hot(const Tensor& index, const Tensor& y) {
  dispatch_index(index.dtype(), "one_hot", [&]<typename I>() {
    // The bits of 1, as only bytes are written.
    dispatch_numeric(y.dtype(), "one_hot", [&]<typename N>() {
      dispatch_bytes(y.dtype(), [&]<typename T>() {
        if constexpr (sizeof(T) == sizeof(N)) {
          for_each(y.numel(), OneHot<T, I>{index.data<I>(), reinterpret_cast<T*>(y.bytes()),
                                           y.size(1), std::bit_cast<T>(N(1))});
        }
      });
    });
  });
}

void check_index(const char* op, const Tensor& index, int64_t n, const Tensor&) {
  dispatch_index(index.dtype(), "check_index", [&]<typename I>() {
    for_each(index.numel(),
             CheckIndex<I>{index.data<I>(), n, reinterpret_cast<unsigned long long>(op),
                           fault_record()});
  });
}

}  // namespace centroid::cuda
