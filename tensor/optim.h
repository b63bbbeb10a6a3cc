#pragma once
// Optimiser kernels step a whole list of parameters in one call: what they take, and the arithmetic
// of one element, which all devices share.
#include <array>
#include <cmath>
#include <vector>

#include "tensor/philox.h"
#include "tensor/tensor.h"

namespace centroid {

/// A parameter for sgd_step; `decay` is added to the gradient as decay * w.
struct SgdTensors {
  Tensor w, dw, momentum;
  double decay = 0;
};

/// A parameter for adam_step. correctionN = 1 - betaN^t. rectify > 0 multiplies the adaptive step
/// (1 for Adam); rectify = 0 takes the step m / correction1 without v (RAdam's first steps).
struct AdamTensors {
  Tensor w, dw, m, v;
  double decay = 0, correction1 = 1, correction2 = 1, rectify = 1;
};

/// What all parameters of an adam_step have in common; decoupled decay (AdamW) shrinks w instead of
/// adding to the gradient.
struct AdamRule {
  double lr, beta1, beta2, eps;
  bool decoupled;
};

/// The tensors of an average for ema_step.
struct EmaTensors {
  Tensor average, value;
};

/// The tensors of a list's entry, in order; those that it has not are null.
using EntryTensors = std::array<const Tensor*, 4>;
inline EntryTensors tensors_of(const Tensor& x) { return {&x}; }
inline EntryTensors tensors_of(const SgdTensors& p) { return {&p.w, &p.dw, &p.momentum}; }
inline EntryTensors tensors_of(const AdamTensors& p) { return {&p.w, &p.dw, &p.m, &p.v}; }
inline EntryTensors tensors_of(const EmaTensors& p) { return {&p.average, &p.value}; }

// An update takes one element of each of an entry's tensors and changes all but the second, which
// is the gradient, or the value to be averaged.
namespace update {

/// w -= lr (dw + decay w)
template <typename T>
struct Sgd {
  static constexpr int kTensors = 2;
  T lr, decay;

  Sgd() = default;
  Sgd(const SgdTensors& p, double rate)
      : lr(static_cast<T>(rate)), decay(static_cast<T>(p.decay)) {}
  CENTROID_HD void operator()(T (&x)[2]) const { x[0] -= lr * (x[1] + decay * x[0]); }
};

/// v = mu v + g, and w -= lr v, or lr (g + mu v) for Nesterov's form.
template <typename T>
struct SgdMomentum {
  static constexpr int kTensors = 3;
  T lr, decay, mu;
  bool nesterov;

  SgdMomentum() = default;
  SgdMomentum(const SgdTensors& p, double rate, double momentum, bool nesterov_form)
      : lr(static_cast<T>(rate)),
        decay(static_cast<T>(p.decay)),
        mu(static_cast<T>(momentum)),
        nesterov(nesterov_form) {}
  CENTROID_HD void operator()(T (&x)[3]) const {
    const T g = x[1] + decay * x[0];
    const T velocity = mu * x[2] + g;
    x[2] = velocity;
    x[0] -= lr * (nesterov ? g + mu * velocity : velocity);
  }
};

/// Adam (Kingma and Ba, 2015); decoupled decay: AdamW (Loshchilov and Hutter, 2019); rectify: RAdam
/// (Liu et al., 2020). The constants are combined in double and rounded once.
template <typename T>
struct Adam {
  static constexpr int kTensors = 4;
  T beta1, one_minus_beta1, beta2, one_minus_beta2;
  T keep;       // 1 - lr * decay, when the decay is decoupled
  T coupled;    // decay that is added to the gradient
  T rate;       // of m / (sqrt(v) * root + eps), or of m when there is no v
  T root, eps;  // root = 1 / sqrt(correction2)
  bool adaptive;

  Adam() = default;
  Adam(const AdamTensors& p, const AdamRule& rule)
      : beta1(static_cast<T>(rule.beta1)),
        one_minus_beta1(static_cast<T>(1 - rule.beta1)),
        beta2(static_cast<T>(rule.beta2)),
        one_minus_beta2(static_cast<T>(1 - rule.beta2)),
        keep(static_cast<T>(rule.decoupled ? 1 - rule.lr * p.decay : 1)),
        coupled(static_cast<T>(rule.decoupled ? 0 : p.decay)),
        rate(static_cast<T>(p.rectify > 0 ? rule.lr * p.rectify / p.correction1
                                          : rule.lr / p.correction1)),
        root(static_cast<T>(1 / std::sqrt(p.correction2))),
        eps(static_cast<T>(rule.eps)),
        adaptive(p.rectify > 0) {}
  CENTROID_HD void operator()(T (&x)[4]) const {
    const T g = x[1] + coupled * x[0];
    x[2] = beta1 * x[2] + one_minus_beta1 * g;
    x[3] = beta2 * x[3] + one_minus_beta2 * g * g;
    const T step = adaptive ? rate * x[2] / (std::sqrt(x[3]) * root + eps) : rate * x[2];
    x[0] = keep * x[0] - step;
  }
};

/// average += rate * (value - average)
template <typename T>
struct Ema {
  static constexpr int kTensors = 2;
  T rate;

  Ema() = default;
  Ema(const EmaTensors&, double r) : rate(static_cast<T>(r)) {}
  CENTROID_HD void operator()(T (&x)[2]) const { x[0] += rate * (x[1] - x[0]); }
};

}  // namespace update
}  // namespace centroid
