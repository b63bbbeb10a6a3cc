// A variant with kernels of its own in its one file: the same as made of plain operations.
#include <catch2/catch.hpp>

#include "autograd/node.h"
#include "nn/attention.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;
using centroid::nn::make_attention;

namespace {

struct Case {
  std::string options;
  Shape shape;  // (B, H, L, E)
  int64_t value_width;
  bool causal;
  Lengths lengths{};
};

// {q, k, v, dout} -> {out, dq, dk, dv}
Tensors with_gradients(const Case& c, const Tensors& in) {
  const auto attention = make_attention("strided:" + c.options);
  Tensors leaves;
  for (int i = 0; i < 3; ++i) leaves.push_back(in[i].detach().set_requires_grad());
  const Tensor out = attention->attend({.q = leaves[0],
                                        .k = leaves[1],
                                        .v = leaves[2],
                                        .q_lengths = c.lengths,
                                        .k_lengths = c.lengths,
                                        .causal = c.causal});
  backward(out, in[3]);
  const auto heads_first = [](const Tensor& x) { return raw::transpose(x, 1, 2); };
  Tensors results{heads_first(out.detach())};
  for (const Tensor& leaf : leaves) results.push_back(heads_first(leaf.grad()));
  return results;
}

}  // namespace

TEST_CASE("cuda: a variant's own kernels agree with plain operations") {
  const std::vector<Case> cases = {{"stride=3,taps=2", {2, 3, 37, 8}, 8, false, Lengths({37, 11})},
                                   {"stride=3,taps=2", {2, 2, 37, 33}, 5, true, Lengths({30, 0})},
                                   {"stride=1,taps=1000", {1, 2, 19, 64}, 70, false},
                                   {"stride=5,taps=0", {1, 1, 9, 1}, 1, false},
                                   {"stride=50,taps=3", {1, 1, 1, 128}, 128, true},
                                   {"stride=4", {1, 1, 70, 40}, 20, true}};
  for (const Case& c : cases) {
    Rng rng(c.shape[2], "strided");
    Shape values = c.shape;
    values[3] = c.value_width;
    const Tensors inputs{randn(c.shape, rng), randn(c.shape, rng), randn(values, rng),
                         randn(values, rng)};
    INFO(c.options << ", " << c.shape << (c.causal ? ", causal" : ""));
    CHECK(disagreement([&](const Tensors& in) { return with_gradients(c, in); }, inputs) == "");
  }
}
