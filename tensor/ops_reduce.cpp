// Reductions: dims are brought into the (A, n, C) layout of the kernels, without a copy where the
// input is contiguous and the operation can be carried out group by group.
#include <cmath>
#include <limits>

#include "tensor/check.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"

namespace centroid::raw {
namespace {

// Which dimensions of a tensor are reduced, and what the result looks like.
struct Plan {
  bool reduced[kMaxDims] = {};
  int64_t count = 1;  // elements per result
  Shape kept;         // result with reduced dimensions of size 1
  Shape result;       // final shape

  Plan(const char* op, const Tensor& x, const Dims& dims, bool keep) {
    for (const int64_t dim : dims) {
      const int d = normalize_dim(static_cast<int>(dim), x.dim(), op);
      CENTROID_CHECK(!reduced[d], op, ": dimension ", d, " appears twice in ", dims);
      reduced[d] = true;
    }
    for (int d = 0; d < x.dim(); ++d) {
      reduced[d] = reduced[d] || dims.empty();
      if (reduced[d]) count *= x.shape()[d];
      kept.push_back(reduced[d] ? 1 : x.shape()[d]);
      if (keep || !reduced[d]) result.push_back(kept[d]);
    }
  }
};

void check_numeric(const char* op, const Tensor& x) {
  CENTROID_CHECK(x.dtype() != DType::bf16, op, ": dtype: expected f64, f32, i64, i32 or u8, got ",
                 x.dtype(), " (raw::cast converts)");
}

void check_nonempty(const char* op, const Tensor& x, const Plan& plan) {
  CENTROID_CHECK(plan.count > 0, op, ": of no elements: shape ", x.shape(),
                 " is empty along the reduced dimensions");
}

// Reduces one run of adjacent dimensions after the other, the last first: no permuting copies.
Tensor reduce_plan(Reduce op, const Tensor& x, const Plan& plan) {
  Tensor y = contiguous(x);
  Shape shape = x.shape();
  for (int last = x.dim() - 1; last >= 0; --last) {
    if (!plan.reduced[last]) continue;
    int first = last;
    while (first > 0 && plan.reduced[first - 1]) --first;
    int64_t layout[3] = {1, 1, 1};
    for (int d = 0; d < x.dim(); ++d) layout[d < first ? 0 : (d <= last ? 1 : 2)] *= shape[d];
    for (int d = first; d <= last; ++d) shape[d] = 1;
    if (layout[1] != 1) {
      const Tensor z = empty({layout[0], layout[2]}, x.dtype(), x.device());
      CENTROID_DISPATCH(x.device(), reduce, op, reshape(y, {layout[0], layout[1], layout[2]}), z);
      y = z;
    }
    last = first;
  }
  // Reducing over nothing but sizes of 1 must not hand out x itself.
  return reshape(y.impl().storage == x.impl().storage ? clone(y) : y, plan.result);
}

// x as (rows, n) with the reduced dimensions last.
Tensor as_rows(const Tensor& x, const Plan& plan) {
  Dims order;
  for (const bool wanted : {false, true}) {
    for (int d = 0; d < x.dim(); ++d) {
      if (plan.reduced[d] == wanted) order.push_back(d);
    }
  }
  return reshape(contiguous(permute(x, order)), {numel(plan.kept), plan.count});
}

// (A, n, C) around one dimension
Shape around(const Tensor& x, int dim) {
  Shape layout = {1, x.shape()[dim], 1};
  for (int d = 0; d < x.dim(); ++d) {
    if (d != dim) layout[d < dim ? 0 : 2] *= x.shape()[d];
  }
  return layout;
}

Tensor extreme(Reduce op, const char* name, const Tensor& x, const Dims& dims, bool keep) {
  check_numeric(name, x);
  const Plan plan(name, x, dims, keep);
  check_nonempty(name, x, plan);
  return reduce_plan(op, x, plan);
}

Tensor arg_extreme(Reduce op, const char* name, const Tensor& x, int dim, bool keep) {
  check_numeric(name, x);
  dim = normalize_dim(dim, x.dim(), name);
  const Plan plan(name, x, {dim}, keep);
  check_nonempty(name, x, plan);
  const Tensor y = empty(plan.result, DType::i64, x.device());
  const Shape layout = around(x, dim);
  CENTROID_DISPATCH(x.device(), argreduce, op, reshape(contiguous(x), layout),
                    reshape(y, {layout[0], layout[2]}));
  return y;
}

}  // namespace

Tensor sum(const Tensor& x, const Dims& dims, bool keep) {
  check_numeric("sum", x);
  // A sum of small integers soon leaves their range.
  const Tensor wide = is_float(x.dtype()) ? x : cast(x, DType::i64);
  return reduce_plan(Reduce::sum, wide, Plan("sum", x, dims, keep));
}

Tensor mean(const Tensor& x, const Dims& dims, bool keep) {
  detail::check_floats("mean", {{"x", x}});
  const Plan plan("mean", x, dims, keep);
  check_nonempty("mean", x, plan);
  return mul(reduce_plan(Reduce::sum, x, plan), 1.0 / static_cast<double>(plan.count));
}

Tensor max(const Tensor& x, const Dims& dims, bool keep) {
  return extreme(Reduce::max, "max", x, dims, keep);
}

Tensor min(const Tensor& x, const Dims& dims, bool keep) {
  return extreme(Reduce::min, "min", x, dims, keep);
}

// In two passes: squares of the deviations from the mean, so that nothing cancels.
Tensor var(const Tensor& x, const Dims& dims, bool keep, int correction) {
  detail::check_floats("var", {{"x", x}});
  const Plan plan("var", x, dims, keep);
  CENTROID_CHECK(plan.count > correction, "var: expected more than ", correction,
                 " elements (the correction), got ", plan.count, " of shape ", x.shape());
  const Tensor deviation = sub(x, mean(x, dims, true));
  const Tensor squares = reduce_plan(Reduce::sum, square(deviation), plan);
  return mul(squares, 1.0 / static_cast<double>(plan.count - correction));
}

Tensor logsumexp(const Tensor& x, const Dims& dims, bool keep) {
  detail::check_floats("logsumexp", {{"x", x}});
  const Plan plan("logsumexp", x, dims, keep);
  const Tensor y = empty(plan.result, x.dtype(), x.device());
  if (plan.count == 0) {  // log 0
    fill_(y, -std::numeric_limits<double>::infinity());
    return y;
  }
  CENTROID_DISPATCH(x.device(), logsumexp, as_rows(x, plan), reshape(y, {y.numel()}));
  return y;
}

Tensor argmax(const Tensor& x, int dim, bool keep) {
  return arg_extreme(Reduce::max, "argmax", x, dim, keep);
}

Tensor argmin(const Tensor& x, int dim, bool keep) {
  return arg_extreme(Reduce::min, "argmin", x, dim, keep);
}

Tensor cumsum(const Tensor& x, int dim) {
  check_numeric("cumsum", x);
  const Shape layout = around(x, normalize_dim(dim, x.dim(), "cumsum"));
  const Tensor in = contiguous(is_float(x.dtype()) ? x : cast(x, DType::i64));
  const Tensor y = empty(x.shape(), in.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), cumsum, reshape(in, layout), reshape(y, layout));
  return y;
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  check_numeric("sum_to", x);
  CENTROID_CHECK(broadcast_shapes(x.shape(), shape, "sum_to") == x.shape(), "sum_to: ", shape,
                 " does not broadcast to ", x.shape());
  const int leading = x.dim() - shape.size();
  Dims dims;
  for (int d = 0; d < x.dim(); ++d) {
    if (d < leading || (shape[d - leading] == 1 && x.shape()[d] != 1)) dims.push_back(d);
  }
  return reshape(reduce_plan(Reduce::sum, x, Plan("sum_to", x, dims, true)), shape);
}

// NaN wins in max and min, and an infinity is the largest or the smallest value.
bool has_nonfinite(const Tensor& x) {
  if (!is_float(x.dtype()) || x.numel() == 0) return false;
  return !std::isfinite(max(x).item()) || !std::isfinite(min(x).item());
}

Tensor sum_squares(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> list;
  for (const Tensor& x : tensors) {
    detail::check_floats("global_norm", {{"x", x}});
    CENTROID_CHECK(x.device() == tensors[0].device(),
                   "global_norm: devices differ: tensor 0 is on ", tensors[0].device(),
                   ", another on ", x.device(), " (raw::to moves)");
    list.push_back(contiguous(x));
  }
  const Device device = tensors.empty() ? Device{} : tensors[0].device();
  const Tensor y = empty({1}, DType::f64, device);
  CENTROID_DISPATCH(device, sum_squares, list, y);
  return y;
}

double global_norm(const std::vector<Tensor>& tensors) {
  return std::sqrt(sum_squares(tensors).item<double>());
}

}  // namespace centroid::raw
