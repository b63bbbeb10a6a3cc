// tile_attention for heads of any size, in f32 and f64: simple rather than fast.
//
// A block of 16 x 16 threads owns 16 rows - queries or keys - and 128 columns of the result, and
// walks over tiles of 16 columns of the scores. Thread (y, x) computes the score of row y and
// column x from pieces of 32 numbers in shared memory, and of row y of the result the columns
// x, x + 16, ... Heads wider than 128 are computed by several blocks, each with scores of its own.
#include "cuda/tile.cuh"
#include "cuda/tile_any.cuh"

namespace centroid::cuda {
namespace {

constexpr int kSide = 16, kPiece = 32, kOutCols = 128;
constexpr int kBlock = kSide * kSide;

template <typename T>
struct AnyProblem {
  Rows4<T> q, k, v, dout;
  Rows4<T> out;  // of the kernel: out, dq, dk or dv
  T* lse;
  const T* log_sums;
  const T* deltas;
  TileMask mask;
  TileDropout dropout;
  T drop_scale, unit;  // unit = scale in units of ln 2
  T factor;            // of the result
  int heads, tiles, width, value_width;
  int out_width;
};

// Pieces of two sets of rows, whose columns meet all banks; and the weights between them.
template <typename T>
struct AnyShared {
  T a[kSide][kPiece + 1], b[kSide][kPiece + 1];
  T weights[kSide][kSide + 1];
};

struct Place {
  int b, h, tile, x, y;
  int64_t base;
};
template <typename T>
CENTROID_DEVICE Place place_of(const AnyProblem<T>& p) {
  const int bh = static_cast<int>(blockIdx.x / p.tiles);
  return {bh / p.heads,
          bh % p.heads,
          static_cast<int>(blockIdx.x % p.tiles),
          static_cast<int>(threadIdx.x) % kSide,
          static_cast<int>(threadIdx.x) / kSide,
          int64_t{bh} * p.mask.queries};
}

// Row y of `a` (times `factor`) times row x of `b`: a sum in order. Every thread must call it.
template <typename T>
CENTROID_DEVICE T product(AnyShared<T>& shared, const Place& at, int width, const Rows4<T>& a,
                          int a0, int a_count, T a_factor, const Rows4<T>& b, int b0, int b_count,
                          T b_factor) {
  T sum = 0;
  for (int e0 = 0; e0 < width; e0 += kPiece) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kSide * kPiece; i += kBlock) {
      const int r = i / kPiece, c = i % kPiece, e = e0 + c;
      const bool has_a = e < width && a0 + r < a_count, has_b = e < width && b0 + r < b_count;
      shared.a[r][c] = has_a ? a.at(at.b, at.h, a0 + r)[e] * a_factor : 0;
      shared.b[r][c] = has_b ? b.at(at.b, at.h, b0 + r)[e] * b_factor : 0;
    }
    __syncthreads();
#pragma unroll 4
    for (int e = 0; e < kPiece; ++e) sum = fma(shared.a[at.y][e], shared.b[at.x][e], sum);
  }
  return sum;
}

// out[c] += sum over the tile's columns of weights times rows of b, from column `first` on. The
// weights of a row are written and read by one half of a warp.
template <typename T>
CENTROID_DEVICE void accumulate(AnyShared<T>& shared, const Place& at, T weight, const Rows4<T>& b,
                                int b0, int b_count, int first, int width,
                                T (&out)[kOutCols / kSide]) {
  __syncwarp();
  shared.weights[at.y][at.x] = weight;
  __syncwarp();
  for (int s = 0; s < min(kSide, b_count - b0); ++s) {
    const T* row = b.at(at.b, at.h, b0 + s) + first;
    const T w = shared.weights[at.y][s];
#pragma unroll
    for (int c = 0; c < kOutCols / kSide; ++c) {
      const int d = c * kSide + at.x;
      if (first + d < width) out[c] = fma(w, row[d], out[c]);
    }
  }
}

template <typename T>
CENTROID_DEVICE void write_row(const AnyProblem<T>& p, const Place& at, int row, int first,
                               T factor, const T (&out)[kOutCols / kSide]) {
  T* to = p.out.at(at.b, at.h, row) + first;
#pragma unroll
  for (int c = 0; c < kOutCols / kSide; ++c) {
    const int d = c * kSide + at.x;
    if (first + d < p.out_width) to[d] = out[c] * factor;
  }
}

template <typename T>
CENTROID_DEVICE T dropped(const AnyProblem<T>& p, int64_t query, int key) {
  if (!p.dropout.active) return 1;
  return kept_of_eight(p.dropout, query, key & ~7) >> key % 8 & 1u ? p.drop_scale : T(0);
}

template <typename T>
__global__ void __launch_bounds__(kBlock, 2) any_forward_kernel(const AnyProblem<T> p) {
  __shared__ AnyShared<T> shared;
  const Place at = place_of(p);
  const int l0 = at.tile * kSide, l = l0 + at.y, first = static_cast<int>(blockIdx.y) * kOutCols;
  const Span span = span_of(p.mask, at.b, l0, kSide);
  const Range seen = visible_keys(p.mask, at.b, l);
  T most = -kInf<T>, sum = 0, out[kOutCols / kSide] = {};
  for (int s0 = span.some.begin; s0 < span.some.end; s0 += kSide) {
    const int s = s0 + at.x;
    T score =
        product<T>(shared, at, p.width, p.q, l0, p.mask.queries, p.unit, p.k, s0, p.mask.keys, 1);
    if (!seen.has(s)) score = -kInf<T>;
    T top = score;
#pragma unroll
    for (int step = kSide / 2; step > 0; step /= 2) {
      top = fmax(top, __shfl_xor_sync(kFullMask, top, step));
    }
    top = fmax(top, most);
    const T shift = top == -kInf<T> ? 0 : top, shrink = exp2(most - shift);
    const T weight = exp2(score - shift);
    sum = sum * shrink + weight;  // of the thread's own columns
    most = top;
    if (!p.out.data) continue;
#pragma unroll
    for (int c = 0; c < kOutCols / kSide; ++c) out[c] *= shrink;
    accumulate(shared, at, weight * dropped(p, at.base + l, s), p.v, s0, p.mask.keys, first,
               p.value_width, out);
  }
#pragma unroll
  for (int step = kSide / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kFullMask, sum, step);
  if (l >= p.mask.queries) return;
  if (at.x == 0 && blockIdx.y == 0) {
    p.lse[at.base + l] =
        sum == 0 ? -kInf<T> : most * static_cast<T>(0.6931471805599453) + math::log(sum);
  }
  if (p.out.data) write_row(p, at, l, first, sum == 0 ? T(0) : 1 / sum, out);
}

enum class Gradient { dq, dk, dv };

// As backward_kernel of tile_backward.cuh, but for one of the three results.
template <typename T, Gradient kOf>
__global__ void __launch_bounds__(kBlock, 2) any_backward_kernel(const AnyProblem<T> p) {
  constexpr bool kKeyRows = kOf != Gradient::dq;
  __shared__ AnyShared<T> shared;
  const Place at = place_of(p);
  const int row0 = at.tile * kSide, first = static_cast<int>(blockIdx.y) * kOutCols;
  const int rows = kKeyRows ? p.mask.keys : p.mask.queries;
  const int cols = kKeyRows ? p.mask.queries : p.mask.keys;
  Range walk{0, cols};
  if constexpr (!kKeyRows) walk = span_of(p.mask, at.b, row0, kSide).some;
  T out[kOutCols / kSide] = {};
  for (int col0 = walk.begin; col0 < walk.end; col0 += kSide) {
    const int query = kKeyRows ? col0 + at.x : row0 + at.y;
    const int key = kKeyRows ? row0 + at.y : col0 + at.x;
    const bool seen = visible_keys(p.mask, at.b, query).has(key);
    if (!__syncthreads_or(seen)) continue;
    const T score =
        product<T>(shared, at, p.width, kKeyRows ? p.k : p.q, row0, rows, kKeyRows ? 1 : p.unit,
                   kKeyRows ? p.q : p.k, col0, cols, kKeyRows ? p.unit : 1);
    const T weight = seen ? exp2(score - p.log_sums[at.base + query]) : 0;
    const T factor = dropped(p, at.base + query, key);
    if constexpr (kOf == Gradient::dv) {
      accumulate(shared, at, weight * factor, p.dout, col0, cols, first, p.out_width, out);
    } else {
      const T dweight = product<T>(shared, at, p.value_width, kKeyRows ? p.v : p.dout, row0, rows,
                                   1, kKeyRows ? p.dout : p.v, col0, cols, 1);
      const T delta = seen ? p.deltas[at.base + query] : 0;
      accumulate(shared, at, weight * (dweight * factor - delta), kKeyRows ? p.q : p.k, col0, cols,
                 first, p.out_width, out);
    }
  }
  if (row0 + at.y < rows) write_row(p, at, row0 + at.y, first, p.factor, out);
}

template <typename T>
AnyProblem<T> problem(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                      double scale, const WeightDropout& dropout, int64_t value_width) {
  AnyProblem<T> p{};
  p.q = rows4<T>(q);
  p.k = rows4<T>(k);
  p.v = rows4<T>(v);
  p.mask = tile_mask(mask, q, k);
  p.dropout = tile_dropout(dropout, k.size(2));
  p.drop_scale = static_cast<T>(65536.0 / (65536.0 - p.dropout.threshold));
  p.unit = static_cast<T>(scale * 1.4426950408889634);
  p.heads = static_cast<int>(q.size(1));
  p.width = static_cast<int>(q.size(3));
  p.value_width = static_cast<int>(value_width);
  return p;
}

// Starts the kernel for `rows` rows of each head.
template <typename T>
void run(void (*kernel)(AnyProblem<T>), AnyProblem<T> p, const Tensor& out, const Tensor& q,
         int64_t rows, double factor) {
  p.out = rows4<T>(out);
  p.out_width = out.defined() ? static_cast<int>(out.size(3)) : 0;
  p.factor = static_cast<T>(factor);
  p.tiles = static_cast<int>(div_up(rows, kSide));
  const dim3 grid(static_cast<unsigned>(q.size(0) * q.size(1) * p.tiles),
                  static_cast<unsigned>(std::max<int64_t>(1, div_up(p.out_width, kOutCols))));
  launch(kernel, grid, kBlock, 0, p);
}

}  // namespace

void tile_forward_any(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                      double scale, const WeightDropout& dropout, const Tensor& out,
                      const Tensor& lse) {
  dispatch_float(q.dtype(), "tile_attention", [&]<typename T>() {
    AnyProblem<T> p = problem<T>(q, k, v, mask, scale, dropout, out.defined() ? out.size(3) : 0);
    p.lse = lse.data<T>();
    run<T>(any_forward_kernel<T>, p, out, q, q.size(2), 1);
  });
}

void tile_backward_any(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                       double scale, const WeightDropout& dropout, const Tensor& log_sums,
                       const Tensor& deltas, const Tensor& dout, const Tensor& dq, const Tensor& dk,
                       const Tensor& dv) {
  dispatch_float(q.dtype(), "tile_attention_backward", [&]<typename T>() {
    AnyProblem<T> p = problem<T>(q, k, v, mask, scale, dropout, v.size(3));
    p.dout = rows4<T>(dout);
    p.log_sums = log_sums.data<T>();
    p.deltas = deltas.data<T>();
    if (dq.defined()) {
      run<T>(any_backward_kernel<T, Gradient::dq>, p, dq, q, q.size(2), scale);
    }
    if (dk.defined()) {
      run<T>(any_backward_kernel<T, Gradient::dk>, p, dk, q, k.size(2), scale);
    }
    if (dv.defined()) run<T>(any_backward_kernel<T, Gradient::dv>, p, dv, q, k.size(2), 1);
  });
}

}  // namespace centroid::cuda
