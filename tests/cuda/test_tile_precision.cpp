// tile_attention on tensor cores: errors within what TF32 and bf16 allow.
#include <catch2/catch.hpp>

#include "cuda/runtime.h"
#include "tests/cuda/tile_problems.h"

using namespace centroid;
using namespace centroid::test;

namespace {

struct WithMathMode {
  MathMode before = math_mode();
  explicit WithMathMode(MathMode mode) { set_math_mode(mode); }
  ~WithMathMode() { set_math_mode(before); }
};

/// Largest error of each result against f64, by the largest magnitude, with and without tensor
/// cores.
struct Errors {
  std::vector<double> rounded, f32;
};
Errors errors_of(const Computation& f, const Tensors& inputs, MathMode mode) {
  const Tensors narrow = with_floats(inputs, DType::f32);
  const Tensors exact = f(with_floats(narrow, DType::f64));
  const auto run = [&] {
    const Tensors got = moved(f(moved(narrow, kCuda)), Device{});
    std::vector<double> errors;
    for (size_t i = 0; i < got.size(); ++i) {
      const std::vector<double> wanted = doubles(exact[i]);
      errors.push_back(test::detail::worst_error(doubles(got[i]), wanted) /
                       test::detail::largest_magnitude(wanted));
    }
    return errors;
  };
  const std::vector<double> f32 = run();
  const WithMathMode with(mode);
  return {run(), f32};
}

}  // namespace

TEST_CASE("cuda: tile_attention on tensor cores errs as much as its format") {
  cuda::synchronize(0);
  if (cuda::limits().major < 8) return;  // has no tensor cores for these formats
  uint64_t seed = 50;
  for (const MathMode mode : {MathMode::tf32, MathMode::bf16}) {
    // Half a unit in the last place of a factor; a score is a sum of products of two.
    const double unit = mode == MathMode::tf32 ? 0x1p-11 : 0x1p-8;
    for (const int64_t width : {32, 20, 64, 50, 128, 101}) {
      INFO((mode == MathMode::tf32 ? "tf32" : "bf16") << ", width " << width);
      const TileMaskCase& m = kTileMasks[3];
      const Errors e =
          errors_of(attention(m), tile_inputs({1, 1, 35, 43, width, width}, ++seed), mode);
      for (size_t i = 0; i < e.rounded.size(); ++i) {
        INFO("result " << i << ", error " << e.rounded[i] << ", in f32 " << e.f32[i]);
        CHECK(e.rounded[i] < 6 * unit);
        CHECK(e.rounded[i] > 20 * e.f32[i]);  // it did run there
      }
    }
  }
}

TEST_CASE("cuda: tile_attention on tensor cores under every mask") {
  uint64_t seed = 70;
  for (const TileMaskCase& m : kTileMasks) {
    INFO(m.name);
    const Errors e =
        errors_of(attention(m), tile_inputs({2, 1, 67, 43, 16, 16}, ++seed), MathMode::tf32);
    for (size_t i = 0; i < e.rounded.size(); ++i) CHECK(e.rounded[i] < 6 * 0x1p-11);
  }
}

TEST_CASE("cuda: the best keys are chosen from f32 scores in any mode") {
  const WithMathMode with(MathMode::bf16);
  Rng rng(4);
  const auto f = [](const Tensors& x) -> Tensors {
    const Attended y = raw::tile_attention(x[0], x[1], Tensor(), {}, 0.4, {}, 5);
    return {y.top_scores, y.top_keys};
  };
  CHECK(disagreement(f, {randn({1, 2, 20, 16}, rng), randn({1, 2, 70, 16}, rng)}) == "");
}
