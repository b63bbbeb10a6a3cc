// Attention by the angle between query and key: softmax(sharpness * cos(q, k)) v.
#include "autograd/ops.h"
#include "nn/attention.h"

namespace centroid::nn {

namespace {

// (..., E) -> the same rows with length 1
Tensor unit_rows(const Tensor& x) { return x * rsqrt(sum(square(x), {-1}, true) + 1e-6); }

class Cosine : public Attention {
 public:
  explicit Cosine(const AttentionOptions& options)
      : sharpness_(options.number("sharpness", 0.01, 1000)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "cosine");
    const Tensor q = unit_rows(input.q), k = unit_rows(input.k);
    const KeyMask mask = raw::key_mask(q, k, input.q_lengths, input.k_lengths, input.causal);
    return tile_attention(q, k, input.v, mask, sharpness_).out;
  }

  Capabilities capabilities() const override {
    return {.causal = true, .cross = true, .key_order_invariant = true, .exact_options = "-"};
  }

 private:
  double sharpness_;
};

const RegisterAttention kCosine{
    "cosine",
    "softmax(sharpness * cos(q, k)) v over all keys",
    {{"sharpness", "10", "how much a larger cosine counts"}},
    [](const AttentionOptions& options) { return std::make_unique<Cosine>(options); }};

}  // namespace

}  // namespace centroid::nn
