#pragma once
// How reductions and scans over the middle of (A, n, C) are cut up, from the sizes alone: the order
// of additions is the same on every device.
//
// The middle is cut into chunks. A group of lanes, a power of two up to a warp, works on a piece:
// one chunk of one column. Neighbouring groups work on neighbouring columns, or the lanes of a
// group on neighbouring elements when C = 1, so that reads are coalesced. Pieces are numbered like
// the elements of (A, chunks, C).
#include "cuda/indices.h"
#include "cuda/reduce.cuh"

namespace centroid::cuda {

struct Pieces {
  int64_t n, columns, chunk, chunks, count;
  int lanes;

  /// Chunks have at most `row_chunk` elements if C = 1, else 64, or 512 when there is enough to do
  /// in parallel. A lane has at least `per_lane` elements, as long as there are other lanes.
  Pieces(int64_t A, int64_t n, int64_t C, int64_t row_chunk, int64_t per_lane)
      : n(n),
        columns(C),
        chunk(C == 1          ? row_chunk
              : A * C < 65536 ? 64
                              : 512),
        lanes(1) {
    chunks = std::max<int64_t>(1, div_up(n, chunk));
    count = A * chunks * C;
    while (C == 1 && lanes < kWarp && lanes * per_lane < std::min(n, chunk)) lanes *= 2;
  }

  unsigned grid() const { return grid_for(div_up(count * lanes, kThreads)); }
};

/// One piece, as one of the lanes that work on it sees it.
struct Piece {
  int64_t number;  // the threads of a warp whose number is beyond the last one still take part
  int64_t first;   // its first element
  int64_t size, chunk, stride;
  int lane, lanes;
};

/// Calls f(piece) for the pieces of this thread. All threads of a warp make the same calls, a
/// thread without a piece with one of size 0.
template <typename F>
CENTROID_DEVICE void for_each_piece(const Pieces& pieces, const F& f) {
  const int lane = static_cast<int>(threadIdx.x) % pieces.lanes;
  const int64_t groups = kThreads / pieces.lanes, group = threadIdx.x / pieces.lanes;
  for (int64_t i = blockIdx.x * groups; i < pieces.count; i += gridDim.x * groups) {
    const int64_t number = i + group, rest = quotient(number, pieces.columns);
    const int64_t a = quotient(rest, pieces.chunks), chunk = rest - a * pieces.chunks;
    const int64_t begin = chunk * pieces.chunk, left = pieces.n - begin;
    const int64_t size = number < pieces.count ? min(left, pieces.chunk) : 0;
    const int64_t column = number - rest * pieces.columns;
    f(Piece{number, (a * pieces.n + begin) * pieces.columns + column, size, chunk, pieces.columns,
            lane, pieces.lanes});
  }
}

/// Of the values of all lanes that work on a piece; each of them receives the result.
template <typename T, typename Op>
CENTROID_DEVICE T group_reduce(T value, int lanes, Op op) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    value = op(value, static_cast<T>(__shfl_xor_sync(kFullMask, value, step)));
  }
  return value;
}

/// op over get(x[...]) of the elements of a piece: four running results as Acc, which are combined,
/// and then those of all lanes, as Total.
template <typename Acc, typename Total, typename T, typename Op, typename Get>
CENTROID_DEVICE Total fold_piece(const Piece& piece, const T* x, Acc identity, Op op, Get get) {
  Acc result[4] = {identity, identity, identity, identity};
  const int64_t step = piece.lanes * piece.stride;
  const T* from = x + piece.first + piece.lane * piece.stride;
  int64_t i = piece.lane;
  for (; i + 3 * piece.lanes < piece.size; i += 4 * piece.lanes, from += 4 * step) {
    Acc value[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) value[j] = get(from[j * step]);
#pragma unroll
    for (int j = 0; j < 4; ++j) result[j] = op(result[j], value[j]);
  }
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    if (i + j * piece.lanes < piece.size) result[j] = op(result[j], get(from[j * step]));
  }
  const Total low = op(Total(result[0]), Total(result[1]));
  const Total high = op(Total(result[2]), Total(result[3]));
  return group_reduce(op(low, high), piece.lanes, op);
}

/// What the sums of lanes and chunks are added up in.
template <typename T>
using WideSum = std::conditional_t<std::is_floating_point_v<T>, double, T>;

}  // namespace centroid::cuda
