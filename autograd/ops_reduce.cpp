// Reductions: many elements to one, so the gradient of the one goes back to the many.
#include <limits>

#include "autograd/ops.h"

namespace centroid {
namespace {

// Gives a reduction's result the shape of its input again: each value repeated over what it was
// made from. A view, no copy.
Tensor spread(const Tensor& y, const Shape& shape, const Dims& dims) {
  Shape kept = shape;
  for (int i = 0; i < shape.size() && dims.empty(); ++i) kept[i] = 1;
  for (int64_t dim : dims) kept[normalize_dim(static_cast<int>(dim), shape.size(), "reduce")] = 1;
  return raw::expand(raw::reshape(y, kept), shape);
}

// How many elements of x went into each of y.
double count(const Tensor& x, const Tensor& y) {
  return y.numel() ? static_cast<double>(x.numel() / y.numel()) : 0;
}

// y = max x or min x:   the elements equal to y share its gradient equally, dx = dy [x = y] / n,
// with n the number of ties: of all subgradients the one that treats equal elements alike.
Tensor extreme(const char* name, const Tensor& x, const Tensor& y, const Dims& dims) {
  return record(name, y, {x}, [=, x = Saved(x), y = Saved(y)](const Tensor& dy) -> Grads {
    const Shape& shape = x.get().shape();
    const Tensor ties =
        raw::cast(raw::compare(Compare::eq, x.get(), spread(y.get(), shape, dims)), dy.dtype());
    const Tensor share =
        raw::div(spread(dy, shape, dims), spread(raw::sum(ties, dims, true), shape, dims));
    return {raw::mul(ties, share)};
  });
}

}  // namespace

// y = sum_i x_i:   dx_i = dy.
Tensor sum(const Tensor& x, const Dims& dims, bool keep) {
  return record(
      "sum", raw::sum(x, dims, keep), {x},
      [=, shape = x.shape()](const Tensor& dy) -> Grads { return {spread(dy, shape, dims)}; });
}

// y = sum_i x_i / n:   dx_i = dy / n.
Tensor mean(const Tensor& x, const Dims& dims, bool keep) {
  const Tensor y = raw::mean(x, dims, keep);
  return record("mean", y, {x}, [=, shape = x.shape(), n = count(x, y)](const Tensor& dy) -> Grads {
    return {spread(raw::mul(dy, 1 / n), shape, dims)};
  });
}

Tensor max(const Tensor& x, const Dims& dims, bool keep) {
  return extreme("max", x, raw::max(x, dims, keep), dims);
}

Tensor min(const Tensor& x, const Dims& dims, bool keep) {
  return extreme("min", x, raw::min(x, dims, keep), dims);
}

// y = sum_i (x_i - m)^2 / (n - c) with m = mean x:   dx_i = dy 2 (x_i - m) / (n - c). The
// dependence of m on x_i adds -2 / (n (n - c)) sum_j (x_j - m), which is zero.
Tensor var(const Tensor& x, const Dims& dims, bool keep, int correction) {
  const Tensor y = raw::var(x, dims, keep, correction);
  return record(
      "var", y, {x},
      [=, scale = 2 / (count(x, y) - correction), x = Saved(x)](const Tensor& dy) -> Grads {
        const Tensor centred = raw::sub(x.get(), raw::mean(x.get(), dims, true));
        return {raw::mul(centred, spread(raw::mul(dy, scale), x.get().shape(), dims))};
      });
}

// y = log sum_i exp x_i:   dx_i = dy exp(x_i) / sum_j exp x_j = dy exp(x_i - y). Where all x are
// -inf, so is y; the gradient there is 0, as that of a softmax without keys: exp(-inf - 0).
Tensor logsumexp(const Tensor& x, const Dims& dims, bool keep) {
  const Tensor y = raw::logsumexp(x, dims, keep);
  return record("logsumexp", y, {x}, [=, x = Saved(x), y = Saved(y)](const Tensor& dy) -> Grads {
    const Shape& shape = x.get().shape();
    const double infinity = std::numeric_limits<double>::infinity();
    const Tensor zero = zeros(Shape{}, dy.dtype(), dy.device());
    const Tensor shift = raw::where(raw::compare(Compare::eq, y.get(), -infinity), zero, y.get());
    const Tensor weights = raw::exp(raw::sub(x.get(), spread(shift, shape, dims)));
    return {raw::mul(weights, spread(dy, shape, dims))};
  });
}

// y_i = sum_{j <= i} x_j:   x_j is part of every y_i with i >= j, so dx_j = sum_{i >= j} dy_i: the
// running sum of the reversed dy, reversed.
Tensor cumsum(const Tensor& x, int dim) {
  return record("cumsum", raw::cumsum(x, dim), {x}, [dim](const Tensor& dy) -> Grads {
    const int64_t n = dy.size(dim);
    const Tensor order =
        raw::add(raw::mul(arange(n, DType::i64, dy.device()), -1), static_cast<double>(n - 1));
    return {raw::index_select(raw::cumsum(raw::index_select(dy, dim, order), dim), dim, order)};
  });
}

}  // namespace centroid
