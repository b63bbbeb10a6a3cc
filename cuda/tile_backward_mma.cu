// Gradients of tile_attention on tensor cores: see tile_backward.cuh.
#include "cuda/tile_backward.cuh"
#include "cuda/tile_mma.cuh"

namespace centroid::cuda {
namespace {

template <Rounding kRounding>
void backward(const BackwardProblem& a, int64_t heads) {
  const int width = std::max(a.q.width, a.v.width);
  if (width <= 32) return launch_backward<MmaTiles<32, kRounding, 64, 32>>(a, heads);
  if (width <= 64) return launch_backward<MmaTiles<64, kRounding, 64, 32>>(a, heads);
  launch_backward<MmaTiles<128, kRounding, 64, 32>>(a, heads);
}

}  // namespace

void tile_backward_mma(const BackwardProblem& a, int64_t heads, MathMode mode) {
  mode == MathMode::tf32 ? backward<Rounding::tf32>(a, heads) : backward<Rounding::bf16>(a, heads);
}

}  // namespace centroid::cuda
