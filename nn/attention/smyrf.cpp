// SMYRF (Daras, Kitaev, Odena and Dimakis, "SMYRF: efficient attention using asymmetric
// clustering", 2020). Queries and keys are extended by two coordinates so that a large dot product
// becomes a small distance:
//   F(q) = (q, 0, sqrt(M^2 - |q|^2)),  G(k) = (k, sqrt(M^2 - |k|^2), 0),  M^2 = max |q|^2 + max
//   |k|^2
// has |F(q)| = |G(k)| = M and F(q) . G(k) = q . k. Both are sorted by one random projection and cut
// into equally many chunks; chunk i of the queries attends to chunk i of the keys. Rounds with
// different projections are weighted by their normalisers. Needs a sort and no clusters.
#include "nn/attention/chunks.h"
#include "nn/attention/common.h"

namespace centroid::nn {

namespace {

class Smyrf : public Attention {
 public:
  explicit Smyrf(const AttentionOptions& options)
      : rounds_(options.integer("rounds", 1, 64)),
        chunk_(options.integer("chunk", 1, 1000000)),
        dropout_(options.number("dropout", 0, 0.99)),
        temperature_(options.number("temperature", 0, 1e6)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "smyrf");
    const Tensor &q = input.q, &k = input.k;
    Rng rng = choice_stream(input, *this);
    const Tensor q_valid = lengths_i32(input.q_lengths, q.size(0), q.size(2), q.device());
    const Tensor k_valid = lengths_i32(input.k_lengths, k.size(0), k.size(2), k.device());
    std::vector<Attended> rounds;
    for (int64_t r = 0; r < rounds_; ++r) {
      Tensor order_k;
      const Tensor order_q = choice(input, concat("queries", r), [&] {
        const auto [of_queries, of_keys] = sort_both(q.detach(), k.detach(), q_valid, k_valid, rng);
        order_k = of_keys;
        return of_queries;
      });
      order_k = choice(input, concat("keys", r), [&] { return order_k; });
      rounds.push_back(gathered_attention(
          q, Tensor(), k, input.v, pairs(order_q, order_k, input, q_valid), KeyRule::all,
          attention_scale(temperature_, q), weight_dropout(dropout_, input), {},
          /*partly=*/!input.q_lengths.empty()));
    }
    return rounds_ == 1 ? rounds[0].out : merge_attention(rounds).out;
  }

  Capabilities capabilities() const override {
    return {.cross = true,
            .key_order_invariant = true,
            .exact_options = "chunk=1000,rounds=1",
            .test_options = {"chunk=2,rounds=1", "chunk=3,rounds=3,dropout=0.2"}};
  }

 private:
  // The rows of x in order of their projections, those beyond `valid` last: (B, H, N) i32.
  static Tensor sorted(const Tensor& projected, const Tensor& valid) {
    const int64_t n = projected.size(2);
    const Tensor seen =
        raw::compare(Compare::lt, counting(n, {1, 1, n}, projected.device()), valid);
    const Tensor last =
        full({1}, std::numeric_limits<double>::infinity(), projected.dtype(), projected.device());
    return raw::cast(raw::sort(raw::where(seen, projected, last)).second, DType::i32);
  }

  // |x|^2 (B, H, N), 0 beyond `valid`.
  static Tensor squares(const Tensor& x, const Tensor& valid) {
    const int64_t n = x.size(2);
    const Tensor seen = raw::compare(Compare::lt, counting(n, {1, 1, n}, x.device()), valid);
    return raw::where(seen, raw::sum(raw::square(x), {3}), zeros({1}, x.dtype(), x.device()));
  }

  static std::pair<Tensor, Tensor> sort_both(const Tensor& q, const Tensor& k,
                                             const Tensor& q_valid, const Tensor& k_valid,
                                             Rng& rng) {
    const int64_t width = q.size(3);
    const Tensor drawn = raw::normal({width + 2}, rng, 0, 1, q.dtype(), Device{});
    const Tensor direction = raw::to(raw::slice(drawn, 0, 0, width), q.device());
    const double along_key = raw::select(drawn, 0, width).item();
    const double along_query = raw::select(drawn, 0, width + 1).item();
    const Tensor q2 = squares(q, q_valid), k2 = squares(k, k_valid);
    const Tensor most = raw::add(raw::max(q2, {2}, true), raw::max(k2, {2}, true));
    const auto lifted = [&](const Tensor& x, const Tensor& x2, double along) {
      return raw::add(raw::matmul(x, direction),
                      raw::mul(raw::sqrt(raw::clamp(raw::sub(most, x2), 0, 3e38)), along));
    };
    return {sorted(lifted(q, q2, along_query), q_valid), sorted(lifted(k, k2, along_key), k_valid)};
  }

  // Chunks of `chunk_` queries, and for each the equal share of the item's keys: those of rank
  // g S / G to (g + 1) S / G, at least one.
  Groups pairs(const Tensor& order_q, const Tensor& order_k, const AttentionInput& input,
               const Tensor& q_valid) const {
    const int64_t batch = order_q.size(0), heads = order_q.size(1), keys = order_k.size(2);
    const int64_t chunks = (order_q.size(2) + chunk_ - 1) / chunk_;
    const auto valid = [](const Lengths& l, int64_t b, int64_t n) { return l.empty() ? n : l[b]; };
    const auto used = [&](int64_t b) {
      return std::max<int64_t>(1,
                               (valid(input.q_lengths, b, order_q.size(2)) + chunk_ - 1) / chunk_);
    };
    int64_t most = 1;
    for (int64_t b = 0; b < batch; ++b) {
      most = std::max(most, (valid(input.k_lengths, b, keys) + used(b) - 1) / used(b));
    }
    std::vector<int32_t> ranks(batch * chunks * most, -1);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t n = valid(input.k_lengths, b, keys);
      for (int64_t g = 0; n > 0 && g < used(b); ++g) {
        const int64_t first = g * n / used(b);
        const int64_t last = std::max(first + 1, (g + 1) * n / used(b));
        int32_t* list = ranks.data() + (b * chunks + g) * most;
        for (int64_t r = first; r < last; ++r) list[r - first] = static_cast<int32_t>(r);
      }
    }
    const Device device = order_q.device();
    const Tensor rank =
        raw::contiguous(raw::expand(raw::to(from_vector(ranks, {batch, 1, chunks * most}), device),
                                    {batch, heads, chunks * most}));
    const Tensor found = raw::gather(order_k, 2, raw::clamp(rank, 0, 2e9));
    const Tensor there = raw::compare(Compare::ge, rank, 0.0);
    const Tensor lists = raw::where(there, found, full({1}, -1, DType::i32, device));
    return {order_q, chunk_offsets(q_valid, heads, chunks, chunk_),
            raw::reshape(lists, {batch, heads, chunks, most})};
  }

  int64_t rounds_, chunk_;
  double dropout_, temperature_;
};

const RegisterAttention kSmyrf{
    "smyrf",
    "queries and keys sorted by one asymmetric hash attend in equal chunks",
    {{"rounds", "2", "of hashing"},
     {"chunk", "64", "queries per chunk; keys are shared out equally"},
     {"temperature", "0", "factor on q k^T before the softmax; 0: 1 / sqrt(head size)"},
     {"dropout", "0", "probability of dropping an attention weight in training"}},
    [](const AttentionOptions& options) { return std::make_unique<Smyrf>(options); }};

}  // namespace

}  // namespace centroid::nn
