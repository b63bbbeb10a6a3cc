#pragma once
// Is a derivative right? Central differences against backward, in f64, along a random cotangent.
#include <functional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace centroid {

struct GradcheckOptions {
  uint64_t seed = 1;
  double step = 1e-5;           ///< of the central differences
  double tolerance = 1e-6;      ///< on |numeric - analytic| / max(1, |numeric|, |analytic|)
  bool allow_zero = false;      ///< accept a derivative that is zero everywhere
  /// Smallest distance to a decision (relu's corner, ties of max and top-k) at the inputs; inputs with
  /// a smaller one are redrawn. Undefined: the function has no decisions.
  std::function<double(const std::vector<Tensor>&)> decision_gap;
  int max_draws = 100;          ///< redraws before giving up with an Error
};

struct GradcheckReport {
  bool ok = false;
  double worst = 0;     ///< largest scaled difference
  std::string message;  ///< names the worst element: input, position, numeric and analytic value
};

using TensorFunction = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;

/// Checks the loss sum(w * f(x)) with random w against differences for every element of every f64
/// input that requires a gradient (integer inputs are passed through). Also checks that backward run
/// twice gives the same bits, that transposed (non-contiguous) inputs give the same gradients, that an
/// input used twice gets both contributions, and that no NaN appears. A derivative that is zero
/// everywhere fails as vacuous unless allowed. 
GradcheckReport gradcheck(const TensorFunction& f, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options = {});

}  // namespace centroid
