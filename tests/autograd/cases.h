#pragma once
// Every differentiable operation with the inputs it is tested on: one list for all tests that hold
// for every operation (gradcheck, f32 against f64, ...).
#include <algorithm>
#include <string>
#include <vector>

#include "autograd/gradcheck.h"
#include "autograd/ops.h"
#include "tests/support.h"

namespace centroid::test {

using Tensors = std::vector<Tensor>;

struct Case {
  std::string name;  // "operation" or "operation: what is special about this case"
  TensorFunction f;
  Tensors inputs;
  GradcheckOptions options;
};

/// f64 values in [low, high) that require a gradient.
inline Tensor param(const Shape& shape, double low = -2, double high = 2, uint64_t seed = 7) {
  Rng rng(seed, to_string(shape));
  Tensor x = randu(shape, rng, low, high);
  x.set_requires_grad();
  return x;
}

/// The smallest distance of an element of any input from `corner`.
inline std::function<double(const Tensors&)> away_from(std::vector<double> corners) {
  return [=](const Tensors& xs) {
    double gap = 1e9;
    for (const Tensor& x : xs) {
      if (!is_float(x.dtype())) continue;
      for (double v : doubles(x)) {
        for (double corner : corners) gap = std::min(gap, std::fabs(v - corner));
      }
    }
    return gap;
  };
}

/// The smallest distance between any two elements, of one input or of two.
inline double no_ties(const Tensors& xs) {
  std::vector<double> all;
  for (const Tensor& x : xs) {
    const std::vector<double> values = doubles(x);
    all.insert(all.end(), values.begin(), values.end());
  }
  std::sort(all.begin(), all.end());
  double gap = 1e9;
  for (size_t i = 1; i < all.size(); ++i) gap = std::min(gap, all[i] - all[i - 1]);
  return gap;
}

inline GradcheckOptions gap(std::function<double(const Tensors&)> f, double min_gap = 1e-4) {
  GradcheckOptions options;
  options.decision_gap = std::move(f);
  options.min_gap = min_gap;
  return options;
}

inline GradcheckOptions zero_allowed() {
  GradcheckOptions options;
  options.allow_zero = true;
  return options;
}

std::vector<Case> pointwise_cases();
std::vector<Case> shape_cases();
std::vector<Case> reduce_cases();
std::vector<Case> matmul_cases();
std::vector<Case> nn_cases();
std::vector<Case> index_cases();
std::vector<Case> loss_cases();
std::vector<Case> attention_cases();

inline std::vector<Case> all_cases() {
  std::vector<Case> all;
  for (auto& part : {pointwise_cases(), shape_cases(), reduce_cases(), matmul_cases(), nn_cases(),
                     index_cases(), loss_cases(), attention_cases()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace centroid::test
