#pragma once
// Kernels over the rows of a matrix (R, n). A functor f(group, r) works on row r with a *group* of
// threads: a warp while a row of f32 fits into its registers (n <= 512), else a block. A group
// reads a row in tiles of kTile elements, kValues per thread, 16 bytes at a time where the rows are
// aligned to them (`wide`) and one element at a time, neighbours by neighbouring threads, where
// they are not. Rows of one tile are read once; only longer ones are read again for every pass.
#include <cmath>
#include <initializer_list>

#include "cuda/reduce.cuh"
#include "tensor/functors.h"

namespace centroid::cuda {

/// The larger number; NaN only when both are.
struct MaxNumber {
  CENTROID_DEVICE float operator()(float a, float b) const { return fmaxf(a, b); }
  CENTROID_DEVICE double operator()(double a, double b) const { return fmax(a, b); }
};

template <typename T>
inline constexpr T kInf = T(INFINITY);

inline constexpr int kRowThreads = 256;  ///< per block of the kernels over rows

template <typename T>
inline constexpr int kWide = 16 / sizeof(T);  ///< elements of a 16-byte access

/// What one thread sees of its group. kStream: rows may be longer than a tile.
template <typename T, int kGroup_, int kVectors, bool kStream_>
struct RowGroup {
  using Value = T;
  static constexpr int kGroup = kGroup_, kGroups = kRowThreads / kGroup;
  static constexpr int kValues = kVectors * kWide<T>, kTile = kGroup * kValues;
  static constexpr bool kStream = kStream_;
  static constexpr int kScratch = 2 * kRowThreads / kWarp;  ///< doubles of shared memory

  struct alignas(16) Vector {
    T v[kWide<T>];
  };

  bool wide;
  int lane;         ///< of this thread in its group
  double* scratch;  ///< used in halves, by turns: a reduction needs one barrier only
  int turn = 0;

  CENTROID_DEVICE RowGroup(bool wide, double* scratch)
      : wide(wide), lane(threadIdx.x % kGroup), scratch(scratch) {}

  /// Where in its tile a lane's value i stands.
  CENTROID_DEVICE int position(int i) const { return position(i, lane); }
  CENTROID_DEVICE int position(int i, int lane) const {
    constexpr int kW = kWide<T>;
    return wide ? (i / kW * kGroup + lane) * kW + i % kW : i * kGroup + lane;
  }

  /// How many of `left` elements, counted from the beginning of a tile, are in it.
  CENTROID_DEVICE static int in_tile(int64_t left) {
    return left < 0 ? 0 : left < kTile ? static_cast<int>(left) : kTile;
  }
  /// Whether rows of n elements are read once.
  CENTROID_HD static bool one_tile(int64_t n) { return !kStream || n <= kTile; }

  /// f(at) for the tiles of a row: at = 0, kTile, ... < n.
  template <typename F>
  CENTROID_DEVICE void each_tile(int64_t n, const F& f) const {
    if constexpr (kStream) {
      for (int64_t at = 0; at < n; at += kTile) f(at);
    } else {
      f(int64_t{0});
    }
  }

  /// v = scale * a tile of x, of which `left` elements are to be seen; `fill` beyond them.
  CENTROID_DEVICE void load(const T* x, int64_t left, T fill, T (&v)[kValues], T scale = 1) const {
    constexpr int kW = kWide<T>;
    const int count = in_tile(left);
    if (wide) {
#pragma unroll
      for (int c = 0; c < kVectors; ++c) {
        const int at = (c * kGroup + lane) * kW;
        Vector read{};
        if (at < count) read = *reinterpret_cast<const Vector*>(x + at);
#pragma unroll
        for (int k = 0; k < kW; ++k) v[c * kW + k] = at + k < count ? scale * read.v[k] : fill;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        const int at = i * kGroup + lane;
        v[i] = at < count ? scale * x[at] : fill;
      }
    }
  }

  /// Writes a tile of y, `left` elements of which are in the row.
  CENTROID_DEVICE void store(T* y, int64_t left, const T (&v)[kValues]) const {
    constexpr int kW = kWide<T>;
    const int count = in_tile(left);
    if (wide) {
#pragma unroll
      for (int c = 0; c < kVectors; ++c) {
        const int at = (c * kGroup + lane) * kW;
        Vector write;
#pragma unroll
        for (int k = 0; k < kW; ++k) write.v[k] = v[c * kW + k];
        if (at < count) *reinterpret_cast<Vector*>(y + at) = write;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        const int at = i * kGroup + lane;
        if (at < count) y[at] = v[i];
      }
    }
  }

  /// A whole row y of n elements gets one value.
  CENTROID_DEVICE void fill(T* y, int64_t n, T value) const {
    T v[kValues];
#pragma unroll
    for (int i = 0; i < kValues; ++i) v[i] = value;
    each_tile(n, [&](int64_t at) { store(y + at, n - at, v); });
  }

  /// Reductions over the group; every thread of it calls them and receives the result.
  template <typename U, typename Op>
  CENTROID_DEVICE U reduce(U value, Op op) {
    if constexpr (kGroup == kWarp) {
      return warp_reduce(value, op);
    } else {
      turn ^= 1;
      return block_reduce<kGroup>(value, op, reinterpret_cast<U*>(scratch + turn * (kScratch / 2)));
    }
  }
  template <typename U>
  CENTROID_DEVICE U sum(U value) {
    return reduce(value, Sum{});
  }
  CENTROID_DEVICE T max(T value) { return reduce(value, MaxNumber{}); }

  /// Orders what the group's threads write before what they then read or write.
  CENTROID_DEVICE void sync() const {
    if constexpr (kGroup == kWarp) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }
};

/// Sum of e^(x - shift) over a row; shift is its largest element, or 0 if that is -inf.
template <typename T>
struct ExpSum {
  T shift, sum;
};

template <typename T>
CENTROID_DEVICE T finite_shift(T most) {
  return most == -kInf<T> ? T(0) : most;
}

/// For scale * x, x of n elements. Rows of one tile stay in v (-inf beyond n); longer ones are read
/// once, each thread rescaling its sum when it meets a larger element. A NaN makes the sum NaN, and
/// so does +inf.
template <typename Group, typename T = typename Group::Value>
CENTROID_DEVICE ExpSum<T> exp_sum(Group& group, const T* x, int64_t n, T scale,
                                  T (&v)[Group::kValues]) {
  constexpr MaxNumber kMax{};
  T most = -kInf<T>, sum = 0;
  if (Group::one_tile(n)) {
    group.load(x, n, -kInf<T>, v, scale);
#pragma unroll
    for (int i = 0; i < Group::kValues; ++i) most = kMax(most, v[i]);
    const T shift = finite_shift(group.max(most));
#pragma unroll
    for (int i = 0; i < Group::kValues; ++i) sum += math::exp(v[i] - shift);
    return {shift, group.sum(sum)};
  }
  for (int64_t at = 0; at < n; at += Group::kTile) {
    group.load(x + at, n - at, -kInf<T>, v, scale);
    const T before = most;
#pragma unroll
    for (int i = 0; i < Group::kValues; ++i) most = kMax(most, v[i]);
    const T shift = finite_shift(most);
    sum *= math::exp(before - shift);
#pragma unroll
    for (int i = 0; i < Group::kValues; ++i) sum += math::exp(v[i] - shift);
  }
  const T shift = finite_shift(group.max(most));
  return {shift, group.sum(sum * math::exp(most - shift))};
}

/// Whether rows of n elements can be read and written 16 bytes at a time; null counts as aligned.
template <typename T>
bool wide_rows(int64_t n, std::initializer_list<const void*> memory) {
  bool wide = n % kWide<T> == 0;
  for (const void* at : memory) wide = wide && reinterpret_cast<uintptr_t>(at) % 16 == 0;
  return wide;
}

/// Calls f.template operator()<Group>() with the group that suits rows of n elements. f64 serves
/// gradient checks: a warp per row of any length.
template <typename T, typename F>
void with_row_group(int64_t n, F&& f) {
  if constexpr (std::is_same_v<T, double>) {
    f.template operator()<RowGroup<T, kWarp, 2, true>>();
  } else if (n <= kWarp * kWide<T>) {
    f.template operator()<RowGroup<T, kWarp, 1, false>>();
  } else if (n <= kWarp * 4 * kWide<T>) {
    f.template operator()<RowGroup<T, kWarp, 4, false>>();
  } else {
    f.template operator()<RowGroup<T, kRowThreads, 4, true>>();
  }
}

namespace detail {

template <typename Group, typename F>
__global__ void __launch_bounds__(kRowThreads, 2) rows_kernel(int64_t rows, bool wide, F f) {
  __shared__ double scratch[Group::kScratch];
  Group group(wide, scratch);
  const int64_t step = int64_t{gridDim.x} * Group::kGroups;
  int64_t r = int64_t{blockIdx.x} * Group::kGroups + threadIdx.x / Group::kGroup;
  for (; r < rows; r += step) f(group, r);
}

}  // namespace detail

/// f(group, r) for all rows of n elements, of which F is a functor.
template <typename T, typename F>
void for_rows(int64_t rows, int64_t n, bool wide, const F& f) {
  with_row_group<T>(n, [&]<typename Group>() {
    launch(detail::rows_kernel<Group, F>, grid_for(div_up(rows, Group::kGroups)), kRowThreads, 0,
           rows, wide, f);
  });
}

}  // namespace centroid::cuda
