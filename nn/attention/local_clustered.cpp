// Exact attention to the neighbourhood, clustered attention to everything else: for sequences such
// as speech, where most of the weight is near and the rest is spread out.
//
//   near  keys within a window: the query's own exponentials e^(scale q . k)
//   far   all other keys: those of the mean of the query's cluster, e^(scale mean . k)
//
// The far part is the mean's attention to all keys, computed once per cluster, less its attention
// to the keys in the query's window: a second windowed attention, with the mean in the query's
// place. All three are merged by their log-sum-exps. Where the mean has next to no weight outside
// of the window, less than the difference's rounding, the query attends to its window alone.
#include "nn/attention/common.h"

namespace centroid::nn {

namespace {

class LocalClustered : public Attention {
 public:
  explicit LocalClustered(const AttentionOptions& options)
      : clusters_(cluster_options(options)),
        dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)),
        window_(options.integer("window", 0, 1000000000)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "local-clustered");
    const Tensor &q = input.q, &k = input.k, &v = input.v;
    const double scale = attention_scale(temperature_, q);
    Rng rng = choice_stream(input, *this);
    const Clusters clusters = choose_clusters(input, clusters_, rng);
    const Tensor means = group_sum(q, clusters, /*mean=*/true);  // (B, H, K, E)
    const Lengths counts = raw::cluster_counts(clusters_, query_lengths(input));
    const KeyMask whole = raw::key_mask(means, k, counts, input.k_lengths, false);
    const Attended of_means = tile_attention(means, k, v, whole, scale);
    Attended all;
    all.out = group_broadcast(of_means.out, clusters);
    all.lse = squeeze(group_broadcast(unsqueeze(of_means.lse, -1), clusters), 3);

    KeyMask window = raw::key_mask(q, k, input.q_lengths, input.k_lengths, false);
    const Tensor at = arange(q.size(2), DType::i32, q.device());
    window.begin = raw::add(at, static_cast<double>(-window_));
    window.end = raw::add(at, static_cast<double>(window_ + 1));
    const Attended near = tile_attention(q, k, v, window, scale, weight_dropout(dropout_, input));
    const Attended taken = tile_attention(group_broadcast(means, clusters), k, v, window, scale);
    return merge_attention({all, near, taken}, {1, 1, -1}).out;
  }

  Capabilities capabilities() const override {
    return {
        .exact_options = "window=1000,clusters=2",
        .test_options = {"window=1,clusters=3,bits=8", "window=2,clusters=2,bits=16,dropout=0.2"}};
  }

 private:
  ClusterOptions clusters_;
  double dropout_, temperature_;
  int64_t window_;
};

const RegisterAttention kLocalClustered{
    "local-clustered", "exact within a window, clustered attention to the keys outside of it",
    cluster_option_specs({{"window", "16", "keys on either side with exact weights"}}),
    [](const AttentionOptions& options) { return std::make_unique<LocalClustered>(options); }};

}  // namespace

}  // namespace centroid::nn
