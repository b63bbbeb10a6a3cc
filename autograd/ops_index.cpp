// Indexing: reading at an index and adding at an index are each other's gradients.
#include "autograd/ops.h"

namespace centroid {

// y_i = x[index_i]:   every read adds to the gradient of the element it read.
Tensor gather(const Tensor& x, int dim, const Tensor& index) {
  return record("gather", raw::gather(x, dim, index), {x},
                [=, shape = x.shape(), index = Saved(index)](const Tensor& dy) -> Grads {
                  const Tensor zero = zeros(shape, dy.dtype(), dy.device());
                  return {raw::scatter_add(zero, dim, index.get(), dy)};
                });
}

// y = x, with src_i added at index_i:   dx = dy, dsrc_i = dy[index_i].
Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src) {
  return record("scatter_add", raw::scatter_add(x, dim, index, src), {x, src},
                [=, index = Saved(index)](const Tensor& dy, const Needs& needs) -> Grads {
                  return {dy, needs[1] ? raw::gather(dy, dim, index.get()) : Tensor()};
                });
}

// As for gather, whole slices at a time.
Tensor index_select(const Tensor& x, int dim, const Tensor& index) {
  return record("index_select", raw::index_select(x, dim, index), {x},
                [=, shape = x.shape(), index = Saved(index)](const Tensor& dy) -> Grads {
                  const Tensor zero = zeros(shape, dy.dtype(), dy.device());
                  return {raw::index_add(zero, dim, index.get(), dy)};
                });
}

// index_select of rows, with an index (...) of any shape: seen as one long list.
Tensor embedding(const Tensor& weight, const Tensor& index) {
  return record("embedding", raw::embedding(weight, index), {weight},
                [shape = weight.shape(), index = Saved(index)](const Tensor& dy) -> Grads {
                  const Tensor zero = zeros(shape, dy.dtype(), dy.device());
                  const int64_t n = index.get().numel();
                  return {raw::index_add(zero, 0, raw::reshape(index.get(), {n}),
                                         raw::reshape(dy, {n, shape[1]}))};
                });
}

// The values are a gather of x at the indices found, and so is their gradient. The choice of the
// indices does not change for small changes of x.
std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k) {
  const auto [values, index] = raw::topk(x, k);
  const Tensor y = record("topk", values, {x},
                          [shape = x.shape(), index = Saved(index)](const Tensor& dy) -> Grads {
                            const Tensor zero = zeros(shape, dy.dtype(), dy.device());
                            return {raw::scatter_add(zero, -1, index.get(), dy)};
                          });
  return {y, index};
}

// As for topk.
std::pair<Tensor, Tensor> sort(const Tensor& x, bool descending) {
  const auto [values, index] = raw::sort(x, descending);
  const Tensor y = record("sort", values, {x},
                          [shape = x.shape(), index = Saved(index)](const Tensor& dy) -> Grads {
                            const Tensor zero = zeros(shape, dy.dtype(), dy.device());
                            return {raw::scatter_add(zero, -1, index.get(), dy)};
                          });
  return {y, index};
}

}  // namespace centroid
