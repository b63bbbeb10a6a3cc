// Reductions over the middle of (A, n, C), in pieces (pieces.cuh): every chunk is reduced by a
// group of lanes through shuffles, and the results of the chunks, an (A, chunks, C) in scratch
// memory, are reduced in the same way, until there is one chunk. Sums of f32 are f32 within a lane
// of the first pass and f64 from then on.
#pragma nv_diag_suppress 186  // comparisons of u8 with 0, in templates for all types
#include <cmath>
#include <limits>

#include "cuda/pieces.cuh"
#include "tensor/functors.h"

namespace centroid::cuda {
namespace {

constexpr int64_t kRowChunk = 2048;
constexpr int64_t kPerLane = 8;

/// NaN wins.
struct Min {
  template <typename T>
  CENTROID_DEVICE T operator()(T a, T b) const {
    return a < b || a != a ? a : b;
  }
};

// What changes no result.
template <typename Op, typename T>
struct Identity {
  using Limits = std::numeric_limits<T>;
  static constexpr T kLowest = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  static constexpr T kHighest = Limits::has_infinity ? Limits::infinity() : Limits::max();
  static constexpr T value = std::is_same_v<Op, Sum>   ? T(0)
                             : std::is_same_v<Op, Max> ? kLowest
                                                       : kHighest;
};

template <typename Acc>
struct As {
  template <typename T>
  CENTROID_DEVICE Acc operator()(T x) const {
    return static_cast<Acc>(x);
  }
};

template <typename Op, typename T>
using Wide = std::conditional_t<std::is_same_v<Op, Sum>, WideSum<T>, T>;

// y[piece] = op over the elements of the piece, accumulated as Acc.
template <typename Op, typename Acc, typename T>
__global__ void __launch_bounds__(kThreads) reduce_kernel(const Pieces pieces, const T* x, T* y) {
  for_each_piece(pieces, [&](const Piece& piece) {
    constexpr Acc kIdentity = Identity<Op, Acc>::value;
    const auto result = fold_piece<Acc, Wide<Op, T>>(piece, x, kIdentity, Op{}, As<Acc>{});
    if (piece.size > 0 && piece.lane == 0) y[piece.number] = static_cast<T>(result);
  });
}

template <typename Op, typename Acc, typename T>
void reduce_typed(const T* x, T* y, int64_t A, int64_t n, int64_t C, const Tensor& like) {
  const Pieces pieces(A, n, C, kRowChunk, kPerLane);
  const auto start = [&](T* to) {
    launch(reduce_kernel<Op, Acc, T>, pieces.grid(), kThreads, 0, pieces, x, to);
  };
  if (pieces.chunks == 1) return start(y);
  const Tensor partial = empty({A, pieces.chunks, C}, like.dtype(), like.device());
  T* parts = reinterpret_cast<T*>(partial.bytes());
  start(parts);
  reduce_typed<Op, Wide<Op, T>>(parts, y, A, pieces.chunks, C, like);
}

template <typename Op>
void reduce_with(const Tensor& x, const Tensor& y) {
  dispatch_numeric(x.dtype(), "reduce", [&]<typename N>() {
    using T = math::Unsigned<N>;
    using E = std::conditional_t<std::is_same_v<Op, Sum>, T, N>;  // sums of integers wrap
    reduce_typed<Op, E>(reinterpret_cast<const E*>(x.bytes()), reinterpret_cast<E*>(y.bytes()),
                        x.size(0), x.size(1), x.size(2), x);
  });
}

// ---- argmax, argmin ----------------------------------------------------------------------------

template <typename T>
struct Candidate {
  T value;
  int64_t index;
};

// The first of the extreme values, or the first NaN.
template <typename Op, typename T>
CENTROID_DEVICE Candidate<T> better(const Candidate<T>& a, const Candidate<T>& b) {
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  bool take_b = std::is_same_v<Op, Max> ? b.value > a.value : b.value < a.value;
  take_b = take_b || (a.value == b.value && b.index < a.index);
  if (a_nan || b_nan) take_b = b_nan && (!a_nan || b.index < a.index);
  return take_b ? b : a;
}

// x, and for later passes the index that each of its elements came from -> of each piece, the index
// of its extreme and, for another pass, the extreme itself.
template <typename Op, typename T>
__global__ void __launch_bounds__(kThreads)
    argreduce_kernel(const Pieces pieces, const T* x, const int64_t* x_index, T* y,
                     int64_t* index) {
  for_each_piece(pieces, [&](const Piece& piece) {
    constexpr T kIdentity = Identity<Op, T>::value;
    Candidate<T> best{kIdentity, INT64_MAX};
    for (int64_t i = piece.lane; i < piece.size; i += piece.lanes) {
      const int64_t at = piece.first + i * piece.stride;
      const int64_t position = x_index ? x_index[at] : piece.chunk * pieces.chunk + i;
      best = better<Op>(best, Candidate<T>{x[at], position});
    }
    for (int step = piece.lanes / 2; step > 0; step /= 2) {
      const T value = static_cast<T>(__shfl_xor_sync(kFullMask, best.value, step));
      best = better<Op>(best, Candidate<T>{value, __shfl_xor_sync(kFullMask, best.index, step)});
    }
    if (piece.size == 0 || piece.lane != 0) return;
    index[piece.number] = best.index;
    if (y) y[piece.number] = best.value;
  });
}

template <typename Op, typename T>
void argreduce_typed(const T* x, const int64_t* x_index, int64_t* y, int64_t A, int64_t n,
                     int64_t C, const Tensor& like) {
  const Pieces pieces(A, n, C, kRowChunk, kPerLane);
  const auto start = [&](T* values, int64_t* index) {
    launch(argreduce_kernel<Op, T>, pieces.grid(), kThreads, 0, pieces, x, x_index, values, index);
  };
  if (pieces.chunks == 1) return start(nullptr, y);
  const Tensor values = empty({A, pieces.chunks, C}, like.dtype(), like.device());
  const Tensor index = empty({A, pieces.chunks, C}, DType::i64, like.device());
  start(values.data<T>(), index.data<int64_t>());
  argreduce_typed<Op>(values.data<T>(), index.data<int64_t>(), y, A, pieces.chunks, C, like);
}

// ---- logsumexp ---------------------------------------------------------------------------------

template <typename T>
struct ExpFrom {
  T origin;
  CENTROID_DEVICE T operator()(T x) const { return math::exp(x - origin); }
};

// m + log sum exp(x - m) with m = max x. Where m is infinite or NaN it is the result itself.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    logsumexp_kernel(const Pieces pieces, const T* x, T* y) {
  for_each_piece(pieces, [&](const Piece& piece) {
    constexpr T kIdentity = Identity<Max, T>::value;
    const T m = fold_piece<T, T>(piece, x, kIdentity, Max{}, As<T>{});
    const double total = fold_piece<T, double>(piece, x, T(0), Sum{}, ExpFrom<T>{m});
    const T result = m + static_cast<T>(std::log(total));
    if (piece.size > 0 && piece.lane == 0) y[piece.number] = std::isfinite(m) ? result : m;
  });
}

// That of a row is that of its chunks'.
template <typename T>
void logsumexp_rows(const T* x, T* y, int64_t rows, int64_t n, const Tensor& like) {
  const Pieces pieces(rows, n, 1, kRowChunk, kPerLane);
  const auto start = [&](T* to) {
    launch(logsumexp_kernel<T>, pieces.grid(), kThreads, 0, pieces, x, to);
  };
  if (pieces.chunks == 1) return start(y);
  const Tensor partial = empty({rows, pieces.chunks}, like.dtype(), like.device());
  start(partial.data<T>());
  logsumexp_rows(partial.data<T>(), y, rows, pieces.chunks, like);
}

}  // namespace

void reduce(Reduce op, const Tensor& x, const Tensor& y) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  if (x.size(1) == 0) return fill(y, op == Reduce::sum ? 0 : op == Reduce::max ? -kInf : kInf);
  switch (op) {
    case Reduce::sum: return reduce_with<Sum>(x, y);
    case Reduce::max: return reduce_with<Max>(x, y);
    case Reduce::min: return reduce_with<Min>(x, y);
  }
}

void argreduce(Reduce op, const Tensor& x, const Tensor& y) {
  dispatch_numeric(x.dtype(), "argreduce", [&]<typename T>() {
    const auto run = op == Reduce::max ? argreduce_typed<Max, T> : argreduce_typed<Min, T>;
    run(x.data<T>(), nullptr, y.data<int64_t>(), x.size(0), x.size(1), x.size(2), x);
  });
}

void logsumexp(const Tensor& x, const Tensor& y) {
  dispatch_float(x.dtype(), "logsumexp", [&]<typename T>() {
    logsumexp_rows(x.data<T>(), y.data<T>(), x.size(0), x.size(1), x);
  });
}

}  // namespace centroid::cuda
