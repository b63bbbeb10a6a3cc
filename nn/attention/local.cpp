// Attention to the neighbourhood: a window of keys around each query. Time grows with L * window,
// memory with L.
#include "nn/attention/common.h"
#include "nn/decode.h"

namespace centroid::nn {

namespace {

class Local : public Attention {
 public:
  explicit Local(const AttentionOptions& options)
      : window_(options.integer("window", 0, 1000000000)),
        dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "local");
    const Tensor& q = input.q;
    KeyMask mask = raw::key_mask(q, input.k, input.q_lengths, input.k_lengths, input.causal);
    const Tensor at = arange(q.size(2), DType::i32, q.device());
    mask.begin = raw::add(at, static_cast<double>(-window_));
    if (!input.causal) mask.end = raw::add(at, static_cast<double>(window_ + 1));
    return tile_attention(q, input.k, input.v, mask, attention_scale(temperature_, q),
                          weight_dropout(dropout_, input))
        .out;
  }

  std::unique_ptr<DecodeState> start_decoding() const override {
    return std::make_unique<KeyValueCache>();
  }
  // The newest position against the window before it.
  Tensor step(DecodeState& state, const AttentionInput& input) override {
    check_step_input(input, capabilities(), "local");
    const NoGrad off;
    auto& past = state_as<KeyValueCache>(state, "local");
    past.k.append(input.k);
    past.v.append(input.v);
    const int64_t n = past.k.length(), first = std::max<int64_t>(0, n - window_ - 1);
    return tile_attention(input.q, raw::slice(past.k.rows(), 2, first, n),
                          raw::slice(past.v.rows(), 2, first, n), KeyMask{},
                          attention_scale(temperature_, input.q))
        .out;
  }

  Capabilities capabilities() const override {
    return {.causal = true,
            .exact_options = "window=1000",
            .test_options = {"window=2", "window=1,dropout=0.2"}};
  }

 private:
  int64_t window_;
  double dropout_, temperature_;
};

const RegisterAttention kLocal{
    "local",
    "each query attends to the keys within a window around it",
    {{"window", "64", "keys on either side that are seen; causal: on the left"},
     {"temperature", "0", "factor on q k^T before the softmax; 0: 1 / sqrt(head size)"},
     {"dropout", "0", "probability of dropping an attention weight in training"}},
    [](const AttentionOptions& options) { return std::make_unique<Local>(options); }};

}  // namespace

}  // namespace centroid::nn
