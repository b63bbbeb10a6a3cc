#pragma once
// Generation token by token: what causal attention keeps of the past. A position is given once, by
// `Attention::step` (nn/attention.h), and what it adds to the output of the positions behind it
// lives in a state that belongs to the variant: keys and values (`KeyValueCache`), sums of a fixed
// size (causal-linear), or everything that was given (the default of `Attention::step`).
#include <memory>

#include "nn/attention.h"

namespace centroid::nn {

/// What a variant keeps between two steps; made by `Attention::start_decoding`, filled by `step`.
struct DecodeState {
  virtual ~DecodeState() = default;
};

/// `state` as the type that the variant `name` made; throws for the state of another variant.
template <typename State>
State& state_as(DecodeState& state, const char* name) {
  auto* own = dynamic_cast<State*>(&state);
  CENTROID_CHECK(own, name, ": step: the state was made by another attention variant");
  return *own;
}

/// A tensor that grows by one position at a time: (B, H, T, E) with T = 0, 1, 2, ... Memory for
/// positions to come is set aside by doubling, so that T appends copy O(T) numbers in all. The rows
/// of a head lie together, as a step reads them.
class History {
 public:
  /// Adds `row` (B, H, 1, E). Throws when it does not fit to the rows before it.
  void append(const Tensor& row);
  /// (B, H, T, E): a view, which the next `append` may detach from the buffer. Throws for T = 0.
  Tensor rows() const;
  int64_t length() const { return length_; }

 private:
  Tensor buffer_;  // (B, H, capacity, E)
  int64_t length_ = 0;
};

/// The past of softmax attention over all keys.
struct KeyValueCache : DecodeState {
  History k, v;
};

/// What every `Attention::step` calls first: throws unless `input` is one position, q, k and v (B,
/// H, 1, .), without lengths, outside of training, for a variant that can be causal.
void check_step_input(const AttentionInput& input, const Capabilities& can, const char* name);

/// `Attention::step` for variants whose causal output at a position is what `attend` gives, not
/// causally, for that one query over all keys so far. `state` is a `KeyValueCache`; a step costs
/// one row of attention. `name` is the variant's, for errors.
Tensor step_with_cache(Attention& attention, DecodeState& state, const AttentionInput& input,
                       const char* name);

}  // namespace centroid::nn
