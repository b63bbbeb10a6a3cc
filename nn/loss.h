#pragma once
// Losses as scalars.
#include "autograd/ops.h"

namespace centroid::nn {

enum class Reduction { mean, sum };

/// logits (..., V), targets (...) i64 -> (). The mean is over targets that are not `ignore`; throws
/// when there are none (on a CUDA device, which is not waited for, the mean is then NaN).
/// `smoothing` s takes s of the mass from the target and spreads it over all classes (Szegedy et
/// al., "Rethinking the inception architecture", 2016).
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, int64_t ignore = -100,
                     double smoothing = 0, Reduction reduction = Reduction::mean);

/// mean or sum of (a - b)^2; throws unless a and b have one shape.
Tensor mse(const Tensor& a, const Tensor& b, Reduction reduction = Reduction::mean);

struct CtcOptions {
  int64_t blank = 0;
  Reduction reduction =
      Reduction::mean;  ///< mean: each loss / its target length, then over the batch
  /// A target that does not fit its input is an Error that names the item; with this, it counts as
  /// a loss of 0 with no gradient.
  bool zero_infeasible = false;
};
/// logits (B, T, V), targets one list of labels per item -> () (Graves et al., "Connectionist
/// temporal classification", ICML 2006). A target without labels is divided by 1.
Tensor ctc(const Tensor& logits, const Lengths& input_lengths,
           const std::vector<std::vector<int32_t>>& targets, const CtcOptions& options = {});

/// Input frames that a target needs at least: its length plus its immediate repeats.
int64_t ctc_min_frames(const std::vector<int32_t>& target);

}  // namespace centroid::nn
