// Views, which share storage, and the operations that copy or set elements.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/convert.h"
#include "tensor/kernels.h"
#include "tensor/ops.h"

namespace centroid::raw {
namespace {

// Turns an index that may count from the end into [0, n]; throws when it lies outside.
int64_t normalize_bound(int64_t bound, int64_t n, const char* name) {
  CENTROID_CHECK(bound >= -n && bound <= n, "slice: ", name, ": expected ", -n, " to ", n, ", got ",
                 bound);
  return bound < 0 ? bound + n : bound;
}

// Replaces the one -1 of `wanted` by what the number of elements requires.
Shape infer_shape(const Tensor& x, const Shape& wanted) {
  Shape shape = wanted;
  int unknown = -1;
  int64_t known = 1;
  bool fits = true;
  for (int d = 0; d < shape.size(); ++d) {
    if (shape[d] == -1) {
      CENTROID_CHECK(unknown < 0, "reshape: expected at most one -1, got shape ", wanted);
      unknown = d;
    } else {
      CENTROID_CHECK(shape[d] >= 0, "reshape: negative size in shape ", wanted);
      fits = fits && !__builtin_mul_overflow(known, shape[d], &known);
    }
  }
  const int64_t n = x.numel();
  if (unknown >= 0) {
    CENTROID_CHECK(known != 0, "reshape: the -1 of ", wanted,
                   " has no single value: other sizes are 0");
    fits = fits && n % known == 0;
    if (fits) shape[unknown] = n / known;
  } else {
    fits = fits && known == n;
  }
  CENTROID_CHECK(fits, "reshape: ", x.shape(), " has ", n, " elements, which do not fill ", wanted);
  return shape;
}

// Strides with which the memory of `x` reads as `shape`, if there are any. Old and new dimensions
// are matched in groups of equal products; a group can be cut anew when the old strides step evenly
// through it.
bool view_strides(const Tensor& x, const Shape& shape, Strides* strides) {
  *strides = contiguous_strides(shape);
  if (x.is_contiguous()) return true;
  Shape old_shape;
  Strides old_strides;
  for (int d = 0; d < x.dim(); ++d) {
    if (x.shape()[d] == 1) continue;
    old_shape.push_back(x.shape()[d]);
    old_strides.push_back(x.strides()[d]);
  }
  int from = 0, to = 0;
  while (from < old_shape.size()) {
    int from_end = from + 1, to_end = to;
    int64_t from_size = old_shape[from], to_size = 1;
    while (to_size != from_size || to_end == to) {
      if (to_size < from_size || to_end == to)
        to_size *= shape[to_end++];
      else
        from_size *= old_shape[from_end++];
    }
    for (int d = from; d + 1 < from_end; ++d) {
      if (old_strides[d] != old_shape[d + 1] * old_strides[d + 1]) return false;
    }
    int64_t step = old_strides[from_end - 1];
    for (int d = to_end - 1; d >= to; --d) {
      (*strides)[d] = step;
      step *= shape[d];
    }
    from = from_end;
    to = to_end;
  }
  return true;
}

// An in-place target must have one memory cell per element.
void check_writable(const Tensor& y, const char* op) {
  if (y.numel() == 0) return;
  for (int d = 0; d < y.dim(); ++d) {
    CENTROID_CHECK(y.strides()[d] != 0 || y.shape()[d] <= 1, op, ": the target of shape ",
                   y.shape(),
                   " is expanded: several of its elements share memory (raw::clone it first)");
  }
}

void check_same_kind(const Tensor& y, const Tensor& x, const char* op) {
  CENTROID_CHECK(y.dtype() == x.dtype(), op, ": dtypes differ: target is ", y.dtype(),
                 ", source is ", x.dtype(), " (raw::cast converts)");
  CENTROID_CHECK(y.device() == x.device(), op, ": devices differ: target is on ", y.device(),
                 ", source on ", x.device(), " (raw::to moves)");
}

// x expanded to y's shape and readable while y is written: the same elements in the same places, or
// a copy if the two share storage otherwise.
Tensor source_for(const Tensor& y, const Tensor& x, const char* op) {
  CENTROID_CHECK(broadcast_shapes(y.shape(), x.shape(), op) == y.shape(), op, ": source of shape ",
                 x.shape(), " does not fit into ", y.shape());
  Tensor source = expand(x, y.shape());
  const bool shared = x.impl().storage == y.impl().storage;
  const bool same = x.bytes() == y.bytes() && source.strides() == y.strides();
  return shared && !same ? clone(source) : source;
}

}  // namespace

Tensor transpose(const Tensor& x, int dim0, int dim1) {
  dim0 = normalize_dim(dim0, x.dim(), "transpose");
  dim1 = normalize_dim(dim1, x.dim(), "transpose");
  Shape shape = x.shape();
  Strides strides = x.strides();
  std::swap(shape[dim0], shape[dim1]);
  std::swap(strides[dim0], strides[dim1]);
  return view_of(x, x.impl().offset, shape, strides);
}

Tensor permute(const Tensor& x, const Dims& order) {
  CENTROID_CHECK(order.size() == x.dim(), "permute: expected ", x.dim(), " dimensions for shape ",
                 x.shape(), ", got ", order);
  Shape shape = x.shape();
  Strides strides = x.strides();
  bool used[kMaxDims] = {};
  for (int d = 0; d < x.dim(); ++d) {
    const int from = normalize_dim(static_cast<int>(order[d]), x.dim(), "permute");
    CENTROID_CHECK(!used[from], "permute: dimension ", from, " appears twice in ", order);
    used[from] = true;
    shape[d] = x.shape()[from];
    strides[d] = x.strides()[from];
  }
  return view_of(x, x.impl().offset, shape, strides);
}

Tensor slice(const Tensor& x, int dim, int64_t begin, int64_t end, int64_t step) {
  dim = normalize_dim(dim, x.dim(), "slice");
  CENTROID_CHECK(step >= 1, "slice: step: expected at least 1, got ", step);
  const int64_t n = x.shape()[dim];
  begin = normalize_bound(begin, n, "begin");
  end = normalize_bound(end, n, "end");
  CENTROID_CHECK(begin <= end, "slice: expected begin <= end, got ", begin, " and ", end,
                 " of dimension ", dim, " of ", x.shape());
  Shape shape = x.shape();
  Strides strides = x.strides();
  shape[dim] = end == begin ? 0 : (end - begin - 1) / step + 1;
  const int64_t offset = x.impl().offset + (shape[dim] == 0 ? 0 : begin * strides[dim]);
  if (shape[dim] > 1) strides[dim] *= step;
  return view_of(x, offset, shape, strides);
}

Tensor select(const Tensor& x, int dim, int64_t index) {
  dim = normalize_dim(dim, x.dim(), "select");
  const int64_t n = x.shape()[dim];
  CENTROID_CHECK(index >= -n && index < n, "select: index: expected one in [", -n, ", ", n,
                 ") for dimension ", dim, " of ", x.shape(), ", got ", index);
  Shape shape = x.shape();
  Strides strides = x.strides();
  const int64_t offset = x.impl().offset + (index < 0 ? index + n : index) * strides[dim];
  shape.erase(dim);
  strides.erase(dim);
  return view_of(x, offset, shape, strides);
}

Tensor expand(const Tensor& x, const Shape& shape) {
  const int missing = shape.size() - x.dim();
  Strides strides = shape;
  bool fits = missing >= 0;
  for (int d = 0; fits && d < shape.size(); ++d) {
    const bool same = d >= missing && x.shape()[d - missing] == shape[d];
    strides[d] = same ? x.strides()[d - missing] : 0;
    fits = same || (shape[d] >= 0 && (d < missing || x.shape()[d - missing] == 1));
  }
  CENTROID_CHECK(fits, "expand: ", x.shape(), " does not expand to ", shape,
                 " (only sizes of 1 and missing leading dimensions can be repeated)");
  return view_of(x, x.impl().offset, shape, strides);
}

Tensor reshape(const Tensor& x, const Shape& wanted) {
  const Shape shape = infer_shape(x, wanted);
  Strides strides;
  if (view_strides(x, shape, &strides)) return view_of(x, x.impl().offset, shape, strides);
  const Tensor copy = clone(x);
  return view_of(copy, 0, shape, contiguous_strides(shape));
}

Tensor unsqueeze(const Tensor& x, int dim) {
  dim = normalize_dim(dim, x.dim() + 1, "unsqueeze");
  Shape shape = x.shape();
  Strides strides = x.strides();
  const int64_t step = dim < x.dim() ? shape[dim] * strides[dim] : 1;
  shape.insert(dim, 1);
  strides.insert(dim, step);
  return view_of(x, x.impl().offset, shape, strides);
}

Tensor squeeze(const Tensor& x, int dim) {
  dim = normalize_dim(dim, x.dim(), "squeeze");
  CENTROID_CHECK(x.shape()[dim] == 1, "squeeze: dimension ", dim, " of ", x.shape(),
                 ": expected size 1, got ", x.shape()[dim]);
  return select(x, dim, 0);
}

Tensor contiguous(const Tensor& x) { return x.is_contiguous() ? x : clone(x); }

Tensor unit_last(const Tensor& x) {
  return !x.defined() || x.size(-1) == 1 || x.strides()[x.dim() - 1] == 1 ? x : contiguous(x);
}

Tensor clone(const Tensor& x) {
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), copy, x, y);
  return y;
}

Tensor cast(const Tensor& x, DType dtype) {
  if (dtype == x.dtype()) return x;
  Tensor y = empty(x.shape(), dtype, x.device());
  CENTROID_DISPATCH(x.device(), cast, x, y);
  return y;
}

Tensor to(const Tensor& x, Device device) {
  if (device == x.device()) return x;
  const Tensor from = contiguous(x);
  Tensor y = empty(x.shape(), x.dtype(), device);
  centroid::detail::copy_bytes(y.bytes(), device, from.bytes(), x.device(),
                               x.numel() * size_of(x.dtype()));
  return y;
}

void copy_(const Tensor& y, const Tensor& x) {
  check_same_kind(y, x, "copy_");
  check_writable(y, "copy_");
  const Tensor source = source_for(y, x, "copy_");
  y.bump_version("copy_");
  CENTROID_DISPATCH(y.device(), copy, source, y);
}

void fill_(const Tensor& y, double value) {
  check_writable(y, "fill_");
  y.bump_version("fill_");
  CENTROID_DISPATCH(y.device(), fill, y, value);
}

void add_(const Tensor& y, const Tensor& x, double alpha) {
  check_same_kind(y, x, "add_");
  check_writable(y, "add_");
  const Tensor source = source_for(y, x, "add_");
  if (!is_float(y.dtype())) {
    const Tensor sum = add(y, alpha == 1 ? source : mul(source, alpha));
    y.bump_version("add_");
    CENTROID_DISPATCH(y.device(), copy, sum, y);
    return;
  }
  y.bump_version("add_");
  // The kernel writes contiguous memory only.
  const Tensor dense = contiguous(y);
  CENTROID_DISPATCH(y.device(), axpy, alpha, source, dense);
  if (!y.is_contiguous()) CENTROID_DISPATCH(y.device(), copy, dense, y);
}

}  // namespace centroid::raw
