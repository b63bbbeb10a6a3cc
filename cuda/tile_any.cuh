#pragma once
// The parts of tile attention that take any head size and both precisions.
#include "tensor/attention.h"

namespace centroid::cuda {

/// Wider heads than this take the kernels below also in f32.
inline constexpr int64_t kTileWidth = 128;

/// out and lse of tile_attention; both may be undefined (tile_any.cu).
void tile_forward_any(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                      double scale, const WeightDropout& dropout, const Tensor& out,
                      const Tensor& lse);
/// The gradients that are defined. log_sums and deltas (B, H, L) are those of BackwardProblem.
void tile_backward_any(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                       double scale, const WeightDropout& dropout, const Tensor& log_sums,
                       const Tensor& deltas, const Tensor& dout, const Tensor& dq, const Tensor& dk,
                       const Tensor& dv);
/// The best keys of tile_attention (tile_best.cu).
void tile_best(const Tensor& q, const Tensor& k, const KeyMask& mask, double scale,
               const Tensor& top_scores, const Tensor& top_keys);

}  // namespace centroid::cuda
