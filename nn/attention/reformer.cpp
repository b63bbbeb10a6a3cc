// LSH attention (Kitaev, Kaiser and Levskaya, "Reformer: the efficient transformer", 2020): keys
// are the queries, scaled to length 1. Positions are sorted by the bucket of a random rotation and
// cut into chunks; a query attends to its own chunk and the one before, not to itself. Several
// rounds with different rotations are weighted by their normalisers, as published (a key met in two
// rounds counts twice), or equally.
#include "nn/attention/chunks.h"
#include "nn/attention/common.h"

namespace centroid::nn {

namespace {

class Reformer : public Attention {
 public:
  explicit Reformer(const AttentionOptions& options)
      : rounds_(options.integer("rounds", 1, 64)),
        chunk_(options.integer("chunk", 1, 1000000)),
        buckets_(options.integer("buckets", 2, 100000)),
        uniform_(options.flag("uniform")),
        dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)) {
    CENTROID_CHECK(buckets_ % 2 == 0,
                   "attention reformer: option buckets: expected an even "
                   "number, got ",
                   buckets_);
  }

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "reformer");
    CENTROID_CHECK(input.q_lengths == input.k_lengths || input.k_lengths.empty(),
                   "reformer: queries are the keys: their lengths must be the same");
    const Tensor& q = input.q;
    const Tensor k = q * rsqrt(sum(square(q), {-1}, true) + 1e-12);
    Rng rng = choice_stream(input, *this);
    std::vector<Attended> rounds;
    for (int64_t r = 0; r < rounds_; ++r) {
      const Tensor labels = choice(input, concat("buckets", r), [&] { return hash(input, rng); });
      rounds.push_back(gathered_attention(q, Tensor(), k, input.v, neighbours(labels, input),
                                          KeyRule::not_itself, attention_scale(temperature_, q),
                                          weight_dropout(dropout_, input), {},
                                          /*partly=*/!input.q_lengths.empty()));
    }
    if (rounds_ == 1) return rounds[0].out;
    if (!uniform_) return merge_attention(rounds).out;
    Tensor total = rounds[0].out;
    for (int64_t r = 1; r < rounds_; ++r) total = total + rounds[r].out;
    return heads_last(total / static_cast<double>(rounds_));
  }

  Capabilities capabilities() const override {
    return {.shared_qk = true,
            .exact_options = "-",
            .test_options = {"rounds=1,chunk=2,buckets=2", "rounds=3,chunk=2,buckets=4,dropout=0.2",
                             "rounds=2,chunk=3,uniform=true"}};
  }

 private:
  // The bucket of each position, argmax of [x R, -x R]; -1 beyond the lengths.
  Tensor hash(const AttentionInput& input, Rng& rng) const {
    const Tensor x = input.q.detach();
    const Tensor rotation =
        raw::normal({x.size(3), buckets_ / 2}, rng, 0, 1, x.dtype(), x.device());
    const Tensor turned = raw::matmul(x, rotation);
    const Tensor bucket =
        raw::cast(raw::argmax(raw::cat({turned, raw::neg(turned)}, -1)), DType::i32);
    const Tensor valid = lengths_i32(input.q_lengths, x.size(0), x.size(2), x.device());
    const Tensor seen =
        raw::compare(Compare::lt, counting(x.size(2), {1, 1, x.size(2)}, x.device()), valid);
    return raw::where(seen, bucket, full({1}, -1, DType::i32, x.device()));
  }

  // Chunks of the positions in order of their buckets, each with its own keys and those before.
  Groups neighbours(const Tensor& labels, const AttentionInput& input) const {
    const int64_t batch = labels.size(0), heads = labels.size(1), n = labels.size(2);
    const Tensor order = clusters_of_choice(input, labels, buckets_).order;
    const Tensor valid = lengths_i32(input.q_lengths, batch, n, labels.device());
    const Tensor own = cut_into_chunks(order, valid, chunk_);
    const int64_t chunks = own.size(2);
    const Tensor before = raw::slice(raw::pad(own, 2, 1, 0, -1), 2, 0, chunks);
    return {order, chunk_offsets(valid, heads, chunks, chunk_), raw::cat({before, own}, 3)};
  }

  int64_t rounds_, chunk_, buckets_;
  bool uniform_;
  double dropout_, temperature_;
};

const RegisterAttention kReformer{
    "reformer",
    "positions sorted by hash buckets attend within chunks; keys are the queries",
    {{"rounds", "4", "of hashing"},
     {"chunk", "32", "positions that attend to each other and to the chunk before"},
     {"buckets", "64", "of the hash, an even number"},
     {"uniform", "false", "average the rounds instead of weighting them by their normalisers"},
     {"temperature", "0", "factor on q k^T before the softmax; 0: 1 / sqrt(head size)"},
     {"dropout", "0", "probability of dropping an attention weight in training"}},
    [](const AttentionOptions& options) { return std::make_unique<Reformer>(options); }};

}  // namespace

}  // namespace centroid::nn
