// Merging of attention over parts of the keys, and correction of rows by their group.
#include <catch2/catch.hpp>

#include "tensor/kernels.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

Tensor like(const Tensor& x) { return empty(x.shape(), x.dtype(), x.device()); }

// outs (N, R, D), lses (N, R), signs (N), dout (R, D), dlse (R) -> results and gradients.
Tensors merge(const Tensors& x, bool with_dlse) {
  const Tensor &outs = x[0], &lses = x[1], &dout = x[3], signs = raw::cast(x[2], DType::f64);
  const Tensor dlse = with_dlse ? x[4] : Tensor();
  const Tensor out = like(x[3]), lse = like(x[4]), douts = like(outs), dlses = like(lses);
  CENTROID_DISPATCH(outs.device(), merge_attention, outs, lses, signs, out, lse);
  CENTROID_DISPATCH(outs.device(), merge_attention_backward, outs, lses, signs, out, lse, dout,
                    dlse, douts, dlses);
  return {out, lse, douts, dlses};
}

Tensor with_values(Tensor x, const std::vector<std::pair<int64_t, double>>& values) {
  for (const auto& [i, value] : values) x.data<double>()[i] = value;
  return x;
}

constexpr double kInf = INFINITY;

// Some parts without keys, rows without any.
Tensors merge_problem(int64_t parts, int64_t rows, int64_t width, Rng& rng) {
  Tensor outs = randn({parts, rows, width}, rng), lses = randn({parts, rows}, rng);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < parts; ++n) {
      if (r % 5 == 4 || rng.below(4) == 0) lses.data<double>()[n * rows + r] = -kInf;
    }
  }
  std::vector<double> signs(parts, 1.0);
  return {outs, lses, from_vector(signs, {parts}), randn({rows, width}, rng), randn({rows}, rng)};
}

// labels (B, H, L) i32, and tensors of (B, H, L, D) in the memory of a projection if `projected`.
struct CorrectionProblem {
  Tensors inputs;
  bool projected;

  CorrectionProblem(int64_t batch, int64_t heads, int64_t rows, int64_t width, int64_t groups,
                    bool projected, Rng& rng)
      : projected(projected) {
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < batch * heads * rows; ++i) {
      labels.push_back(rng.below(3) == 0 ? 0 : static_cast<int32_t>(rng.below(groups + 1)) - 1);
    }
    const Clusters c = raw::clusters_of_labels(from_vector(labels, {batch, heads, rows}), groups);
    const Shape of_groups{batch, heads, groups, width}, masses{batch, heads, groups};
    const Shape in_memory =
        projected ? Shape{batch, rows, heads, width} : Shape{batch, heads, rows, width};
    inputs = {randn(in_memory, rng),
              randn(in_memory, rng),
              c.labels,
              c.order,
              c.offsets,
              randn(masses, rng),
              randn(masses, rng),
              randn(of_groups, rng),
              randn(of_groups, rng)};
  }

  Tensor laid_out(const Tensor& x) const { return projected ? raw::transpose(x, 1, 2) : x; }

  Tensors operator()(const Tensors& x) const {
    const Tensor top = laid_out(x[0]), dout = laid_out(x[1]);
    const Tensor out = like(x[0]), dtop = like(x[0]);
    if (dtop.numel() > 0) CENTROID_DISPATCH(dtop.device(), fill, dtop, 7.0);
    const Tensor dkept = like(x[5]), dmass = like(x[5]), dof_top = like(x[7]), dof_all = like(x[7]);
    CENTROID_DISPATCH(top.device(), correct_rows, top, x[2], x[5], x[6], x[7], x[8], laid_out(out));
    CENTROID_DISPATCH(top.device(), correct_rows_backward, top, x[3], x[4], x[5], x[6], x[7], dout,
                      laid_out(dtop), dkept, dmass, dof_top, dof_all);
    return {out, dtop, dkept, dmass, dof_top, dof_all};
  }
};

}  // namespace

TEST_CASE("cuda: merging attention over parts of the keys") {
  Rng rng(1, "merge");
  for (const auto& [parts, rows, width] : {std::tuple<int64_t, int64_t, int64_t>{2, 37, 64},
                                           {3, 100, 5},
                                           {1, 1, 1},
                                           {4, 33, 132},
                                           {2, 9, 300},
                                           {5, 300, 8},
                                           {3, 17, 0},
                                           {2, 0, 8}}) {
    for (const bool with_dlse : {true, false}) {
      INFO(parts << " parts, " << rows << " rows of " << width);
      CHECK(disagreement([=](const Tensors& x) { return merge(x, with_dlse); },
                         merge_problem(parts, rows, width, rng)) == "");
    }
  }
}

TEST_CASE("cuda: merging takes parts away again") {
  Rng rng(2, "merge");
  Tensors x = merge_problem(3, 40, 12, rng);
  x[2] = from_vector(std::vector<double>{1, 1, -1}, {3});
  // What is left of part 0: exactly nothing, less than nothing, all; and a little. Part 1 may be
  // far below the rounding of part 0, or have no keys.
  for (int64_t r = 0; r < 40; ++r) {
    double* lse = x[1].data<double>() + r;
    lse[0] = 0.01 * static_cast<double>(r);
    lse[40] = r % 4 == 1 ? -kInf : r % 8 == 4 ? -40 : 0.5;
    lse[80] = r % 4 == 2 ? lse[0] + 3 : r % 4 == 3 ? -kInf : lse[0] - (r % 8 == 5 ? 0.5 : 0);
  }
  const auto f = [](const Tensors& y) { return merge(y, true); };
  CHECK(disagreement(f, x) == "");
  const Tensor lse = f(moved(with_floats(x, DType::f32), kCuda))[1];
  CHECK(doubles(lse)[1] == -kInf);
  CHECK(doubles(lse)[2] == 0.5);
  CHECK(doubles(lse)[4] == -40);
}

TEST_CASE("cuda: merging passes NaN on to its row alone") {
  Rng rng(3, "merge");
  Tensors x = merge_problem(2, 6, 8, rng);
  x[0] = with_values(x[0], {{8, NAN}});
  x[1] = with_values(x[1], {{0, 1}, {1, 1}, {2, NAN}, {3, 1}, {8, 2}, {9, -2}});
  CHECK(disagreement([](const Tensors& y) { return merge(y, true); }, x) == "");
}

TEST_CASE("cuda: correcting rows by their group") {
  Rng rng(4, "correct");
  for (const bool projected : {false, true}) {
    for (const auto& [rows, width, groups] : {std::tuple<int64_t, int64_t, int64_t>{70, 64, 5},
                                              {300, 16, 2},
                                              {33, 7, 40},
                                              {1, 1, 1},
                                              {20, 256, 3},
                                              {270, 130, 1}}) {
      const CorrectionProblem p(2, 2, rows, width, groups, projected, rng);
      INFO(rows << " rows of " << width << ", " << groups << " groups");
      CHECK(disagreement(p, p.inputs) == "");
    }
  }
  const CorrectionProblem empty(1, 2, 0, 4, 3, false, rng);
  CHECK(disagreement(empty, empty.inputs) == "");
}
