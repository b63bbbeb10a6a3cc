// tile_attention_backward: what the gradients of all tiles need of each query, which kernel
// computes them, and the f32 arithmetic (see tile_backward.cuh).
#include "cuda/tile_any.cuh"
#include "cuda/tile_backward.cuh"
#include "cuda/tile_fma.cuh"

namespace centroid::cuda {
namespace {

template <typename T>
struct QuerySums {
  Rows4<T> out, dout;
  const T* lse;
  const T* dlse;  // may be null
  T* log_sums;
  T* deltas;
  int64_t rows, queries, heads;
  int width;
};

// A warp per query: lse in units of ln 2, and delta = dO . O - dlse. Queries without keys get an
// infinite log-sum, which makes their weights 0.
template <typename T>
__global__ void __launch_bounds__(kThreads) query_sums_kernel(const QuerySums<T> a) {
  const int64_t row = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (row >= a.rows) return;  // whole warps leave
  const int64_t bh = row / a.queries, b = bh / a.heads, h = bh % a.heads, l = row % a.queries;
  const T* out = a.out.at(b, h, l);
  const T* dout = a.dout.at(b, h, l);
  T sum = 0;
  for (int d = lane; d < a.width; d += kWarp) sum += out[d] * dout[d];
  sum = warp_reduce(sum, Sum{});
  if (lane != 0) return;
  const T lse = a.lse[row];
  const bool none = lse == -kInf<T>;
  a.log_sums[row] = none ? -lse : lse * static_cast<T>(1.4426950408889634);
  a.deltas[row] = none ? 0 : sum - (a.dlse ? a.dlse[row] : 0);
}

template <typename T>
void query_sums(const Tensor& out, const Tensor& dout, const Tensor& lse, const Tensor& dlse,
                const Tensor& log_sums, const Tensor& deltas) {
  const QuerySums<T> sums{rows4<T>(out),      rows4<T>(dout),
                          lse.data<T>(),      data_or_null<T>(dlse),
                          log_sums.data<T>(), deltas.data<T>(),
                          lse.numel(),        lse.size(2),
                          lse.size(1),        static_cast<int>(out.size(3))};
  launch(query_sums_kernel<T>, static_cast<unsigned>(div_up(lse.numel() * kWarp, kThreads)),
         kThreads, 0, sums);
}

void backward_f32(const BackwardProblem& a, int64_t heads) {
  const int width = std::max(a.q.width, a.v.width);
  if (math_mode() != MathMode::f32 && limits().major >= 8) {
    tile_backward_mma(a, heads, math_mode());
  } else if (width <= 32) {
    launch_backward<FmaTiles<32, 64, 32, 8>>(a, heads);
  } else if (width <= 64) {
    launch_backward<FmaTiles<64, 64, 32, 16>>(a, heads);
  } else {
    launch_backward<FmaTiles<128, 32, 16, 16>>(a, heads);
  }
}

}  // namespace

void tile_attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                             double scale, const WeightDropout& dropout, const Tensor& out,
                             const Tensor& lse, const Tensor& dout, const Tensor& dlse,
                             const Tensor&, const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  const Tensor log_sums = empty(lse.shape(), lse.dtype(), lse.device());
  const Tensor deltas = empty(lse.shape(), lse.dtype(), lse.device());
  dispatch_float(q.dtype(), "tile_attention_backward",
                 [&]<typename T>() { query_sums<T>(out, dout, lse, dlse, log_sums, deltas); });
  if (q.dtype() != DType::f32 || std::max(q.size(3), v.size(3)) > kTileWidth) {
    return tile_backward_any(q, k, v, mask, scale, dropout, log_sums, deltas, dout, dq, dk, dv);
  }
  const HeadRows to_q = head_rows(dq), to_k = head_rows(dk), to_v = head_rows(dv);
  backward_f32({.q = head_rows(q),
                .k = head_rows(k),
                .v = head_rows(v),
                .dout = head_rows(dout),
                .log_sums = log_sums.data<float>(),
                .deltas = deltas.data<float>(),
                .dq = to_q.rows,
                .dk = to_k.rows,
                .dv = to_v.rows,
                .dq_aligned = to_q.aligned,
                .dk_aligned = to_k.aligned,
                .dv_aligned = to_v.aligned,
                .mask = tile_mask(mask, q, k),
                .dropout = tile_dropout(dropout, k.size(2)),
                .scale = static_cast<float>(scale),
                .unit = static_cast<float>(scale * 1.4426950408889634),
                .heads = static_cast<int>(q.size(1)),
                .tiles = 0},
               q.size(0) * q.size(1));
}

}  // namespace centroid::cuda
