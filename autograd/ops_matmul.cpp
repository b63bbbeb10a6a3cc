// Matrix products and convolutions. A product's two gradients are products again; `needs` skips
// those that nobody asked for.
#include "autograd/ops.h"

namespace centroid {
namespace {

// (..., n) -> (R, n): a view where memory allows.
Tensor rows(const Tensor& x) {
  int64_t r = 1;
  for (int i = 0; i + 1 < x.dim(); ++i) r *= x.size(i);
  return raw::reshape(x, {r, x.size(-1)});
}

// The gradients of y = a b for matrices with batch dimensions. A batch that was broadcast is
// summed. A 2-D b shared by a batch of a sees the batch as more rows: one product sums over
// everything.
Tensor matmul_da(const Tensor& b, const Tensor& dy, const Shape& shape) {
  return raw::sum_to(raw::matmul(dy, raw::transpose(b, -1, -2)), shape);
}
Tensor matmul_db(const Tensor& a, const Tensor& dy, const Shape& shape) {
  if (shape.size() == 2) return raw::matmul(raw::transpose(rows(a), 0, 1), rows(dy));
  return raw::sum_to(raw::matmul(raw::transpose(a, -1, -2), dy), shape);
}

}  // namespace

// y_mp = sum_k a_mk b_kp. The loss depends on a_mk through y_m: da_mk = sum_p dy_mp b_kp, that is
// da = dy b^T; likewise db_kp = sum_m a_mk dy_mp, that is db = a^T dy. A 1-D a is a row (1, K), a
// 1-D b a column (K, 1); the dimension of size 1 that y lost is put back into dy first.
Tensor matmul(const Tensor& a, const Tensor& b) {
  const Tensor y = raw::matmul(a, b);
  Shape sa = a.shape(), sb = b.shape(), sy = y.shape();
  if (b.dim() == 1) sb.push_back(1), sy.push_back(1);
  if (a.dim() == 1) sa.insert(0, 1), sy.insert(sy.size() - 1, 1);
  return record("matmul", y, {a, b},
                [=, from_a = a.shape(), from_b = b.shape(), a = saved_if(needs_grad(b), a),
                 b = saved_if(needs_grad(a), b)](const Tensor& dy, const Needs& needs) -> Grads {
                  const Tensor dym = raw::reshape(dy, sy);
                  Tensor da, db;
                  if (needs[0]) {
                    da = matmul_da(raw::reshape(b.get(), sb), dym, sa);
                    da = raw::reshape(da, from_a);
                  }
                  if (needs[1]) {
                    db = matmul_db(raw::reshape(a.get(), sa), dym, sb);
                    db = raw::reshape(db, from_b);
                  }
                  return {da, db};
                });
}

// pre = x W^T + b, y = act(pre), for rows x (R, I), W (O, I), b (O):   dpre = dy act'(pre), and as
// for matmul dx = dpre W, dW = dpre^T x; b is added to every row, so db = sum over the rows of
// dpre. relu' is the same at y as at pre (both are positive or neither), so relu keeps y and no
// pre.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, raw::Activation act) {
  const std::vector<Tensor> inputs = {x, weight, bias};
  const bool keep_pre = act.used && act.function != Unary::relu && will_record(inputs);
  Tensor pre;
  const Tensor y = raw::linear(x, weight, bias, act, keep_pre ? &pre : nullptr);
  return record("linear", y, inputs,
                [=, shape = x.shape(), at = saved_if(act.used, keep_pre ? pre : y),
                 x = saved_if(needs_grad(weight), x), weight = saved_if(needs_grad(x), weight)](
                    const Tensor& dy, const Needs& needs) -> Grads {
                  const Tensor dpre =
                      rows(act.used ? raw::unary_backward(act.function, at.get(), dy) : dy);
                  Tensor dx, dweight, dbias;
                  if (needs[0]) dx = raw::reshape(raw::matmul(dpre, weight.get()), shape);
                  if (needs[1]) dweight = raw::matmul(raw::transpose(dpre, 0, 1), rows(x.get()));
                  if (needs[2]) dbias = raw::sum(dpre, {0});
                  return {dx, dweight, dbias};
                });
}

// y = w * x + b is a matmul of w with the columns that im2col cuts out of x: dw and the gradient of
// the columns are products as in linear, and each column's gradient is added back to the pixels it
// came from (col2im). The raw backward does all of it.
Tensor conv1d(const Tensor& x, const Tensor& w, const Tensor& bias, raw::ConvOptions options) {
  return record("conv1d", raw::conv1d(x, w, bias, options), {x, w, bias},
                [=, x = Saved(x), w = Saved(w)](const Tensor& dy, const Needs& needs) -> Grads {
                  const auto [dx, dw, dbias] = raw::conv1d_backward(x.get(), w.get(), dy, options,
                                                                    needs[0], needs[1], needs[2]);
                  return {dx, dw, dbias};
                });
}

// As for conv1d.
Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, raw::ConvOptions options) {
  return record("conv2d", raw::conv2d(x, w, bias, options), {x, w, bias},
                [=, x = Saved(x), w = Saved(w)](const Tensor& dy, const Needs& needs) -> Grads {
                  const auto [dx, dw, dbias] = raw::conv2d_backward(x.get(), w.get(), dy, options,
                                                                    needs[0], needs[1], needs[2]);
                  return {dx, dw, dbias};
                });
}

}  // namespace centroid
