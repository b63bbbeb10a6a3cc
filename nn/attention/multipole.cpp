// Clusters of keys instead of queries (after Hooper et al., "Multipole attention", 2025): keys that
// are alike form chunks; a query attends exactly to the keys of its `near` best chunks, and to
// every other chunk as if all of its n keys stood at their mean:
//   weight of a far chunk = n e^(scale q . mean(k)),   its value = mean(v).
// Each query has its own far field, where improved-clustered has one per cluster of queries.
//
// The far field is attention over the means with log n added to the scores: q gets a coordinate
// 1 / scale, the means one of log n. It is computed over all chunks, then those of the near field
// are taken away again.
#include "nn/attention/chunks.h"
#include "nn/attention/common.h"

namespace centroid::nn {

namespace {

class Multipole : public Attention {
 public:
  explicit Multipole(const AttentionOptions& options)
      : near_(options.integer("near", 1, 1000)),
        chunk_(options.integer("chunk", 1, 1000000)),
        bits_(options.integer("bits", 1, 64)),
        iterations_(options.integer("iterations", 1, 10000)),
        temperature_(options.number("temperature", 0, 1e6)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "multipole");
    const Tensor &q = input.q, &k = input.k, &v = input.v;
    const double scale = attention_scale(temperature_, q);
    Rng rng = choice_stream(input, *this);
    const Tensor valid = lengths_i32(input.k_lengths, k.size(0), k.size(2), k.device());
    const Tensor labels = choice(input, "chunks", [&] { return chunk_labels(input, valid, rng); });
    const Clusters chunks = clusters_of_choice(input, labels, (k.size(2) + chunk_ - 1) / chunk_);
    const Tensor lists = cut_into_chunks(chunks.order, valid, chunk_);  // (B, H, G, chunk)

    const Tensor sizes = raw::clamp(raw::cast(chunks.counts(), k.dtype()), 1, 1e9);
    const Tensor means = cat({group_sum(k, chunks, true), raw::unsqueeze(raw::log(sizes), -1)}, 3);
    const Tensor values = group_sum(v, chunks, true);
    const Tensor lifted =
        cat({q, full({q.size(0), q.size(1), q.size(2), 1}, 1 / scale, q.dtype(), q.device())}, 3);
    const KeyMask mask = raw::key_mask(q, means, input.q_lengths, chunk_lengths(input), false);
    const int64_t near = std::min(near_, chunks.count());
    const Attended far =
        tile_attention(lifted, means, values, mask, scale, {}, input.replay ? 0 : near);
    const Tensor best = choice(input, "near", [&] { return far.top_keys; });

    const Tensor each = raw::contiguous(raw::expand(  // every chunk's mean as a list of one key
        counting(chunks.count(), {1, 1, chunks.count(), 1}, q.device()),
        {q.size(0), q.size(1), chunks.count(), 1}));
    std::vector<Attended> parts = {far};
    std::vector<double> signs = {1};
    for (int64_t r = 0; r < near; ++r) {
      const Clusters by = clusters_of_choice(input, raw::select(best, 3, r), chunks.count());
      parts.push_back(gathered_attention(q, Tensor(), k, v, {by.order, by.offsets, lists},
                                         KeyRule::all, scale, {}, {}, /*partly=*/true));
      parts.push_back(gathered_attention(lifted, Tensor(), means, values,
                                         {by.order, by.offsets, each}, KeyRule::all, scale, {}, {},
                                         /*partly=*/true));
      signs.insert(signs.end(), {1, -1});
    }
    return merge_attention(parts, signs).out;
  }

  Capabilities capabilities() const override {
    return {.cross = true,
            .exact_options = "chunk=1000",
            .test_options = {"chunk=2,near=1,bits=8", "chunk=3,near=2,bits=16,iterations=2"}};
  }

 private:
  // Keys in clusters of about `chunk_`, put one after the other and cut into equal chunks.
  Tensor chunk_labels(const AttentionInput& input, const Tensor& valid, Rng& rng) const {
    const Tensor& k = input.k;
    const Clusters clusters =
        raw::cluster_queries(k, input.k_lengths,
                             {.clusters = std::min(0.999, 1.0 / static_cast<double>(chunk_)),
                              .bits = bits_,
                              .iterations = iterations_},
                             rng);
    const int64_t n = k.size(2);
    const Tensor rank = counting(n, {1, 1, n}, k.device());
    const Tensor chunk =
        raw::cast(raw::unary(Unary::floor,
                             raw::mul(raw::add(raw::cast(rank, DType::f64), 0.5), 1.0 / chunk_)),
                  DType::i32);
    const Tensor none = full({1}, -1, DType::i32, k.device());
    const Tensor label = raw::where(raw::compare(Compare::lt, rank, valid), chunk, none);
    const Tensor zero = zeros(clusters.order.shape(), DType::i32, k.device());
    return raw::scatter_add(zero, 2, clusters.order,
                            raw::contiguous(raw::expand(label, zero.shape())));
  }

  Lengths chunk_lengths(const AttentionInput& input) const {
    std::vector<int64_t> lengths;
    for (int64_t n : input.k_lengths.values()) lengths.push_back((n + chunk_ - 1) / chunk_);
    return Lengths(std::move(lengths));
  }

  int64_t near_, chunk_, bits_, iterations_;
  double temperature_;
};

const RegisterAttention kMultipole{
    "multipole",
    "exact attention to the best chunks of alike keys, the other chunks as their means",
    {{"near", "2", "chunks of keys that a query attends to exactly"},
     {"chunk", "64", "keys per chunk"},
     {"bits", "63", "of the sign hash, 1 to 64"},
     {"iterations", "5", "of k-means in Hamming space"},
     {"temperature", "0", "factor on q k^T before the softmax; 0: 1 / sqrt(head size)"}},
    [](const AttentionOptions& options) { return std::make_unique<Multipole>(options); }};

}  // namespace

}  // namespace centroid::nn
