#pragma once
// Is a derivative right? Central differences against backward, in f64, along a random cotangent.
#include <functional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace centroid {

struct GradcheckOptions {
  uint64_t seed = 1;
  double step = 1e-5;       ///< of the central differences
  double tolerance = 1e-6;  ///< on |numeric - analytic| / max(1, |numeric|, |analytic|)
  bool allow_zero = false;  ///< accept a derivative that is zero everywhere
  /// Smallest distance to a decision (relu's corner, ties of max and top-k) at the inputs. Inputs
  /// with one below `min_gap` are redrawn: normal noise is added. Undefined: the function has no
  /// decisions.
  std::function<double(const std::vector<Tensor>&)> decision_gap;
  double min_gap = 1e-3;
  int max_draws = 100;  ///< redraws before giving up with an Error
};

struct GradcheckReport {
  bool ok = false;
  double worst = 0;     ///< largest scaled difference
  std::string message;  ///< names the worst element: input, position, numeric and analytic value
};

using TensorFunction = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;

/// Checks the loss sum(w * f(x)) with random w against differences for every element of every f64
/// input that requires a gradient (integer inputs are passed through). Also checks that backward
/// run twice gives the same bits, that transposed (non-contiguous) inputs give the same gradients,
/// that an input used twice gets both contributions, and that no NaN appears. An input whose
/// derivative is zero everywhere fails as vacuous unless allowed. `f` is called once per element
/// and side, and must give the same result for the same inputs. An Error thrown by backward becomes
/// a failed report; one thrown by `f` passes through. Throws when no input can be checked.
GradcheckReport gradcheck(const TensorFunction& f, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options = {});

}  // namespace centroid
