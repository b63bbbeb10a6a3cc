// Rows of neural networks: softmax and its relatives, layer norm, dropout, rotary positions.
#include "autograd/ops.h"

namespace centroid {

// y_i = exp(x_i) / sum_k exp(x_k) has dy_j/dx_i = y_j ([i = j] - y_i), hence
// dx_i = sum_j dy_j y_j ([i = j] - y_i) = y_i (dy_i - sum_j dy_j y_j).
Tensor softmax(const Tensor& x) {
  const Tensor y = raw::softmax(x);
  return record("softmax", y, {x}, [y = Saved(y)](const Tensor& dy) -> Grads {
    return {raw::softmax_backward(dy, y.get())};
  });
}

// y_i = x_i - log sum_k exp(x_k) has dy_j/dx_i = [i = j] - exp(y_i), hence
// dx_i = dy_i - exp(y_i) sum_j dy_j.
Tensor log_softmax(const Tensor& x) {
  const Tensor y = raw::log_softmax(x);
  return record("log_softmax", y, {x}, [y = Saved(y)](const Tensor& dy) -> Grads {
    return {raw::log_softmax_backward(dy, y.get())};
  });
}

// y = softmax(scale x) over the allowed keys:   dx = scale y (dy - sum_j dy_j y_j). Masked entries
// have y = 0 and therefore gradient 0; so have rows without keys.
Tensor masked_softmax(const Tensor& x, double scale, const Lengths& q_lengths,
                      const Lengths& k_lengths, bool causal) {
  const Tensor y = raw::masked_softmax(x, scale, q_lengths, k_lengths, causal);
  return record("masked_softmax", y, {x}, [=, y = Saved(y)](const Tensor& dy) -> Grads {
    return {raw::softmax_backward(dy, y.get(), scale)};
  });
}

// y = gain n + bias with n = (x - m) r, m the mean and r = 1 / sqrt(var + eps) of the row. Over all
// rows, dgain = sum dy n and dbias = sum dy. With g = dy gain the gradient of n: m removes the mean
// of g, and r the component of g along n, so dx = r (g - mean(g) - n mean(g n)).
Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double eps) {
  const auto [y, mean, rstd] = raw::layer_norm(x, gain, bias, eps);
  return record("layer_norm", y, {x, gain, bias},
                [x = Saved(x), gain = Saved(gain), mean = Saved(mean), rstd = Saved(rstd)](
                    const Tensor& dy, const Needs& needs) -> Grads {
                  const auto [dx, dgain, dbias] =
                      raw::layer_norm_backward(x.get(), gain.get(), mean.get(), rstd.get(), dy,
                                               needs[0], needs[1], needs[2]);
                  return {dx, dgain, dbias};
                });
}

// y = x mask / (1 - p):   dx = dy mask / (1 - p): the same function of dy. The mask is drawn again
// from the state, never stored.
Tensor dropout(const Tensor& x, double p, Rng& rng) {
  if (p == 0) return x;
  const RngState state = rng.reserve(1);
  return record("dropout", raw::dropout(x, p, state), {x},
                [=](const Tensor& dy) -> Grads { return {raw::dropout(dy, p, state)}; });
}

// Each pair (x0, x1) is turned by an angle t: y0 = x0 cos t - x1 sin t, y1 = x0 sin t + x1 cos t. A
// rotation's transpose is its inverse: dx is dy turned back. dy0/dt = -y1 and dy1/dt = y0, so dt =
// dy1 y0 - dy0 y1, summed over the batch and the heads that share the angle.
Tensor rotary(const Tensor& x, const Tensor& angles) {
  const Tensor y = raw::rotary(x, angles);
  return record("rotary", y, {x, angles},
                [angles = Saved(angles), y = saved_if(needs_grad(angles), y)](
                    const Tensor& dy, const Needs& needs) -> Grads {
                  Tensor dx, dangles;
                  if (needs[0]) dx = raw::rotary(dy, angles.get(), /*inverse=*/true);
                  if (needs[1]) {
                    const auto part = [](const Tensor& t, int64_t first) {
                      return raw::slice(t, -1, first, t.size(-1), 2);
                    };
                    const Tensor turn = raw::sub(raw::mul(part(dy, 1), part(y.get(), 0)),
                                                 raw::mul(part(dy, 0), part(y.get(), 1)));
                    dangles = raw::sum(turn, {0, 2});
                  }
                  return {dx, dangles};
                });
}

}  // namespace centroid
