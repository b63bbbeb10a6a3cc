// Improved clustered attention for language models, without any look at the future.
//
// Positions are cut into blocks of M. Within its block a query attends exactly, to the keys up to
// its own. For the keys of all earlier blocks it is represented by the nearest of the clusters that
// the queries of these blocks have formed: they, their means and their top keys are functions of
// the past alone. Blocks are learnt one after the other (a k-means that keeps its counts), so
// clustering takes time L * K; the means of every block attend to all that is before it, which
// makes L^2 K / (2 M) products where full attention makes L^2 / 2.
//
// The share of weight on the top keys is the mean's, m: from the exact log-sum over the top keys,
// l_i, follows that over all past keys, l_i - log m. With it the past is merged with the block.
//
// Generation: what a query of a block sees of the past stays the same until the block ends. It is
// computed once a block, so that a token costs M + K + k products.
#include "nn/attention/common.h"
#include "nn/decode.h"

namespace centroid::nn {

namespace {

class CausalImprovedClustered : public Attention {
 public:
  explicit CausalImprovedClustered(const AttentionOptions& options)
      : clusters_(cluster_options(options)),
        dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)),
        topk_(options.integer("topk", 1, 1000000)),
        block_(options.integer("block", 1, 1000000000)) {
    options.integer("clusters", 1, 1000000);  // per block: no fraction of a length
  }

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "causal-improved-clustered");
    Rng rng = choice_stream(input, *this);
    const double scale = attention_scale(temperature_, input.q);
    const KeyMask own = block_mask(input);
    const Attended near =
        tile_attention(input.q, input.k, input.v, own, scale, weight_dropout(dropout_, input));
    if (input.q.size(2) <= block_) return near.out;
    return merge_attention({near, attend_past(input, scale, rng)}).out;
  }

  std::unique_ptr<DecodeState> start_decoding() const override {
    return std::make_unique<Generation>();
  }

  Tensor step(DecodeState& state, const AttentionInput& input) override {
    check_step_input(input, capabilities(), "causal-improved-clustered");
    const NoGrad off;
    auto& past = state_as<Generation>(state, "causal-improved-clustered");
    if (past.k.length() == 0) start(past, input);
    const double scale = attention_scale(temperature_, input.q);
    const int64_t begin = past.k.length() / block_ * block_;
    if (begin > 0 && begin == past.k.length()) learn(past, scale);
    past.q.append(input.q);
    past.k.append(input.k);
    past.v.append(input.v);
    const int64_t n = past.k.length();
    const Tensor k = past.k.rows(), v = past.v.rows();
    const Attended near = tile_attention(input.q, raw::slice(k, 2, begin, n),
                                         raw::slice(v, 2, begin, n), KeyMask{}, scale);
    if (begin == 0) return near.out;
    Rng rng = past.planes;
    const Tensor codes = raw::hash_codes(input.q, {}, clusters_, rng);
    const Clusters seen = raw::nearest_learnt(codes, past.learnt);
    return merge_attention({near, look_back(input.q, k, v, past.means, past.all, past.keys, seen,
                                            scale, {}, {})})
        .out;
  }

  Capabilities capabilities() const override {
    return {.causal = true,
            .causal_only = true,
            .exact_options = "block=1000",
            .test_options = {"block=3,clusters=2,bits=8,topk=2,dropout=0.2",
                             "block=2,clusters=3,bits=16,topk=1"}};
  }

 private:
  struct Generation : DecodeState {
    History q, k, v;
    Rng planes{0};        // at the draw of the hash's planes
    GrowingMeans learnt;  // of the blocks that are complete, as all below
    Tensor sums, sizes;   // of the clusters' queries, (B, H, K, E), (B, H, K)
    Tensor means;         // (B, H, K, E)
    Attended all;         // the means' attention to all keys of these blocks
    Tensor keys;          // and their top keys
  };

  void start(Generation& past, const AttentionInput& input) const {
    const int64_t batch = input.q.size(0), heads = input.q.size(1);
    const auto clusters = static_cast<int64_t>(clusters_.clusters);
    const Device device = input.q.device();
    past.planes = choice_stream(input, *this);
    past.learnt = raw::growing_means(batch, heads, clusters, device);
    past.sums = zeros({batch, heads, clusters, input.q.size(3)}, input.q.dtype(), device);
    past.sizes = zeros({batch, heads, clusters}, input.q.dtype(), device);
  }

  // The block that has just ended becomes part of the past.
  void learn(Generation& past, double scale) const {
    const int64_t n = past.k.length();
    const Tensor q = raw::slice(past.q.rows(), 2, n - block_, n);
    Rng rng = past.planes;
    const Tensor codes = raw::hash_codes(q, {}, clusters_, rng);
    const Clusters joined = raw::learn_block(codes, past.learnt, clusters_.iterations);
    past.sums = past.sums + group_sum(q, joined);
    past.sizes = past.sizes + raw::cast(joined.counts(), q.dtype());
    past.means = past.sums / raw::unsqueeze(raw::clamp(past.sizes, 1, 1e9), -1);
    past.all = tile_attention(past.means, past.k.rows(), past.v.rows(), KeyMask{}, scale, {},
                              std::min(topk_, n));
    past.keys = past.all.top_keys;
  }

  // Query l sees the keys of its block up to itself.
  KeyMask block_mask(const AttentionInput& input) const {
    KeyMask mask = raw::key_mask(input.q, input.k, input.q_lengths, input.k_lengths, true);
    const int64_t n = input.q.size(2), blocks = (n + block_ - 1) / block_;
    Tensor begin = raw::mul(arange(blocks, DType::i32, input.q.device()), block_);
    begin = raw::reshape(raw::expand(raw::unsqueeze(begin, 1), {blocks, block_}), {-1});
    mask.begin = raw::contiguous(raw::slice(begin, 0, 0, n));
    return mask;
  }

  // The clusters: which of the past's a query is nearest to, and which one it joins.
  PastClusters choose(const AttentionInput& input, Rng& rng, int64_t groups) const {
    PastClusters past;
    const Tensor seen = choice(input, "seen", [&] {
      past = raw::cluster_past(input.q, input.q_lengths, clusters_, block_, rng);
      return past.seen.labels;
    });
    const Tensor joined = choice(input, "joined", [&] { return past.joined.labels; });
    if (past.seen.labels.defined()) return past;
    return {clusters_of_choice(input, seen, groups), clusters_of_choice(input, joined, groups)};
  }

  Attended attend_past(const AttentionInput& input, double scale, Rng& rng) const {
    const Tensor &q = input.q, &k = input.k, &v = input.v;
    const int64_t batch = q.size(0), heads = q.size(1), width = q.size(3);
    const int64_t clusters = static_cast<int64_t>(clusters_.clusters);
    const int64_t blocks = (q.size(2) + block_ - 1) / block_, groups = blocks * clusters;
    const PastClusters past = choose(input, rng, groups);

    // Sums over all blocks so far are running sums of the blocks' own.
    const Shape by_block{batch, heads, blocks, clusters, width};
    const Tensor sums = cumsum(reshape(group_sum(q, past.joined), by_block), 2);
    const Tensor sizes = raw::cumsum(
        raw::reshape(raw::cast(past.joined.counts(), q.dtype()), {batch, heads, blocks, clusters}),
        2);
    const Tensor means = reshape(sums / raw::unsqueeze(raw::clamp(sizes, 1, 1e9), -1),
                                 {batch, heads, groups, width});

    // The means of block t see the keys of blocks 0..t.
    KeyMask mask = raw::key_mask(means, k, {}, input.k_lengths, false);
    const Tensor ends = raw::mul(raw::add(arange(blocks, DType::i32, q.device()), 1), block_);
    mask.end = raw::contiguous(
        raw::reshape(raw::expand(raw::unsqueeze(ends, 1), {blocks, clusters}), {groups}));
    const WeightDropout of_means = weight_dropout(dropout_, input);
    const Attended all = tile_attention(means, k, v, mask, scale, of_means,
                                        input.replay ? 0 : std::min(topk_, k.size(2)));
    const Tensor keys = choice(input, "topk", [&] { return all.top_keys; });
    if (input.record) (*input.record)["counts"] = past.joined.counts();
    return look_back(q, k, v, means, all, keys, past.seen, scale, weight_dropout(dropout_, input),
                     of_means, input.record);
  }

  // Attention of q to the past, by clusters `seen` with these means: `all` is what they see of it,
  // `keys` their top keys.
  static Attended look_back(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& means,
                            const Attended& all, const Tensor& keys, const Clusters& seen,
                            double scale, const WeightDropout& dropout,
                            const WeightDropout& of_means, Choices* record = nullptr) {
    const Attended top = gathered_attention(q, means, k, v, {seen.order, seen.offsets, keys},
                                            KeyRule::all, scale, dropout, of_means,
                                            /*partly=*/true);
    const Tensor mass = mass_of(top.extra_lse, all.lse);
    if (record) (*record)["mass"] = mass.detach();
    Attended result;
    result.out = correct_rows(top.out, seen, mass, mass, top.extra_out, all.out);
    const Tensor rest = unsqueeze(log_mass_of(top.extra_lse, all.lse), -1);  // (B, H, G, 1)
    result.lse = top.lse - squeeze(group_broadcast(rest, seen), 3);
    return result;
  }

  ClusterOptions clusters_;
  double dropout_, temperature_;
  int64_t topk_, block_;
};

const RegisterAttention kCausalImprovedClustered{
    "causal-improved-clustered",
    "for language models: exact within blocks, improved-clustered over the blocks before",
    cluster_option_specs({{"topk", "32", "keys per cluster that get exact weights"},
                          {"block", "256", "positions that attend to each other exactly"}}),
    [](const AttentionOptions& options) {
      return std::make_unique<CausalImprovedClustered>(options);
    }};

}  // namespace

}  // namespace centroid::nn
