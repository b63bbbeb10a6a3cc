#pragma once
// Optimisers: one fused kernel per parameter and step, state by parameter name.
#include <map>
#include <string>

#include "nn/module.h"

namespace centroid::nn {

struct OptimizerOptions {
  std::string kind = "adamw";  ///< sgd, adam, adamw, radam
  double lr = 1e-3;
  double weight_decay = 0;  ///< coupled for sgd, adam and radam, decoupled for adamw
  double momentum = 0;      ///< sgd
  bool nesterov = false;    ///< sgd
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  bool decay_vectors = false;  ///< also decay biases, gains and other 1-D parameters
};

/// SGD (with momentum), Adam (Kingma & Ba, 2015), AdamW (Loshchilov & Hutter, 2019) and RAdam (Liu et
/// al., 2020). Parameters without a gradient are left alone.
class Optimizer {
 public:
  Optimizer(NamedTensors parameters, const OptimizerOptions& options);
  /// One step with learning rate `lr`.
  void step(double lr);
  void zero_grad();
  int64_t steps() const { return step_; }
  const OptimizerOptions& options() const { return options_; }
  const NamedTensors& parameters() const { return parameters_; }
  /// State tensors by `<parameter>.m`, `<parameter>.v`, ... and the step count as `step` (1) i64.
  NamedTensors state() const;
  void load_state(const NamedTensors& state);

 private:
  NamedTensors parameters_;
  OptimizerOptions options_;
  std::map<std::string, Tensor> state_;
  int64_t step_ = 0;
};

/// Scales all gradients so that their global norm is at most `max_norm` (0: only measures) and returns
/// the norm before. A non-finite norm leaves the gradients alone.
double clip_grad_norm(const NamedTensors& parameters, double max_norm);

/// Exponential moving average of parameters.
class Ema {
 public:
  Ema(const NamedTensors& parameters, double decay);
  void update(const NamedTensors& parameters);
  NamedTensors& averages() { return averages_; }
  /// Exchanges the averages with the parameters' values: call before and after an evaluation.
  void swap(const NamedTensors& parameters);

 private:
  NamedTensors averages_;
  double decay_;
};

}  // namespace centroid::nn
