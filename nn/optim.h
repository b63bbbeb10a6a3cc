#pragma once
// Optimisers: one fused kernel per step for all parameters, state by parameter name.
#include <string>
#include <utility>
#include <vector>

#include "nn/module.h"

namespace centroid::nn {

/// What `Optimizer` is made from.
struct OptimizerOptions {
  std::string kind = "adamw";  ///< sgd, adam, adamw, radam
  double lr = 1e-3;
  double weight_decay = 0;  ///< coupled for sgd, adam and radam, decoupled for adamw
  double momentum = 0;      ///< sgd
  bool nesterov = false;    ///< sgd
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  bool decay_vectors = false;  ///< also decay biases, gains and other 1-D parameters
};

/// SGD (with momentum), Adam (Kingma & Ba, 2015), AdamW (Loshchilov & Hutter, 2019) and RAdam (Liu
/// et al., 2020, with the un-rectified step while rho_t <= 5). Parameters without a gradient are
/// left alone; bias corrections count each parameter's own updates, so unfreezing one later is
/// sound.
class Optimizer {
 public:
  /// Holds handles to `parameters`: make it after the model is on its device. Throws for an unknown
  /// kind, options out of range, and parameters that are not contiguous, not float, not all on one
  /// device or share a name.
  Optimizer(NamedTensors parameters, const OptimizerOptions& options);
  /// One step with learning rate `lr`; throws, before anything changes, if `lr` is negative or not
  /// finite. `scale` (1) f64 on the parameters' device, when defined, multiplies the gradients; one
  /// that is not finite leaves parameters and moments alone.
  void step(double lr, const Tensor& scale = {});
  /// Uncounts the last step, for a caller who has learnt that its scale was not finite. Gradients
  /// have to be defined for the same parameters as in the step.
  void retract();
  /// Drops all gradients.
  void zero_grad();
  /// Steps taken so far.
  int64_t steps() const { return step_; }
  const OptimizerOptions& options() const { return options_; }
  const NamedTensors& parameters() const { return parameters_; }
  /// What a resumed run needs: `step` (1) i64 and, for each parameter that has been updated,
  /// `<parameter>.updates` (1) i64 with `<parameter>.momentum` (sgd with momentum) or
  /// `<parameter>.m` and `<parameter>.v` (the others), shaped like the parameter. Shares memory
  /// with the optimiser.
  NamedTensors state() const;
  /// Copies a state that `state` returned. Throws one Error that lists every key that is missing,
  /// unexpected or of another shape or dtype, and then changes nothing.
  void load_state(const NamedTensors& state);

 private:
  // First and second moment (for sgd, `m` is the momentum); undefined before the first update.
  struct Slot {
    Tensor m, v;
    int64_t updates = 0;
  };
  bool updates(size_t i) const;  // whether a step changes parameter i
  double decay_of(const Tensor& w) const;
  void sgd(double lr, const Tensor& scale) const;
  void adam(double lr, const Tensor& scale) const;
  std::vector<std::pair<std::string, Tensor Slot::*>> slot_tensors() const;

  NamedTensors parameters_;
  OptimizerOptions options_;
  std::vector<Slot> slots_;  // one per parameter, in the same order
  int64_t step_ = 0;
};

/// The factor r_t of RAdam's step number `t` >= 1 (Liu et al., 2020, algorithm 2), or 0 where the
/// variance of the adaptive rate is intractable (rho_t <= 5) and the step is not adapted.
double radam_rectifier(int64_t t, double beta2);

/// Scales all gradients so that their global norm is at most `max_norm` (0: only measures) and
/// returns the norm before. A non-finite norm leaves the gradients alone.
double clip_grad_norm(const NamedTensors& parameters, double max_norm);

/// The norm of all gradients and the factor, for Optimizer::step, that brings it down to a maximum;
/// both (1) f64 on the gradients' device.
struct GradNorm {
  Tensor norm, scale;
};
/// As clip_grad_norm, but nothing waits for the device and the gradients stay as they are. The
/// factor of a norm that is not finite is NaN.
GradNorm grad_norm(const NamedTensors& parameters, double max_norm);

/// Exponential moving average of parameters: average = decay * average + (1 - decay) * value.
class Ema {
 public:
  /// Starts from copies of the values; throws unless 0 <= decay < 1.
  Ema(const NamedTensors& parameters, double decay);
  /// Throws if `parameters` are not those of the constructor, by name and order.
  void update(const NamedTensors& parameters);
  /// The averages by parameter name; copy into them (raw::copy_) to restore a saved state.
  NamedTensors& averages() { return averages_; }
  /// Exchanges the averages with the parameters' values: call before and after an evaluation.
  void swap(const NamedTensors& parameters);

 private:
  void check(const NamedTensors& parameters) const;

  NamedTensors averages_;
  double decay_;
};

}  // namespace centroid::nn
