// Each cluster of queries attends to the keys that score best for its mean, and to no others.
#include "nn/attention/common.h"

namespace centroid::nn {

namespace {

class ClusterTopk : public Attention {
 public:
  explicit ClusterTopk(const AttentionOptions& options)
      : clusters_(cluster_options(options)),
        dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)),
        topk_(options.integer("topk", 1, 1000000)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "cluster-topk");
    const Tensor &q = input.q, &k = input.k;
    const double scale = attention_scale(temperature_, q);
    Rng rng = choice_stream(input, *this);
    const Clusters clusters = choose_clusters(input, clusters_, rng);
    const Tensor keys = choice(input, "topk", [&] {  // (B, H, K, topk)
      const Tensor means = raw::group_sum(q, clusters, /*mean=*/true);
      const KeyMask mask = raw::key_mask(means, k, {}, input.k_lengths, false);
      return raw::tile_attention(means, k, Tensor(), mask, scale, {}, std::min(topk_, k.size(2)))
          .top_keys;
    });
    return gathered_attention(q, Tensor(), k, input.v, {clusters.order, clusters.offsets, keys},
                              KeyRule::all, scale, weight_dropout(dropout_, input), {},
                              /*partly=*/!input.q_lengths.empty())
        .out;
  }

  Capabilities capabilities() const override {
    return {.cross = true,
            .key_order_invariant = true,
            .exact_options = "clusters=2,topk=1000",
            .test_options = {"clusters=3,bits=8,topk=3,dropout=0.2"}};
  }

 private:
  ClusterOptions clusters_;
  double dropout_, temperature_;
  int64_t topk_;
};

const RegisterAttention kClusterTopk{
    "cluster-topk", "queries in one cluster attend to the best keys of their mean alone",
    cluster_option_specs({{"topk", "32", "keys per cluster"}}),
    [](const AttentionOptions& options) { return std::make_unique<ClusterTopk>(options); }};

}  // namespace

}  // namespace centroid::nn
