// Clustered attention (Vyas, Katharopoulos and Fleuret, "Fast transformers with clustered
// attention", 2020, section 3.2): queries that are alike share one row of attention weights, that
// of their mean. Time grows with L * clusters, memory with L + clusters.
#include "nn/attention/common.h"

namespace centroid::nn {

namespace {

class Clustered : public Attention {
 public:
  explicit Clustered(const AttentionOptions& options)
      : clusters_(cluster_options(options)),
        dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "clustered");
    Rng rng = choice_stream(input, *this);
    const Clusters clusters = choose_clusters(input, clusters_, rng);
    const Tensor centroids = group_sum(input.q, clusters, /*mean=*/true);  // (B, H, K, E)
    const Lengths counts = raw::cluster_counts(clusters_, query_lengths(input));
    const KeyMask mask = raw::key_mask(centroids, input.k, counts, input.k_lengths, false);
    const Attended rows =
        tile_attention(centroids, input.k, input.v, mask, attention_scale(temperature_, input.q),
                       weight_dropout(dropout_, input));
    return group_broadcast(rows.out, clusters);
  }

  Capabilities capabilities() const override {
    return {.cross = true,
            .key_order_invariant = true,
            .exact_options = "",
            .test_options = {"clusters=3,bits=8",
                             "clusters=0.4,bits=64,hash_bias=false,iterations=2,dropout=0.2"}};
  }

 private:
  ClusterOptions clusters_;
  double dropout_, temperature_;
};

const RegisterAttention kClustered{
    "clustered", "queries in one cluster share the attention weights of their mean",
    cluster_option_specs({}),
    [](const AttentionOptions& options) { return std::make_unique<Clustered>(options); }};

}  // namespace

}  // namespace centroid::nn
