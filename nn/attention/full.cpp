// Softmax attention over all keys (Vaswani et al., "Attention is all you need", 2017), fused: tiles
// with online softmax, forward and backward, and nothing of size L x S.
#include "nn/attention/common.h"
#include "nn/decode.h"

namespace centroid::nn {

namespace {

class Full : public Attention {
 public:
  explicit Full(const AttentionOptions& options)
      : dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "full");
    const KeyMask mask =
        raw::key_mask(input.q, input.k, input.q_lengths, input.k_lengths, input.causal);
    return tile_attention(input.q, input.k, input.v, mask, attention_scale(temperature_, input.q),
                          weight_dropout(dropout_, input))
        .out;
  }

  std::unique_ptr<DecodeState> start_decoding() const override {
    return std::make_unique<KeyValueCache>();
  }
  Tensor step(DecodeState& state, const AttentionInput& input) override {
    return step_with_cache(*this, state, input, "full");
  }

  Capabilities capabilities() const override {
    return {.causal = true,
            .cross = true,
            .key_order_invariant = true,
            .exact_options = "",
            .test_options = {"dropout=0.3,temperature=0.7"}};
  }

 private:
  double dropout_, temperature_;
};

const RegisterAttention kFull{
    "full",
    "softmax(temperature q k^T) v over all keys; time grows with L * S, memory with L + S",
    {{"dropout", "0", "probability of dropping an attention weight in training"},
     {"temperature", "0", "factor on q k^T before the softmax; 0: 1 / sqrt(head size)"}},
    [](const AttentionOptions& options) { return std::make_unique<Full>(options); }};

}  // namespace

}  // namespace centroid::nn
