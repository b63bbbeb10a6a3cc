#include "nn/transformer.h"

namespace centroid::nn {

namespace {

constexpr double kRotaryBase = 10000;

int64_t head_size_of(const TransformerOptions& options) {
  check(options);
  return options.head_size > 0 ? options.head_size : options.width / options.heads;
}

}  // namespace

MultiHead::MultiHead(const TransformerOptions& options, const std::string& attention, bool causal,
                     Rng& rng)
    : q_(options.width, options.heads * head_size_of(options), rng),
      k_(options.width, options.heads * head_size_of(options), rng),
      v_(options.width, options.heads * head_size_of(options), rng),
      out_(options.heads * head_size_of(options), options.width, rng),
      attention_(make_attention(attention)),
      heads_(options.heads),
      head_size_(head_size_of(options)),
      causal_(causal),
      rotary_(options.positions == Positions::rotary),
      angles_([size = head_size_](int64_t time, Device device) {
        return rotary_angles(time, size, kRotaryBase, 0, device);
      }) {
  add_module("q", q_);
  if (!attention_->capabilities().shared_qk) add_module("k", k_);
  add_module("v", v_);
  add_module("out", out_);
  add_module("attention", *attention_);
}

Tensor MultiHead::heads(const Linear& projection, const Tensor& x, int64_t first) const {
  Tensor y = reshape(projection.forward(x), {x.size(0), x.size(1), heads_, head_size_});
  if (rotary_ && &projection != &v_) {
    y = rotary(y, angles_.rows(first, x.size(1), x.device(), x.dtype()));
  }
  return permute(y, {0, 2, 1, 3});
}

Tensor MultiHead::forward(const Tensor& x, const Tensor& memory, const Lengths& lengths,
                          const Lengths& memory_lengths, const Context& context) {
  CENTROID_CHECK(x.dim() == 3 && memory.dim() == 3 && x.size(0) == memory.size(0),
                 "MultiHead: expected x (B, L, C) and memory (B, S, C), got ", x.shape(), " and ",
                 memory.shape());
  Rng fixed(0, attention_->path());
  const Tensor q = heads(q_, x);
  const bool shared = attention_->capabilities().shared_qk;
  CENTROID_CHECK(!shared || memory.shared_impl() == x.shared_impl(),
                 "MultiHead: an attention that takes the queries as keys cannot look at a memory");
  AttentionInput input{.q = q,
                       .k = shared ? q : heads(k_, memory),
                       .v = heads(v_, memory),
                       .q_lengths = lengths,
                       .k_lengths = memory_lengths,
                       .causal = causal_,
                       .training = context.training,
                       .rng = context.training ? context.rng : &fixed};
  if (context.tap) {
    // Whoever looks on draws what the variant is about to draw, and changes nothing.
    const RngState before = input.rng ? input.rng->state() : RngState{};
    context.tap(path(), *attention_, input);
    if (input.rng) input.rng->set_state(before);
  }
  return joined(attention_->attend(input));
}

Tensor MultiHead::joined(const Tensor& attended) const {
  const Tensor y = permute(attended, {0, 2, 1, 3});  // (B, L, H, E)
  return out_.forward(reshape(y, {y.size(0), y.size(1), heads_ * head_size_}));
}

std::unique_ptr<DecodeState> MultiHead::start_decoding() const {
  CENTROID_CHECK(causal_, "MultiHead: only causal attention can go step by step");
  return attention_->start_decoding();
}

Tensor MultiHead::step(DecodeState& state, const Tensor& x, int64_t position) {
  CENTROID_CHECK(causal_, "MultiHead: only causal attention can go step by step");
  CENTROID_CHECK(x.dim() == 3 && x.size(1) == 1, "MultiHead: step: expected (B, 1, C), got ",
                 x.shape());
  const NoGrad off;
  Rng fixed(0, attention_->path());  // what `forward` gives outside of training
  return joined(attention_->step(state, {.q = heads(q_, x, position),
                                         .k = heads(k_, x, position),
                                         .v = heads(v_, x, position),
                                         .causal = true,
                                         .rng = &fixed}));
}

}  // namespace centroid::nn
