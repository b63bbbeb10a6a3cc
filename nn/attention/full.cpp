// Softmax attention over all keys (Vaswani et al., "Attention is all you need", 2017), as a plain
// composition. It forms the (L, S) matrix of weights; the specification that others are compared
// with.
#include <cmath>

#include "autograd/ops.h"
#include "nn/attention.h"

namespace centroid::nn {

namespace {

class Full : public Attention {
 public:
  explicit Full(const AttentionOptions& options)
      : dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "full");
    const double scale =
        temperature_ > 0 ? temperature_ : 1 / std::sqrt(static_cast<double>(input.q.size(3)));
    const Tensor scores = matmul(input.q, transpose(input.k, 2, 3));  // (B, H, L, S)
    Tensor weights = masked_softmax(scores, scale, input.q_lengths, input.k_lengths, input.causal);
    if (input.training && dropout_ > 0) weights = dropout(weights, dropout_, *input.rng);
    return heads_last(matmul(weights, input.v));
  }

  Capabilities capabilities() const override {
    return {.causal = true, .cross = true, .key_order_invariant = true, .exact_options = ""};
  }

 private:
  double dropout_, temperature_;
};

const RegisterAttention kFull{
    "full",
    "softmax(temperature q k^T) v over all keys; time and memory grow with L * S",
    {{"dropout", "0", "probability of dropping an attention weight in training"},
     {"temperature", "0", "factor on q k^T before the softmax; 0: 1 / sqrt(head size)"}},
    [](const AttentionOptions& options) { return std::make_unique<Full>(options); }};

}  // namespace

}  // namespace centroid::nn
