// tile_attention on tensor cores: see tile_forward.cuh.
#include "cuda/tile_forward.cuh"
#include "cuda/tile_mma.cuh"

namespace centroid::cuda {
namespace {

template <Rounding kRounding>
void forward(const ForwardProblem& a, int64_t heads) {
  const int width = std::max(a.q.width, a.v.width);
  if (width <= 32) return launch_forward<MmaTiles<32, kRounding, 64, 32>>(a, heads);
  if (width <= 64) return launch_forward<MmaTiles<64, kRounding, 64, 32>>(a, heads);
  launch_forward<MmaTiles<128, kRounding, 64, 32>>(a, heads);
}

}  // namespace

void tile_forward_mma(const ForwardProblem& a, int64_t heads, MathMode mode) {
  mode == MathMode::tf32 ? forward<Rounding::tf32>(a, heads) : forward<Rounding::bf16>(a, heads);
}

}  // namespace centroid::cuda
