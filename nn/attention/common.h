#pragma once
// What the variants of this folder share: options, scale, dropout, and choices that are recorded
// and replayed.
#include <cmath>

#include "autograd/ops.h"
#include "autograd/recompute.h"
#include "nn/attention.h"

namespace centroid::nn {

/// `temperature`, or 1 / sqrt(E) where it is 0.
inline double attention_scale(double temperature, const Tensor& q) {
  return temperature > 0 ? temperature : 1 / std::sqrt(static_cast<double>(q.size(3)));
}

/// Dropout of attention weights in training; one block of the stream.
inline WeightDropout weight_dropout(double p, const AttentionInput& input) {
  if (!input.training || p == 0) return {};
  return {p, input.rng->reserve(1)};
}

/// A stream for drawing hash planes and alike. It takes the same share of `input.rng` whether or
/// not it is used, so that what is drawn later does not depend on choices being replayed. Without
/// a stream: that of the module's path.
inline Rng choice_stream(const AttentionInput& input, const Attention& attention) {
  constexpr uint64_t kBlocks = uint64_t{1} << 32;
  return input.rng ? Rng(input.rng->reserve(kBlocks)) : Rng(0, attention.path());
}

/// The choice called `name`: replayed if asked for, else `choose()`, which a second run under
/// `recompute` repeats. Recorded if asked for.
template <typename F>
Tensor choice(const AttentionInput& input, const std::string& name, const F& choose) {
  Tensor chosen;
  if (input.replay) {
    const auto found = input.replay->find(name);
    CENTROID_CHECK(found != input.replay->end(), "attention: replay: no choice called '", name,
                   "'");
    chosen = found->second;
  } else {
    chosen = replayable([&] { return std::vector<Tensor>{choose()}; })[0];
  }
  if (input.record) (*input.record)[name] = chosen;
  return chosen;
}

/// The options of every variant that clusters queries, and their values.
inline std::vector<OptionSpec> cluster_option_specs(std::vector<OptionSpec> more) {
  std::vector<OptionSpec> specs = {
      {"clusters", "100", "groups of queries per head; below 1: a fraction of the length"},
      {"bits", "63", "of the sign hash, 1 to 64"},
      {"iterations", "10", "of k-means in Hamming space"},
      {"hash_bias", "true", "hash planes off the origin"},
      {"temperature", "0", "factor on q k^T before the softmax; 0: 1 / sqrt(head size)"},
      {"dropout", "0", "probability of dropping an attention weight in training"}};
  specs.insert(specs.end(), more.begin(), more.end());
  return specs;
}
inline ClusterOptions cluster_options(const AttentionOptions& options) {
  const ClusterOptions result{.clusters = options.number("clusters", 1e-6, 1e9),
                              .bits = options.integer("bits", 1, 64),
                              .iterations = options.integer("iterations", 1, 10000),
                              .bias = options.flag("hash_bias")};
  raw::check_options(result);
  return result;
}

/// Lengths of all queries, the whole tensor where none are given.
inline Lengths query_lengths(const AttentionInput& input) {
  const Tensor& q = input.q;
  return input.q_lengths.empty() ? Lengths(std::vector<int64_t>(q.size(0), q.size(2)))
                                 : input.q_lengths;
}

/// The clusters with these labels. Only those that come from outside are checked, which waits for
/// the device.
inline Clusters clusters_of_choice(const AttentionInput& input, const Tensor& labels,
                                   int64_t count) {
  return input.replay ? raw::clusters_of_labels(labels, count)
                      : raw::clusters_of_valid_labels(labels, count);
}

/// The clusters of the queries: the choice "labels"; records the "counts" of their members too.
inline Clusters choose_clusters(const AttentionInput& input, const ClusterOptions& options,
                                Rng& rng) {
  Clusters clusters;
  const Tensor labels = choice(input, "labels", [&] {
    clusters = raw::cluster_queries(input.q, input.q_lengths, options, rng);
    return clusters.labels;
  });
  if (!clusters.labels.defined()) {
    const int64_t count = raw::cluster_counts(options, query_lengths(input)).max();
    clusters = clusters_of_choice(input, labels, count);
  }
  if (input.record) (*input.record)["counts"] = clusters.counts();
  return clusters;
}

/// part - whole of two log-sum-exps: the logarithm of the share of the weight that some keys hold;
/// -inf where there are no keys at all.
inline Tensor log_mass_of(const Tensor& part, const Tensor& whole) {
  const double lowest = whole.dtype() == DType::f32 ? -3e38 : -1.7e308;
  const Tensor seen = raw::compare(Compare::ge, whole, lowest);
  return part - where(seen, whole, zeros(whole.shape(), whole.dtype(), whole.device()));
}
/// That share itself, 0 where there are no keys.
inline Tensor mass_of(const Tensor& part, const Tensor& whole) {
  return exp(log_mass_of(part, whole));
}

}  // namespace centroid::nn
