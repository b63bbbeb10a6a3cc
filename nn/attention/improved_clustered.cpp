// Improved clustered attention (Vyas, Katharopoulos and Fleuret, "Fast transformers with clustered
// attention", 2020, section 3.3): the keys that matter most to a cluster are weighed for each of
// its queries by exact dot products; the other keys as for the cluster's mean.
//
// With A the weights of the cluster's mean over all keys, T its top keys, m = sum_T A their mass
// and P_i the softmax of query i over T alone, the weights of query i are m P_i on T and A
// elsewhere. So
//   out_i = m sum_T P_i v + sum_{not T} A v = m top_i + (all - m top_of_mean)
// where all = sum A v, and top_of_mean = sum_T (A / m) v is the mean's own attention over T.
#include "nn/attention/common.h"

namespace centroid::nn {

namespace {

class ImprovedClustered : public Attention {
 public:
  explicit ImprovedClustered(const AttentionOptions& options)
      : clusters_(cluster_options(options)),
        dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)),
        topk_(options.integer("topk", 1, 1000000)),
        topp_(options.number("topp", 0, 1)),
        frozen_(options.text("mass_gradient") == "frozen") {
    CENTROID_CHECK(frozen_ || options.text("mass_gradient") == "exact",
                   "attention improved-clustered: option mass_gradient: expected exact or frozen, "
                   "got '",
                   options.text("mass_gradient"), "'");
  }

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "improved-clustered");
    const Tensor &q = input.q, &k = input.k, &v = input.v;
    const double scale = attention_scale(temperature_, q);
    Rng rng = choice_stream(input, *this);
    const Clusters clusters = choose_clusters(input, clusters_, rng);
    const Tensor means = group_sum(q, clusters, /*mean=*/true);  // (B, H, K, E)
    const Lengths counts = raw::cluster_counts(clusters_, query_lengths(input));
    const KeyMask mask = raw::key_mask(means, k, counts, input.k_lengths, false);
    const WeightDropout of_means = weight_dropout(dropout_, input);
    const Attended all = tile_attention(means, k, v, mask, scale, of_means,
                                        input.replay ? 0 : std::min(topk_, k.size(2)));
    const Tensor keys = choice(input, "topk", [&] { return top_keys(all); });
    const Attended top =
        gathered_attention(q, means, k, v, {clusters.order, clusters.offsets, keys}, KeyRule::all,
                           scale, weight_dropout(dropout_, input), of_means,
                           /*partly=*/!input.q_lengths.empty());
    const Tensor mass = mass_of(top.extra_lse, all.lse);  // (B, H, K)
    if (input.record) (*input.record)["mass"] = mass.detach();
    Tensor top_mass = mass;
    if (frozen_) {
      top_mass = raw::cast(choice(input, "mass", [&] { return mass.detach(); }), q.dtype());
    }
    return correct_rows(top.out, clusters, top_mass, mass, top.extra_out, all.out);
  }

  Capabilities capabilities() const override {
    return {.cross = true,
            .key_order_invariant = true,
            .exact_options = "clusters=2,topk=1000",
            .test_options = {"clusters=3,bits=8,topk=3",
                             "clusters=3,bits=8,topk=4,mass_gradient=frozen,dropout=0.2",
                             "clusters=0.4,bits=16,topk=5,topp=0.5"}};
  }

 private:
  // The best keys of each mean, as many as hold `topp` of its weight.
  Tensor top_keys(const Attended& all) const {
    if (topp_ == 0) return all.top_keys;
    const Tensor weights = raw::exp(raw::sub(all.top_scores, raw::unsqueeze(all.lse.detach(), -1)));
    const Tensor before = raw::sub(raw::cumsum(weights), weights);
    const Tensor none = centroid::full(all.top_keys.shape(), -1, DType::i32, weights.device());
    return raw::where(raw::compare(Compare::lt, before, topp_), all.top_keys, none);
  }

  ClusterOptions clusters_;
  double dropout_, temperature_;
  int64_t topk_;
  double topp_;
  bool frozen_;
};

const RegisterAttention kImprovedClustered{
    "improved-clustered",
    "clustered, with exact weights for the keys that matter most to each cluster",
    cluster_option_specs(
        {{"topk", "32", "keys per cluster that get exact weights"},
         {"topp", "0", "only as many of them as hold this share of the weight; 0: all"},
         {"mass_gradient", "exact", "exact, or frozen: the mass of the top keys is a constant"}}),
    [](const AttentionOptions& options) { return std::make_unique<ImprovedClustered>(options); }};

}  // namespace

}  // namespace centroid::nn
