// Raw operations that move, pick, order and join elements.
#include <limits>
#include <string>

#include "tensor/ops.h"

namespace centroid::raw {
namespace {

// Another shape of the same, contiguous elements.
Tensor as_shape(const Tensor& x, const Shape& shape) {
  return view_of(x, x.impl().offset, shape, contiguous_strides(shape));
}

// x seen around one of its dimensions: (before, n, after); copied if it is not contiguous.
Tensor as_middle(const Tensor& x, int dim) {
  Shape middle = {1, x.size(dim), 1};
  for (int i = 0; i < x.dim(); ++i) {
    if (i != dim) middle[i < dim ? 0 : 2] *= x.size(i);
  }
  return as_shape(contiguous(x), middle);
}

// Rows: (..., n) -> (R, n); copied if x is not contiguous.
Tensor as_rows(const Tensor& x) {
  const Tensor middle = as_middle(x, x.dim() - 1);
  return as_shape(middle, {middle.size(0), middle.size(1)});
}

void check_same_device(const char* op, const Tensor& x, const Tensor& other, const char* name,
                       const char* x_name = "x") {
  CENTROID_CHECK(x.device() == other.device(), op, ": devices differ: ", x_name, " is on ",
                 x.device(), ", ", name, " is on ", other.device(), " (raw::to moves)");
}

void check_same_kind(const char* op, const Tensor& x, const Tensor& other, const char* name,
                     const char* x_name = "x") {
  check_same_device(op, x, other, name, x_name);
  CENTROID_CHECK(x.dtype() == other.dtype(), op, ": dtypes differ: ", x_name, " is ", x.dtype(),
                 ", ", name, " is ", other.dtype(), " (raw::cast converts)");
}

void check_numeric(const char* op, DType dtype) {
  CENTROID_CHECK(dtype != DType::bf16, op, ": dtype: expected f64, f32, i64, i32 or u8, got bf16",
                 " (raw::cast converts)");
}

void check_index_dtype(const char* op, const Tensor& index) {
  CENTROID_CHECK(index.dtype() == DType::i64 || index.dtype() == DType::i32, op,
                 ": dtype of index: expected i64 or i32, got ", index.dtype(),
                 " (raw::cast converts)");
}

// `index`, copied if it is not contiguous; throws unless all its entries lie in [0, n): at once on
// the CPU, and when the host next waits for the device on CUDA. `op` is a literal.
Tensor checked_indices(const char* op, const Tensor& any_index, int64_t n) {
  const Tensor index = contiguous(any_index);
  if (index.numel() == 0) return index;
  const bool at_once = index.device().kind == DeviceKind::cpu;
  const Tensor bad = at_once ? empty({1}, DType::i64, index.device()) : Tensor();
  CENTROID_DISPATCH(index.device(), check_index, op, index, n, bad);
  if (!at_once) return index;
  const int64_t at = bad.item<int64_t>();
  if (at < 0) return index;
  const Tensor entry = view_of(index, index.impl().offset + at, {}, {});
  Dims position = index.shape();
  for (int64_t rest = at, d = position.size() - 1; d >= 0; --d) {
    const int64_t size = position[d];
    position[d] = rest % size;
    rest /= size;
  }
  throw Error(concat(op, ": index ", cast(entry, DType::i64).item<int64_t>(), " at position ",
                     position, " outside [0, ", n, ")"));
}

// Throws unless the shapes have the same sizes everywhere but in `dim`.
void check_same_but(const char* op, int dim, const Shape& a, const char* a_name, const Shape& b,
                    const char* b_name) {
  bool same = a.size() == b.size();
  for (int i = 0; same && i < a.size(); ++i) same = i == dim || a[i] == b[i];
  CENTROID_CHECK(same, op, ": shapes differ outside dimension ", dim, ": ", a_name, " is ", a, ", ",
                 b_name, " is ", b);
}

void check_index_vector(const char* op, const Tensor& index) {
  check_index_dtype(op, index);
  CENTROID_CHECK(index.dim() == 1, op, ": index: expected one dimension, got shape ", index.shape(),
                 " (gather takes an index of x's shape)");
}

// The last dimension's size, checked for sort and topk, whose kernels hold positions in 32 bits.
int64_t row_length(const char* op, const Tensor& x) {
  check_numeric(op, x.dtype());
  CENTROID_CHECK(x.dim() >= 1, op, ": expected at least one dimension, got a scalar");
  const int64_t n = x.size(-1);
  CENTROID_CHECK(n <= std::numeric_limits<uint32_t>::max(), op,
                 ": rows of at most 2^32 - 1 elements, got ", n);
  return n;
}

}  // namespace

Tensor gather(const Tensor& x, int dim, const Tensor& index) {
  dim = normalize_dim(dim, x.dim(), "gather");
  check_same_device("gather", x, index, "index");
  check_index_dtype("gather", index);
  check_same_but("gather", dim, x.shape(), "x", index.shape(), "index");
  const Tensor dense_index = checked_indices("gather", index, x.size(dim));
  const Tensor y = empty(index.shape(), x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), gather, as_middle(x, dim), as_middle(dense_index, dim),
                    as_middle(y, dim));
  return y;
}

Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src) {
  dim = normalize_dim(dim, x.dim(), "scatter_add");
  check_same_device("scatter_add", x, index, "index");
  check_same_kind("scatter_add", x, src, "src");
  check_numeric("scatter_add", x.dtype());
  check_index_dtype("scatter_add", index);
  CENTROID_CHECK(index.shape() == src.shape(), "scatter_add: shapes differ: index is ",
                 index.shape(), ", src is ", src.shape());
  check_same_but("scatter_add", dim, x.shape(), "x", index.shape(), "index");
  const Tensor dense_index = checked_indices("scatter_add", index, x.size(dim));
  const Tensor y = clone(x);
  CENTROID_DISPATCH(x.device(), scatter_add, as_middle(dense_index, dim), as_middle(src, dim),
                    as_middle(y, dim));
  return y;
}

Tensor index_select(const Tensor& x, int dim, const Tensor& index) {
  dim = normalize_dim(dim, x.dim(), "index_select");
  check_same_device("index_select", x, index, "index");
  check_index_vector("index_select", index);
  const Tensor dense_index = checked_indices("index_select", index, x.size(dim));
  Shape shape = x.shape();
  shape[dim] = index.numel();
  const Tensor y = empty(shape, x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), index_select, as_middle(x, dim), dense_index, as_middle(y, dim));
  return y;
}

Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src) {
  dim = normalize_dim(dim, x.dim(), "index_add");
  check_same_device("index_add", x, index, "index");
  check_same_kind("index_add", x, src, "src");
  check_numeric("index_add", x.dtype());
  check_index_vector("index_add", index);
  check_same_but("index_add", dim, x.shape(), "x", src.shape(), "src");
  CENTROID_CHECK(src.size(dim) == index.numel(), "index_add: sizes differ: index is ",
                 index.shape(), ", src is ", src.shape(), ": ", index.numel(), " vs ",
                 src.size(dim), " in dimension ", dim);
  const Tensor dense_index = checked_indices("index_add", index, x.size(dim));
  const Tensor y = clone(x);
  CENTROID_DISPATCH(x.device(), index_add, dense_index, as_middle(src, dim), as_middle(y, dim));
  return y;
}

Tensor embedding(const Tensor& weight, const Tensor& index) {
  CENTROID_CHECK(weight.dim() == 2, "embedding: weight: expected (N, C), got ", weight.shape());
  check_same_device("embedding", weight, index, "index");
  check_index_dtype("embedding", index);
  const Tensor dense_index = checked_indices("embedding", index, weight.size(0));
  Shape shape = index.shape();
  shape.push_back(weight.size(1));
  const Tensor y = empty(shape, weight.dtype(), weight.device());
  CENTROID_DISPATCH(weight.device(), index_select, as_middle(weight, 0),
                    as_shape(dense_index, {index.numel()}),
                    as_shape(y, {1, index.numel(), weight.size(1)}));
  return y;
}

Tensor one_hot(const Tensor& index, int64_t classes, DType dtype) {
  check_numeric("one_hot", dtype);
  check_index_dtype("one_hot", index);
  CENTROID_CHECK(classes >= 1, "one_hot: classes: expected at least 1, got ", classes);
  const Tensor dense_index = checked_indices("one_hot", index, classes);
  Shape shape = index.shape();
  shape.push_back(classes);
  const Tensor y = empty(shape, dtype, index.device());
  CENTROID_DISPATCH(index.device(), one_hot, as_shape(dense_index, {index.numel()}), as_rows(y));
  return y;
}

Tensor cat(const std::vector<Tensor>& tensors, int dim) {
  CENTROID_CHECK(!tensors.empty(), "cat: expected at least one tensor, got an empty list");
  const Tensor& first = tensors[0];
  dim = normalize_dim(dim, first.dim(), "cat");
  Shape shape = first.shape();
  for (size_t i = 1; i < tensors.size(); ++i) {
    const Tensor& x = tensors[i];
    const std::string name = "tensor " + std::to_string(i);
    check_same_but("cat", dim, first.shape(), "tensor 0", x.shape(), name.c_str());
    check_same_kind("cat", first, x, name.c_str(), "tensor 0");
    CENTROID_CHECK(!__builtin_add_overflow(shape[dim], x.size(dim), &shape[dim]),
                   "cat: the sizes of dimension ", dim, " add up to more than 64 bits count");
  }
  const Tensor y = empty(shape, first.dtype(), first.device());
  int64_t at = 0;
  for (const Tensor& x : tensors) {
    const int64_t n = x.size(dim);
    if (x.numel() > 0) copy_(slice(y, dim, at, at + n), x);
    at += n;
  }
  return y;
}

Tensor stack(const std::vector<Tensor>& tensors, int dim) {
  CENTROID_CHECK(!tensors.empty(), "stack: expected at least one tensor, got an empty list");
  const Tensor& first = tensors[0];
  dim = normalize_dim(dim, first.dim() + 1, "stack");
  std::vector<Tensor> slices;
  for (size_t i = 0; i < tensors.size(); ++i) {
    CENTROID_CHECK(tensors[i].shape() == first.shape(), "stack: shapes differ: tensor 0 is ",
                   first.shape(), ", tensor ", i, " is ", tensors[i].shape());
    slices.push_back(unsqueeze(tensors[i], dim));
  }
  return cat(slices, dim);
}

std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int dim) {
  dim = normalize_dim(dim, x.dim(), "split");
  int64_t left = x.size(dim);  // -1 once too much was asked for
  for (int64_t size : sizes) {
    CENTROID_CHECK(size >= 0, "split: sizes: expected sizes >= 0, got ", size);
    left = left < size ? -1 : left - size;
  }
  if (left != 0) {
    std::string list;
    for (int64_t size : sizes) list += (list.empty() ? "" : " + ") + std::to_string(size);
    throw Error(concat("split: sizes: expected a sum of ", x.size(dim), " (dimension ", dim, " of ",
                       x.shape(), "), got ", list.empty() ? "none" : list));
  }
  std::vector<Tensor> parts;
  int64_t at = 0;
  for (int64_t size : sizes) {
    parts.push_back(slice(x, dim, at, at + size));
    at += size;
  }
  return parts;
}

Tensor pad(const Tensor& x, int dim, int64_t before, int64_t after, double value) {
  dim = normalize_dim(dim, x.dim(), "pad");
  CENTROID_CHECK(before >= 0 && after >= 0, "pad: expected widths >= 0, got ", before,
                 " before and ", after, " after (slice shortens)");
  const int64_t n = x.size(dim);
  Shape shape = x.shape();
  CENTROID_CHECK(!__builtin_add_overflow(before, n, &shape[dim]) &&
                     !__builtin_add_overflow(shape[dim], after, &shape[dim]),
                 "pad: widths ", before, " and ", after, " around ", n,
                 " add up to more than 64 bits count");
  const Tensor y = empty(shape, x.dtype(), x.device());
  if (y.numel() == 0) return y;
  if (before > 0) fill_(slice(y, dim, 0, before), value);
  if (x.numel() > 0) copy_(slice(y, dim, before, before + n), x);
  if (after > 0) fill_(slice(y, dim, before + n, before + n + after), value);
  return y;
}

std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k) {
  const int64_t n = row_length("topk", x);
  CENTROID_CHECK(k >= 1 && k <= n, "topk: k: expected one in [1, ", n, "], got ", k,
                 " (the last dimension of ", x.shape(), " has ", n, ")");
  Shape shape = x.shape();
  shape[-1] = k;
  const Tensor values = empty(shape, x.dtype(), x.device());
  const Tensor index = empty(shape, DType::i64, x.device());
  CENTROID_DISPATCH(x.device(), topk, as_rows(x), as_rows(values), as_rows(index));
  return {values, index};
}

std::pair<Tensor, Tensor> sort(const Tensor& x, bool descending) {
  row_length("sort", x);
  const Tensor values = empty(x.shape(), x.dtype(), x.device());
  const Tensor index = empty(x.shape(), DType::i64, x.device());
  CENTROID_DISPATCH(x.device(), sort, as_rows(x), descending, as_rows(values), as_rows(index));
  return {values, index};
}

}  // namespace centroid::raw
