// Checks and shapes of the operations over rows; the arithmetic is in cpu/nn.cpp, norm.cpp,
// loss.cpp, ctc.cpp and forward_backward.cpp.
#include <cmath>

#include "tensor/check.h"
#include "tensor/ops.h"

namespace centroid::raw {
namespace {

// x as contiguous rows of its last dimension: (..., n) -> (R, n).
Tensor as_rows(const Tensor& x) {
  const int64_t n = x.size(-1);
  int64_t rows = 1;
  for (int i = 0; i + 1 < x.dim(); ++i) rows *= x.shape()[i];
  return reshape(contiguous(x), {rows, n});
}

Shape leading(const Tensor& x) {
  Shape shape = x.shape();
  shape.erase(shape.size() - 1);
  return shape;
}

Tensor empty_like(const Tensor& x) { return empty(x.shape(), x.dtype(), x.device()); }

void check_rows(const char* op, const char* name, const Tensor& x) {
  detail::check_floats(op, {{name, x}});
  CENTROID_CHECK(x.dim() > 0, op, ": ", name, ": expected at least one dimension, got a scalar");
}

void check_row_backward(const char* op, const Tensor& dy, const Tensor& y) {
  check_rows(op, "y", y);
  detail::check_floats(op, {{"y", y}, {"dy", dy}});
  detail::check_shape(op, "dy", dy, y.shape());
}

// The parameters of a layer norm: absent, or one value per element of a row.
void check_norm(const char* op, const Tensor& x, const Tensor& gain, const Tensor& bias) {
  check_rows(op, "x", x);
  detail::check_floats(op, {{"x", x}, {"gain", gain}, {"bias", bias}});
  if (gain.defined()) detail::check_shape(op, "gain", gain, {x.size(-1)});
  if (bias.defined()) detail::check_shape(op, "bias", bias, {x.size(-1)});
}

Tensor dense(const Tensor& x) { return x.defined() ? contiguous(x) : x; }

Lengths filled(const Lengths& lengths, int64_t batch, int64_t full) {
  return lengths.empty() ? Lengths(std::vector<int64_t>(batch, full)) : lengths;
}

// Targets on a device are checked by its kernels: to look at them here would be to wait for it.
bool can_look_at(const Tensor& targets) { return targets.device().kind == DeviceKind::cpu; }

void check_classes(const Tensor& targets, int64_t classes, int64_t ignore) {
  const std::vector<int64_t> labels = targets.to_vector<int64_t>();
  for (size_t i = 0; i < labels.size(); ++i) {
    CENTROID_CHECK(labels[i] == ignore || (labels[i] >= 0 && labels[i] < classes),
                   "cross_entropy: target at position ", i, ": expected 0 to ", classes - 1,
                   " or the ignored ", ignore, ", got ", labels[i]);
  }
}

void check_labels(const Tensor& targets, const Lengths& lengths, int64_t classes, int64_t blank) {
  const std::vector<int32_t> labels = targets.to_vector<int32_t>();
  for (int64_t b = 0; b < targets.size(0); ++b) {
    for (int64_t u = 0; u < lengths[b]; ++u) {
      const int32_t label = labels[b * targets.size(1) + u];
      CENTROID_CHECK(label >= 0 && label < classes && label != blank, "ctc: label ", u, " of item ",
                     b, ": expected one in [0, ", classes, ") other than blank ", blank, ", got ",
                     label);
    }
  }
}

}  // namespace

Tensor softmax(const Tensor& x) {
  check_rows("softmax", "x", x);
  const Tensor y = empty_like(x);
  CENTROID_DISPATCH(x.device(), softmax, as_rows(x), as_rows(y));
  return y;
}

Tensor softmax_backward(const Tensor& dy, const Tensor& y, double scale) {
  check_row_backward("softmax_backward", dy, y);
  const Tensor dx = empty_like(y);
  CENTROID_DISPATCH(y.device(), softmax_backward, as_rows(y), as_rows(dy), scale, as_rows(dx));
  return dx;
}

Tensor log_softmax(const Tensor& x) {
  check_rows("log_softmax", "x", x);
  const Tensor y = empty_like(x);
  CENTROID_DISPATCH(x.device(), log_softmax, as_rows(x), as_rows(y));
  return y;
}

Tensor log_softmax_backward(const Tensor& dy, const Tensor& y) {
  check_row_backward("log_softmax_backward", dy, y);
  const Tensor dx = empty_like(y);
  CENTROID_DISPATCH(y.device(), log_softmax_backward, as_rows(y), as_rows(dy), as_rows(dx));
  return dx;
}

Tensor masked_softmax(const Tensor& x, double scale, const Lengths& q_lengths,
                      const Lengths& k_lengths, bool causal) {
  detail::check_floats("masked_softmax", {{"x", x}});
  CENTROID_CHECK(x.dim() == 4, "masked_softmax: x: expected (B, H, L, S), got ", x.shape());
  q_lengths.check(x.size(0), x.size(2), "masked_softmax: queries");
  k_lengths.check(x.size(0), x.size(3), "masked_softmax: keys");
  const Tensor y = empty_like(x);
  CENTROID_DISPATCH(x.device(), masked_softmax, contiguous(x), scale, q_lengths.tensor(x.device()),
                    k_lengths.tensor(x.device()), causal, y);
  return y;
}

LayerNormResult layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double eps) {
  check_norm("layer_norm", x, gain, bias);
  CENTROID_CHECK(x.size(-1) > 0, "layer_norm: x: expected rows of at least one element, got ",
                 x.shape());
  CENTROID_CHECK(eps >= 0, "layer_norm: eps: expected >= 0, got ", eps);
  const Tensor rows = as_rows(x);
  const LayerNormResult result{empty_like(x), empty({rows.size(0)}, x.dtype(), x.device()),
                               empty({rows.size(0)}, x.dtype(), x.device())};
  CENTROID_DISPATCH(x.device(), layer_norm, rows, dense(gain), dense(bias), eps, as_rows(result.y),
                    result.mean, result.rstd);
  return result;
}

LayerNormGrads layer_norm_backward(const Tensor& x, const Tensor& gain, const Tensor& mean,
                                   const Tensor& rstd, const Tensor& dy, bool needs_dx,
                                   bool needs_dgain, bool needs_dbias) {
  constexpr const char* kOp = "layer_norm_backward";
  check_norm(kOp, x, gain, {});
  detail::check_floats(kOp, {{"x", x}, {"mean", mean}, {"rstd", rstd}, {"dy", dy}});
  const Tensor rows = as_rows(x);
  detail::check_shape(kOp, "mean", mean, {rows.size(0)});
  detail::check_shape(kOp, "rstd", rstd, {rows.size(0)});
  detail::check_shape(kOp, "dy", dy, x.shape());
  LayerNormGrads grads;
  if (needs_dx) grads.dx = empty_like(x);
  if (needs_dgain) grads.dgain = empty({x.size(-1)}, x.dtype(), x.device());
  if (needs_dbias) grads.dbias = empty({x.size(-1)}, x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), layer_norm_backward, rows, dense(gain), contiguous(mean),
                    contiguous(rstd), as_rows(dy), needs_dx ? as_rows(grads.dx) : Tensor(),
                    grads.dgain, grads.dbias);
  return grads;
}

LossAndGrad cross_entropy(const Tensor& logits, const Tensor& targets, int64_t ignore,
                          double smoothing, bool with_grad) {
  check_rows("cross_entropy", "logits", logits);
  detail::check_shape("cross_entropy", "targets", targets, leading(logits));
  CENTROID_CHECK(targets.dtype() == DType::i64, "cross_entropy: targets: expected i64, got ",
                 targets.dtype());
  CENTROID_CHECK(targets.device() == logits.device(),
                 "cross_entropy: devices differ: logits is on ", logits.device(), ", targets on ",
                 targets.device());
  CENTROID_CHECK(smoothing >= 0 && smoothing <= 1,
                 "cross_entropy: smoothing: expected 0 to 1, got ", smoothing);
  if (can_look_at(targets)) check_classes(targets, logits.size(-1), ignore);
  LossAndGrad result{empty(leading(logits), logits.dtype(), logits.device()), Tensor()};
  if (with_grad) result.dlogits = empty_like(logits);
  const Tensor rows = as_rows(logits);
  CENTROID_DISPATCH(logits.device(), cross_entropy, rows,
                    reshape(contiguous(targets), {rows.size(0)}), ignore, smoothing,
                    reshape(result.losses, {rows.size(0)}),
                    with_grad ? as_rows(result.dlogits) : Tensor());
  return result;
}

LossAndGrad ctc(const Tensor& logits, const Tensor& targets, const Lengths& input_lengths,
                const Lengths& target_lengths, int64_t blank, bool with_grad) {
  detail::check_floats("ctc", {{"logits", logits}});
  CENTROID_CHECK(logits.dim() == 3, "ctc: logits: expected (B, T, V), got ", logits.shape());
  const int64_t batch = logits.size(0), time = logits.size(1), classes = logits.size(2);
  CENTROID_CHECK(targets.defined() && targets.dim() == 2 && targets.size(0) == batch,
                 "ctc: targets: expected (", batch, ", U), got ",
                 targets.defined() ? to_string(targets.shape()) : "no tensor");
  CENTROID_CHECK(targets.dtype() == DType::i32, "ctc: targets: expected i32, got ",
                 targets.dtype());
  CENTROID_CHECK(targets.device() == logits.device(), "ctc: devices differ: logits is on ",
                 logits.device(), ", targets on ", targets.device());
  CENTROID_CHECK(blank >= 0 && blank < classes, "ctc: blank: expected one of the ", classes,
                 " classes, got ", blank);
  input_lengths.check(batch, time, "ctc: input");
  target_lengths.check(batch, targets.size(1), "ctc: target");
  const Lengths frames = filled(input_lengths, batch, time);
  const Lengths counts = filled(target_lengths, batch, targets.size(1));
  if (can_look_at(targets)) check_labels(targets, counts, classes, blank);

  LossAndGrad result{empty({batch}, logits.dtype(), logits.device()), Tensor()};
  if (with_grad) result.dlogits = empty_like(logits);
  if (batch == 0) return result;
  CENTROID_DISPATCH(logits.device(), ctc, contiguous(logits), contiguous(targets),
                    frames.tensor(logits.device()), counts.tensor(logits.device()), blank,
                    result.losses, result.dlogits);
  return result;
}

PathSums forward_backward(const Tensor& logits, const Lengths& lengths, const FsaBatch& fsa,
                          double leaky, bool with_posteriors) {
  detail::check_floats("forward_backward", {{"logits", logits}});
  CENTROID_CHECK(logits.dim() == 3, "forward_backward: logits: expected (B, T, V), got ",
                 logits.shape());
  const int64_t batch = logits.size(0), time = logits.size(1);
  CENTROID_CHECK(fsa.count == 1 || fsa.count == batch, "forward_backward: ", fsa.count,
                 " acceptors for a batch of ", batch, ", expected 1 or ", batch);
  CENTROID_CHECK(fsa.classes == logits.size(2), "forward_backward: acceptors of ", fsa.classes,
                 " classes, logits ", logits.shape());
  CENTROID_CHECK(fsa.initial.device() == logits.device(),
                 "forward_backward: devices differ: ", "logits is on ", logits.device(),
                 ", the acceptors on ", fsa.initial.device());
  CENTROID_CHECK(std::isfinite(leaky) && leaky >= 0 && (leaky == 0 || fsa.leaks),
                 "forward_backward: leaky: expected 0, or a positive coefficient with acceptors ",
                 "that say where to leak, got ", leaky);
  lengths.check(batch, time, "forward_backward");
  PathSums result{empty({batch}, DType::f64, logits.device()), Tensor()};
  if (with_posteriors) result.posteriors = empty_like(logits);
  if (batch == 0) return result;
  CENTROID_DISPATCH(logits.device(), forward_backward, contiguous(logits),
                    filled(lengths, batch, time).tensor(logits.device()), fsa, leaky, result.log_z,
                    result.posteriors);
  return result;
}

Tensor rotary(const Tensor& x, const Tensor& angles, bool inverse) {
  detail::check_floats("rotary", {{"x", x}, {"angles", angles}});
  CENTROID_CHECK(x.dim() == 4 && x.size(3) % 2 == 0,
                 "rotary: x: expected (B, L, H, E) with even E, got ", x.shape());
  detail::check_shape("rotary", "angles", angles, {x.size(1), x.size(3) / 2});
  const Tensor y = empty_like(x);
  CENTROID_DISPATCH(x.device(), rotary, x, contiguous(angles), inverse, y);
  return y;
}

}  // namespace centroid::raw
