// Convolutions: unfolding, folding and depthwise kernels, with strides, padding and dilation.
#include <catch2/catch.hpp>

#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// x, w, then dy of the result's shape.
Tensors inputs(const Shape& x, const Shape& w, const ConvOptions& o, Rng& rng) {
  const Tensor tx = randn(x, rng), tw = randn(w, rng);
  const Tensor y = x.size() == 3 ? raw::conv1d(tx, tw, {}, o) : raw::conv2d(tx, tw, {}, o);
  return {tx, tw, randn(y.shape(), rng)};
}

Computation convolution(const ConvOptions& o) {
  return [=](const Tensors& xs) {
    const bool one = xs[0].dim() == 3;
    const Tensor y = one ? raw::conv1d(xs[0], xs[1], {}, o) : raw::conv2d(xs[0], xs[1], {}, o);
    const raw::ConvGrads grads =
        one ? raw::conv1d_backward(xs[0], xs[1], xs[2], o, true, true, false)
            : raw::conv2d_backward(xs[0], xs[1], xs[2], o, true, true, false);
    return Tensors{y, grads.dx, grads.dw};
  };
}

struct Problem {
  Shape x, w;
  ConvOptions options;
};

void check(const std::vector<Problem>& problems) {
  Rng rng(1);
  for (const Problem& p : problems) {
    INFO(p.x << " " << p.w << " stride " << p.options.stride << " padding " << p.options.padding
             << " dilation " << p.options.dilation);
    CHECK(disagreement(convolution(p.options), inputs(p.x, p.w, p.options, rng)) == "");
  }
}

}  // namespace

TEST_CASE("cuda: conv2d") {
  check({{{1, 1, 1, 1}, {1, 1, 1, 1}, {}},
         {{2, 3, 9, 7}, {4, 3, 3, 3}, {1, 1, 1, 1}},
         {{2, 1, 11, 40}, {3, 1, 3, 3}, {2, 1, 1, 1}},
         {{1, 2, 13, 12}, {2, 2, 2, 4}, {3, 2, 2, 1}},
         {{1, 40, 5, 6}, {2, 40, 3, 3}, {1, 0, 1, 1}},  // columns of several blocks
         {{2, 3, 4, 5}, {2, 3, 1, 1}, {}},
         {{1, 1, 2, 2}, {1, 1, 5, 5}, {1, 3, 1, 1}},  // most of the kernel outside
         {{0, 2, 4, 4}, {3, 2, 3, 3}, {}}});
}

TEST_CASE("cuda: conv1d") {
  check({{{2, 3, 10}, {4, 3, 3}, {1, 1, 1, 1}},
         {{1, 2, 300}, {3, 2, 5}, {2, 2, 1, 1}},
         {{2, 5, 37}, {4, 5, 3}, {1, 4, 4, 1}}});
}

TEST_CASE("cuda: depthwise conv1d") {
  check({{{2, 3, 20}, {3, 1, 3}, {1, 1, 1, 3}},
         {{2, 4, 1}, {4, 1, 1}, {1, 0, 1, 4}},
         {{1, 2, 1500}, {2, 1, 31}, {1, 15, 1, 2}},  // several tiles
         {{2, 3, 50}, {3, 1, 6}, {1, 0, 1, 3}},
         {{1, 2, 5}, {2, 1, 9}, {1, 8, 1, 2}},
         {{1, 2, 90}, {2, 1, 40}, {1, 20, 1, 2}},  // more taps than a warp
         {{2, 3, 33}, {3, 1, 5}, {2, 2, 1, 3}},
         {{2, 3, 33}, {3, 1, 4}, {1, 3, 3, 3}},
         {{0, 3, 8}, {3, 1, 3}, {1, 1, 1, 3}}});
}

TEST_CASE("cuda: only the gradients that are asked for") {
  Rng rng(2);
  const ConvOptions o{1, 1, 1, 3};
  for (bool dx : {false, true}) {
    const auto f = [=](const Tensors& xs) {
      const raw::ConvGrads grads = raw::conv1d_backward(xs[0], xs[1], xs[2], o, dx, !dx, false);
      return Tensors{grads.dx, grads.dw};
    };
    CHECK(disagreement(f, inputs({2, 3, 20}, {3, 1, 3}, o, rng)) == "");
  }
}
