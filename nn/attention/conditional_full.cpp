// Full attention where there is little to attend to, another variant elsewhere: below some length
// full attention is both exact and the fastest.
#include <algorithm>

#include "autograd/ops.h"
#include "nn/attention.h"
#include "nn/decode.h"

namespace centroid::nn {

namespace {

constexpr int64_t kMaxLimit = 1000000000;

// The items `index` of every tensor and their lengths.
AttentionInput items_of(const AttentionInput& input, const std::vector<int64_t>& index) {
  const Tensor items = from_vector(index, {static_cast<int64_t>(index.size())}, input.q.device());
  const auto pick = [&](const Lengths& all, int64_t time) {
    std::vector<int64_t> values;
    for (int64_t b : index) values.push_back(all.empty() ? time : all[b]);
    return Lengths(std::move(values));
  };
  AttentionInput part = input;
  part.q_lengths = pick(input.q_lengths, input.q.size(2));
  part.k_lengths = pick(input.k_lengths, input.k.size(2));
  for (Tensor* x : {&part.q, &part.k, &part.v}) *x = index_select(*x, 0, items);
  return part;
}

// The first `limit` positions of queries and keys.
AttentionInput beginning_of(const AttentionInput& input, int64_t limit) {
  const auto cut = [&](const Tensor& x) { return slice(x, 2, 0, std::min(limit, x.size(2))); };
  const auto clipped = [&](const Lengths& lengths) {
    std::vector<int64_t> values = lengths.values();
    for (int64_t& value : values) value = std::min(value, limit);
    return Lengths(std::move(values));
  };
  AttentionInput part = input;
  for (Tensor* x : {&part.q, &part.k, &part.v}) *x = cut(*x);
  part.q_lengths = clipped(input.q_lengths);
  part.k_lengths = clipped(input.k_lengths);
  return part;
}

// Which variant answers depends on nothing but the item itself: padding changes no result.
//
//   not causal   an item whose valid queries and valid keys both number at most `limit` is full
//   causal       a query at a position below `limit` is full. It sees at most `limit` keys, and its
//                output stays what it was when positions follow: a sequence that grows gives the
//                rows that it gives at once.
class ConditionalFull : public Attention {
 public:
  explicit ConditionalFull(const AttentionOptions& options)
      : limit_(options.integer("limit", 1, kMaxLimit)),
        full_(make_attention("full:dropout=" + options.text("dropout") +
                             ",temperature=" + options.text("temperature"))),
        inner_(make_attention(options.inner())) {
    CENTROID_CHECK(!inner_->capabilities().shared_qk, kName, ": '", options.inner(),
                   "' takes the queries as keys, full attention does not: they cannot stand for "
                   "each other");
    add_module("full", *full_);
    add_module("inner", *inner_);
  }

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), kName);
    return input.causal ? attend_causal(input) : attend_by_item(input);
  }

  Capabilities capabilities() const override {
    const Capabilities inner = inner_->capabilities();
    return {.causal = inner.causal,
            .causal_only = inner.causal_only,
            .cross = inner.cross,
            .key_order_invariant = inner.key_order_invariant,
            .exact_options = concat("limit=", kMaxLimit),
            .test_options = {"limit=4(improved-clustered:clusters=3,bits=8,topk=3)",
                             "limit=4,dropout=0.3(causal-linear)"}};
  }

  std::unique_ptr<DecodeState> start_decoding() const override {
    auto state = std::make_unique<Both>();
    state->full = full_->start_decoding();
    state->inner = inner_->start_decoding();
    return state;
  }

  // The inner variant has to hear of every position; full attention is done after `limit`.
  Tensor step(DecodeState& state, const AttentionInput& input) override {
    check_step_input(input, capabilities(), kName);
    Both& past = state_as<Both>(state, kName);
    const Tensor inner = inner_->step(*past.inner, input);
    if (past.length++ >= limit_) {
      past.full.reset();
      return inner;
    }
    return full_->step(*past.full, input);
  }

 private:
  struct Both : DecodeState {
    std::unique_ptr<DecodeState> full, inner;
    int64_t length = 0;
  };

  static constexpr const char* kName = "conditional-full";

  Tensor attend_causal(const AttentionInput& input) {
    const int64_t queries = input.q.size(2);
    if (queries <= limit_) return full_->attend(input);
    const Tensor head = full_->attend(beginning_of(input, limit_));
    const Tensor tail = slice(inner_->attend(input), 2, limit_, queries);
    return heads_last(cat({head, tail}, 2));
  }

  Tensor attend_by_item(const AttentionInput& input) {
    const int64_t batch = input.q.size(0), queries = input.q.size(2), keys = input.k.size(2);
    std::vector<int64_t> few, many;
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t own_queries = input.q_lengths.empty() ? queries : input.q_lengths[b];
      const int64_t own_keys = input.k_lengths.empty() ? keys : input.k_lengths[b];
      (std::max(own_queries, own_keys) <= limit_ ? few : many).push_back(b);
    }
    if (many.empty()) return full_->attend(input);
    if (few.empty()) return inner_->attend(input);
    const Tensor exact = full_->attend(beginning_of(items_of(input, few), limit_));
    const Tensor rest = inner_->attend(items_of(input, many));
    const Tensor by_kind = cat({pad(exact, 2, 0, queries - exact.size(2)), rest}, 0);
    std::vector<int64_t> place(batch);  // of item b in `by_kind`
    int64_t next = 0;
    for (const auto* kind : {&few, &many}) {
      for (int64_t b : *kind) place[b] = next++;
    }
    return heads_last(index_select(by_kind, 0, from_vector(place, {batch}, input.q.device())));
  }

  int64_t limit_;
  std::unique_ptr<Attention> full_, inner_;
};

const RegisterAttention kConditionalFull{
    "conditional-full",
    "full attention for at most `limit` queries and keys, else the inner variant",
    {{"limit", "512", "longest length with full attention"},
     {"dropout", "0", "of full attention"},
     {"temperature", "0", "of full attention"},
     {"inner", "improved-clustered", "variant for longer sequences"}},
    [](const AttentionOptions& options) { return std::make_unique<ConditionalFull>(options); }};

}  // namespace

}  // namespace centroid::nn
