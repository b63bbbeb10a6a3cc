// Each query attends to the keys with its largest dot products alone: the oracle of the
// clustered-attention paper. Finding them takes all L * S products, but memory of L * topk only.
#include "nn/attention/common.h"
#include "nn/decode.h"

namespace centroid::nn {

namespace {

class ExactTopk : public Attention {
 public:
  explicit ExactTopk(const AttentionOptions& options)
      : topk_(options.integer("topk", 1, 1000000)),
        dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "exact-topk");
    const Tensor &q = input.q, &k = input.k;
    const int64_t queries = q.size(2), heads = q.size(1);
    const double scale = attention_scale(temperature_, q);
    const Tensor keys = choice(input, "topk", [&] {
      const KeyMask mask = raw::key_mask(q, k, input.q_lengths, input.k_lengths, input.causal);
      return raw::tile_attention(q, k, Tensor(), mask, scale, {}, std::min(topk_, k.size(2)))
          .top_keys;
    });
    const auto each = [&](int64_t n) {  // 0, 1, ..., n - 1 for every item and head
      return raw::contiguous(raw::expand(arange(n, DType::i32, q.device()), {q.size(0), heads, n}));
    };
    return gathered_attention(q, Tensor(), k, input.v, {each(queries), each(queries + 1), keys},
                              KeyRule::all, scale, weight_dropout(dropout_, input))
        .out;
  }

  std::unique_ptr<DecodeState> start_decoding() const override {
    return std::make_unique<KeyValueCache>();
  }
  Tensor step(DecodeState& state, const AttentionInput& input) override {
    return step_with_cache(*this, state, input, "exact-topk");
  }

  Capabilities capabilities() const override {
    return {.causal = true,
            .cross = true,
            .key_order_invariant = true,
            .exact_options = "topk=1000",
            .test_options = {"topk=3,dropout=0.2"}};
  }

 private:
  int64_t topk_;
  double dropout_, temperature_;
};

const RegisterAttention kExactTopk{
    "exact-topk",
    "each query attends to the keys with its largest dot products; time grows with L * S",
    {{"topk", "32", "keys per query"},
     {"temperature", "0", "factor on q k^T before the softmax; 0: 1 / sqrt(head size)"},
     {"dropout", "0", "probability of dropping an attention weight in training"}},
    [](const AttentionOptions& options) { return std::make_unique<ExactTopk>(options); }};

}  // namespace

}  // namespace centroid::nn
