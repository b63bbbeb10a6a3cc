// Running sums over the middle of (A, n, C), in pieces (pieces.cuh). When there are several chunks,
// their totals are computed first, and the running sums of those, (A, chunks, C) in scratch memory,
// by the same functions; then every chunk starts from the total of those before it. Floats
// accumulate in f64.
#include "cuda/pieces.cuh"
#include "tensor/functors.h"

namespace centroid::cuda {
namespace {

constexpr int64_t kRowChunk = 1024;

struct Add {
  template <typename T>
  CENTROID_DEVICE T operator()(T a, T b) const {
    return math::add(a, b);
  }
};

template <typename Total>
struct As {
  template <typename T>
  CENTROID_DEVICE Total operator()(T x) const {
    return static_cast<Total>(x);
  }
};

template <typename Total, typename T>
__global__ void __launch_bounds__(kThreads)
    totals_kernel(const Pieces pieces, const T* x, Total* totals) {
  for_each_piece(pieces, [&](const Piece& piece) {
    const Total total = fold_piece<Total, Total>(piece, x, Total(0), Add{}, As<Total>{});
    if (piece.size > 0 && piece.lane == 0) totals[piece.number] = total;
  });
}

// Sum of the lanes of a group up to and including this one.
template <typename T>
CENTROID_DEVICE T running_sum(T value, const Piece& piece) {
  for (int step = 1; step < piece.lanes; step *= 2) {
    const T before = static_cast<T>(__shfl_up_sync(kFullMask, value, step, piece.lanes));
    if (piece.lane >= step) value = math::add(value, before);
  }
  return value;
}

// `totals`: running sums of the chunks' totals; null when there is one chunk. As many steps as the
// longest chunk has are taken by all, because the lanes of a warp exchange values. Four steps are
// read at once, which the sums would otherwise wait for one by one.
template <typename Total, typename T>
__global__ void __launch_bounds__(kThreads)
    scan_kernel(const Pieces pieces, const T* x, const Total* totals, T* y) {
  const int64_t longest = min(pieces.n, pieces.chunk);
  for_each_piece(pieces, [&](const Piece& piece) {
    const int lanes = piece.lanes;
    Total carry = 0;
    if (piece.size > 0 && piece.chunk > 0) carry = totals[piece.number - piece.stride];
    for (int64_t begin = 0; begin < longest; begin += 4 * lanes) {
      const int64_t i = begin + piece.lane, at = piece.first + i * piece.stride;
      const int64_t step = lanes * piece.stride;
      Total value[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool valid = i + j * lanes < piece.size;
        value[j] = valid ? static_cast<Total>(x[at + j * step]) : Total(0);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const Total sum = math::add(carry, running_sum(value[j], piece));
        if (i + j * lanes < piece.size) y[at + j * step] = static_cast<T>(sum);
        carry = static_cast<Total>(__shfl_sync(kFullMask, sum, lanes - 1, lanes));
      }
    }
  });
}

template <typename T>
void scan(const T* x, T* y, int64_t A, int64_t n, int64_t C, Device device) {
  using Total = WideSum<T>;
  const Pieces pieces(A, n, C, kRowChunk, 1);
  const auto start = [&](const Total* totals) {
    launch(scan_kernel<Total, T>, pieces.grid(), kThreads, 0, pieces, x, totals, y);
  };
  if (pieces.chunks == 1) return start(nullptr);
  const Tensor memory = empty({A, pieces.chunks, C}, dtype_of<Total>(), device);
  Total* totals = memory.data<Total>();
  launch(totals_kernel<Total, T>, pieces.grid(), kThreads, 0, pieces, x, totals);
  scan(totals, totals, A, pieces.chunks, C, device);
  start(totals);
}

}  // namespace

void cumsum(const Tensor& x, const Tensor& y) {
  dispatch_numeric(x.dtype(), "cumsum", [&]<typename T>() {
    scan(x.data<T>(), y.data<T>(), x.size(0), x.size(1), x.size(2), x.device());
  });
}

}  // namespace centroid::cuda
