#pragma once
// Checks of whole models, shared by the tests of modules.
#include <catch2/catch.hpp>
#include <functional>
#include <string>

#include "autograd/ops.h"
#include "nn/module.h"
#include "tests/support.h"

namespace centroid::test {

inline std::string not_zero(const Tensor& x) {
  return mismatch(x, zeros(x.shape(), x.dtype()), 0, 0);
}

// Central differences for a few elements of every parameter of `model`.
inline void check_parameter_gradients(const nn::Module& model,
                                      const std::function<Tensor()>& loss) {
  backward(loss());
  Rng rng(5);
  for (const auto& [name, parameter] : model.named_parameters()) {
    INFO(name);
    const Tensor grad = parameter.grad();
    REQUIRE(grad.defined());
    for (int draw = 0; draw < 3; ++draw) {
      const auto i = static_cast<int64_t>(rng.below(parameter.numel()));
      double* value = parameter.data<double>() + i;
      const double start = *value, step = 1e-5;
      NoGrad off;
      *value = start + step;
      const double up = loss().item();
      *value = start - step;
      const double down = loss().item();
      *value = start;
      CHECK(doubles(grad)[i] == Approx((up - down) / (2 * step)).epsilon(1e-5).margin(1e-7));
    }
  }
}

}  // namespace centroid::test
