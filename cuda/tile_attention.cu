// tile_attention: which kernel computes it, and the f32 arithmetic (see tile_forward.cuh). Heads of
// up to 128 numbers are padded to 32, 64 or 128; wider ones and f64 take the kernel of any size
// (tile_any.cu). The best keys are chosen by a kernel of their own (tile_best.cu), from scores in
// f32 in any mode.
#include "cuda/tile_any.cuh"
#include "cuda/tile_fma.cuh"
#include "cuda/tile_forward.cuh"

namespace centroid::cuda {
namespace {

void forward_f32(const ForwardProblem& a, int64_t heads) {
  const int width = std::max(a.q.width, a.v.width);
  if (math_mode() != MathMode::f32 && limits().major >= 8) {
    tile_forward_mma(a, heads, math_mode());
  } else if (width <= 32) {
    launch_forward<FmaTiles<32, 64, 32, 8>>(a, heads);
  } else if (width <= 64) {
    launch_forward<FmaTiles<64, 64, 32, 8>>(a, heads);
  } else {
    launch_forward<FmaTiles<128, 64, 32, 16>>(a, heads);
  }
}

}  // namespace

void tile_attention(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                    double scale, const WeightDropout& dropout, const Tensor& out,
                    const Tensor& lse, const Tensor& top_scores, const Tensor& top_keys) {
  if (top_keys.defined()) tile_best(q, k, mask, scale, top_scores, top_keys);
  const int64_t value_width = out.defined() ? v.size(3) : 0;
  if (q.dtype() != DType::f32 || std::max(q.size(3), value_width) > kTileWidth) {
    return tile_forward_any(q, k, v, mask, scale, dropout, out, lse);
  }
  const HeadRows outs = head_rows(out);
  forward_f32({.q = head_rows(q),
               .k = head_rows(k),
               .v = out.defined() ? head_rows(v) : HeadRows{},
               .out = outs.rows,
               .out_aligned = outs.aligned,
               .lse = lse.data<float>(),
               .mask = tile_mask(mask, q, k),
               .dropout = tile_dropout(dropout, k.size(2)),
               .unit = static_cast<float>(scale * 1.4426950408889634),
               .heads = static_cast<int>(q.size(1)),
               .tiles = 0},
              q.size(0) * q.size(1));
}

}  // namespace centroid::cuda
