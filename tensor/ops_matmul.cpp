// Matrix products: checks, broadcasting and views; the arithmetic is in cpu/matmul.cpp.
#include <limits>

#include "tensor/check.h"
#include "tensor/functors.h"
#include "tensor/matmul_layout.h"
#include "tensor/ops.h"

namespace centroid::raw {
namespace {

// Adjacent batch dimensions that both arguments walk with one stride.
struct BatchGroup {
  int64_t size, a_stride, b_stride;
};

// Fits both dtypes of BLAS: sizes and leading dimensions are 32-bit there.
constexpr int64_t kBlasMax = std::numeric_limits<int32_t>::max();

// The stride of dimension `i` of `batch` (counted from the end of the batch) in x, 0 where x has
// size 1 or nothing.
int64_t batch_stride(const Tensor& x, int from_end) {
  const int i = x.dim() - 2 - from_end;
  return i < 0 || x.shape()[i] == 1 ? 0 : x.strides()[i];
}

// Outermost first; merges neighbours wherever both strides allow.
std::vector<BatchGroup> batch_groups(const Shape& batch, const Tensor& a, const Tensor& b) {
  std::vector<BatchGroup> groups;
  for (int i = 0; i < batch.size(); ++i) {
    if (batch[i] == 1) continue;
    const int from_end = batch.size() - i;
    const BatchGroup next{batch[i], batch_stride(a, from_end), batch_stride(b, from_end)};
    if (!groups.empty()) {
      BatchGroup& last = groups.back();
      if (last.a_stride == next.a_stride * next.size &&
          last.b_stride == next.b_stride * next.size) {
        last = {last.size * next.size, next.a_stride, next.b_stride};
        continue;
      }
    }
    groups.push_back(next);
  }
  if (groups.empty()) groups.push_back({1, 0, 0});
  return groups;
}

// x itself when BLAS can read its last two dimensions, else a copy.
Tensor blas_readable(const Tensor& x) {
  const auto layout = matrix_layout(x.size(-2), x.size(-1), x.strides()[-2], x.strides()[-1]);
  return layout && layout->ld <= kBlasMax ? x : contiguous(x);
}

// y = a b. The innermost group is the kernel's batch; each index of the others is a call.
void multiply(const std::vector<BatchGroup>& groups, const Tensor& a, const Tensor& b,
              const Tensor& y) {
  const int64_t m = y.size(-2), p = y.size(-1), k = a.size(-1);
  const BatchGroup& inner = groups.back();
  const int outer_groups = static_cast<int>(groups.size()) - 1;
  const int64_t calls = y.numel() / (inner.size * m * p);
  for (int64_t call = 0; call < calls; ++call) {
    int64_t a_offset = a.impl().offset, b_offset = b.impl().offset, rest = call;
    for (int i = outer_groups - 1; i >= 0; --i) {
      a_offset += rest % groups[i].size * groups[i].a_stride;
      b_offset += rest % groups[i].size * groups[i].b_stride;
      rest /= groups[i].size;
    }
    const Tensor a3 = view_of(a, a_offset, {inner.size, m, k},
                              {inner.a_stride, a.strides()[-2], a.strides()[-1]});
    const Tensor b3 = view_of(b, b_offset, {inner.size, k, p},
                              {inner.b_stride, b.strides()[-2], b.strides()[-1]});
    const Tensor y3 =
        view_of(y, y.impl().offset + call * inner.size * m * p, {inner.size, m, p}, {m * p, p, 1});
    CENTROID_DISPATCH(y.device(), matmul, a3, b3, y3);
  }
}

Shape batch_of(const Tensor& x) {
  Shape batch;
  for (int i = 0; i + 2 < x.dim(); ++i) batch.push_back(x.shape()[i]);
  return batch;
}

Shape with_matrix(Shape batch, int64_t rows, int64_t cols) {
  batch.push_back(rows);
  batch.push_back(cols);
  return batch;
}

// Both arguments have at least two dimensions.
Tensor matmul_batched(Tensor a, Tensor b) {
  const int64_t m = a.size(-2), k = a.size(-1), p = b.size(-1);
  const Shape batch = broadcast_shapes(batch_of(a), batch_of(b), "matmul (batch)");
  const Tensor y = empty(with_matrix(batch, m, p), a.dtype(), a.device());
  if (y.numel() == 0) return y;
  a = blas_readable(a);
  b = blas_readable(b);
  auto groups = batch_groups(batch, a, b);
  // Several groups (heads of (B, L, H, E) memory, say) cost one kernel call per outer index: less
  // than a copy when the calls are large.
  constexpr double kWorthACall = 2e6;
  if (groups.size() > 1 && 2.0 * groups.back().size * m * p * k < kWorthACall) {
    a = contiguous(expand(a, with_matrix(batch, m, k)));
    b = contiguous(expand(b, with_matrix(batch, k, p)));
    groups = batch_groups(batch, a, b);
  }
  multiply(groups, a, b, y);
  return y;
}

// Whether `op` is a function of its argument alone, with a float result.
bool is_plain_activation(Unary op) {
  switch (op) {
    case Unary::elu:
    case Unary::isnan:
    case Unary::add_scalar:
    case Unary::mul_scalar:
    case Unary::pow_scalar:
    case Unary::clamp: return false;
    default: return true;
  }
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
  detail::check_floats("matmul", {{"a", a}, {"b", b}});
  CENTROID_CHECK(a.dim() > 0 && b.dim() > 0, "matmul: expected at least one dimension, got a ",
                 a.shape(), " and b ", b.shape(), " (mul multiplies by scalars)");
  const int64_t k = a.size(-1), k_of_b = b.dim() == 1 ? b.size(0) : b.size(-2);
  const bool transposed_fits = b.dim() > 1 && b.size(-1) == k;
  CENTROID_CHECK(k == k_of_b, "matmul: inner sizes differ: a is ", a.shape(), ", b is ", b.shape(),
                 ": ", k, " vs ", k_of_b, transposed_fits ? " (transpose b?)" : "");
  CENTROID_CHECK(k <= kBlasMax, "matmul: inner size: expected at most ", kBlasMax, ", got ", k);
  if (a.dim() > 1 && b.dim() > 1) return matmul_batched(a, b);
  const Tensor y =
      matmul_batched(a.dim() == 1 ? unsqueeze(a, 0) : a, b.dim() == 1 ? unsqueeze(b, 1) : b);
  Shape shape = y.shape();
  if (b.dim() == 1) shape.erase(shape.size() - 1);
  if (a.dim() == 1) shape.erase(shape.size() - (b.dim() == 1 ? 1 : 2));
  return view_of(y, y.impl().offset, shape, contiguous_strides(shape));
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation act,
              Tensor* pre) {
  detail::check_floats("linear", {{"x", x}, {"weight", weight}, {"bias", bias}});
  CENTROID_CHECK(weight.defined() && weight.dim() == 2, "linear: weight: expected (O, I), got ",
                 weight.defined() ? to_string(weight.shape()) : "no tensor");
  CENTROID_CHECK(x.dim() > 0 && x.size(-1) == weight.size(1), "linear: last size of x: expected ",
                 weight.size(1), " (weight is ", weight.shape(), "), got x ", x.shape());
  if (bias.defined()) detail::check_shape("linear", "bias", bias, {weight.size(0)});
  CENTROID_CHECK(!act.used || is_plain_activation(act.function),
                 "linear: activation: expected one without parameters, got ",
                 to_string(act.function), " (raw::unary applies it)");

  const Tensor y = matmul(x, transpose(weight, 0, 1));
  if (pre) *pre = Tensor();
  if (!bias.defined() && !act.used) return y;
  const int64_t n = weight.size(0);
  const Shape rows{n == 0 ? 0 : y.numel() / n, n};
  const Tensor kept = pre && act.used ? empty(y.shape(), y.dtype(), y.device()) : Tensor();
  const auto flat = [&](const Tensor& t) { return t.defined() ? reshape(t, rows) : t; };
  CENTROID_DISPATCH(y.device(), add_bias_act, bias.defined() ? contiguous(bias) : bias,
                    act.function, act.used, flat(kept), flat(y));
  if (pre) *pre = kept;
  return y;
}

}  // namespace centroid::raw
