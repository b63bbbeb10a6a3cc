// Operations that move elements and compute nothing. Their gradients move the elements back: what
// an input did not contribute to is zero, what it contributed to several times is summed.
#include "autograd/ops.h"

namespace centroid {
namespace {

Tensor zeros_of(const Shape& shape, const Tensor& like) {
  return zeros(shape, like.dtype(), like.device());
}

}  // namespace

// Exchanging two dimensions undoes itself:   dx = transpose(dy).
Tensor transpose(const Tensor& x, int dim0, int dim1) {
  return record("transpose", raw::transpose(x, dim0, dim1), {x},
                [=](const Tensor& dy) -> Grads { return {raw::transpose(dy, dim0, dim1)}; });
}

// Dimension i of y is dimension order[i] of x, so dimension order[i] of dx is dimension i of dy.
Tensor permute(const Tensor& x, const Dims& order) {
  const Tensor y = raw::permute(x, order);
  Dims inverse = order;
  for (int i = 0; i < order.size(); ++i) inverse[normalize_dim(order[i], x.dim(), "permute")] = i;
  return record("permute", y, {x},
                [inverse](const Tensor& dy) -> Grads { return {raw::permute(dy, inverse)}; });
}

// dx is zero but for the part that was cut out, which is dy.
Tensor slice(const Tensor& x, int dim, int64_t begin, int64_t end, int64_t step) {
  return record("slice", raw::slice(x, dim, begin, end, step), {x},
                [=, shape = x.shape()](const Tensor& dy) -> Grads {
                  const Tensor dx = zeros_of(shape, dy);
                  raw::copy_(raw::slice(dx, dim, begin, end, step), dy);
                  return {dx};
                });
}

// As for slice.
Tensor select(const Tensor& x, int dim, int64_t index) {
  return record("select", raw::select(x, dim, index), {x},
                [=, shape = x.shape()](const Tensor& dy) -> Grads {
                  const Tensor dx = zeros_of(shape, dy);
                  raw::copy_(raw::select(dx, dim, index), dy);
                  return {dx};
                });
}

// Each element of x appears several times in y, so its gradient is the sum over these.
Tensor expand(const Tensor& x, const Shape& shape) {
  return record("expand", raw::expand(x, shape), {x},
                [from = x.shape()](const Tensor& dy) -> Grads { return {raw::sum_to(dy, from)}; });
}

// The same elements in the same order:   dx = dy in the shape of x.
Tensor reshape(const Tensor& x, const Shape& shape) {
  return record("reshape", raw::reshape(x, shape), {x},
                [from = x.shape()](const Tensor& dy) -> Grads { return {raw::reshape(dy, from)}; });
}

// As for reshape.
Tensor unsqueeze(const Tensor& x, int dim) {
  return record("unsqueeze", raw::unsqueeze(x, dim), {x},
                [from = x.shape()](const Tensor& dy) -> Grads { return {raw::reshape(dy, from)}; });
}

// As for reshape.
Tensor squeeze(const Tensor& x, int dim) {
  return record("squeeze", raw::squeeze(x, dim), {x},
                [from = x.shape()](const Tensor& dy) -> Grads { return {raw::reshape(dy, from)}; });
}

// The same values elsewhere in memory:   dx = dy.
Tensor contiguous(const Tensor& x) {
  return record("contiguous", raw::contiguous(x), {x},
                [](const Tensor& dy) -> Grads { return {dy}; });
}

// As for contiguous.
Tensor clone(const Tensor& x) {
  return record("clone", raw::clone(x), {x}, [](const Tensor& dy) -> Grads { return {dy}; });
}

// Each input gets its part of dy back.
Tensor cat(const std::vector<Tensor>& tensors, int dim) {
  const Tensor y = raw::cat(tensors, dim);
  std::vector<int64_t> sizes;
  for (const Tensor& x : tensors) sizes.push_back(x.size(dim));
  return record("cat", y, tensors, [=](const Tensor& dy, const Needs& needs) -> Grads {
    Grads dxs(sizes.size());
    int64_t begin = 0;
    for (size_t i = 0; i < sizes.size(); begin += sizes[i++]) {
      if (needs[i]) dxs[i] = raw::slice(dy, dim, begin, begin + sizes[i]);
    }
    return dxs;
  });
}

// As for cat, one index of the new dimension each.
Tensor stack(const std::vector<Tensor>& tensors, int dim) {
  return record("stack", raw::stack(tensors, dim), tensors,
                [dim](const Tensor& dy, const Needs& needs) -> Grads {
                  Grads dxs(needs.size());
                  for (size_t i = 0; i < needs.size(); ++i) {
                    if (needs[i]) dxs[i] = raw::select(dy, dim, static_cast<int64_t>(i));
                  }
                  return dxs;
                });
}

// The parts of dx lie one behind the other; a part that nobody used has gradient zero.
std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int dim) {
  return record("split", raw::split(x, sizes, dim), {x},
                [=, shape = x.shape(), dtype = x.dtype(), device = x.device()](
                    const std::vector<Tensor>& dys, const Needs&) -> Grads {
                  const Tensor dx = zeros(shape, dtype, device);
                  int64_t begin = 0;
                  for (size_t i = 0; i < sizes.size(); begin += sizes[i++]) {
                    if (!dys[i].defined()) continue;
                    raw::copy_(raw::slice(dx, dim, begin, begin + sizes[i]), dys[i]);
                  }
                  return {dx};
                });
}

// The padding is constant:   dx is the middle of dy.
Tensor pad(const Tensor& x, int dim, int64_t before, int64_t after, double value) {
  return record("pad", raw::pad(x, dim, before, after, value), {x},
                [=, n = x.size(dim)](const Tensor& dy) -> Grads {
                  return {raw::slice(dy, dim, before, before + n)};
                });
}

}  // namespace centroid
