#include "nn/decode.h"

#include <algorithm>

#include "autograd/ops.h"

namespace centroid::nn {

void History::append(const Tensor& row) {
  CENTROID_CHECK(row.dim() == 4 && row.size(2) == 1, "History: expected a row (B, H, 1, E), got ",
                 row.shape());
  const Shape shape = row.shape();
  if (length_ > 0) {
    const Shape& own = buffer_.shape();
    CENTROID_CHECK(shape[0] == own[0] && shape[1] == own[1] && shape[3] == own[3] &&
                       row.dtype() == buffer_.dtype(),
                   "History: expected a row like those before it, ",
                   Shape{own[0], own[1], 1, own[3]}, " ", buffer_.dtype(), ", got ", shape, " ",
                   row.dtype());
  }
  if (length_ == 0 || length_ == buffer_.size(2)) {
    constexpr int64_t kFirst = 16;
    const int64_t capacity = std::max(kFirst, 2 * length_);
    const Tensor wider = empty({shape[0], shape[1], capacity, shape[3]}, row.dtype(), row.device());
    if (length_ > 0) raw::copy_(raw::slice(wider, 2, 0, length_), buffer_);
    buffer_ = wider;
  }
  raw::copy_(raw::slice(buffer_, 2, length_, length_ + 1), row);
  ++length_;
}

Tensor History::rows() const {
  CENTROID_CHECK(length_ > 0, "History: expected at least one row, got none");
  return raw::slice(buffer_, 2, 0, length_);
}

void check_step_input(const AttentionInput& input, const Capabilities& can, const char* name) {
  AttentionInput causal = input;
  causal.causal = true;
  check_attention_input(causal, can, name);
  CENTROID_CHECK(input.q.size(2) == 1 && input.k.size(2) == 1, name,
                 ": step: expected one position, q, k and v (B, H, 1, .), got q ", input.q.shape(),
                 " and k ", input.k.shape());
  CENTROID_CHECK(input.q_lengths.empty() && input.k_lengths.empty(), name,
                 ": step: expected no lengths: every item goes on by one position");
  CENTROID_CHECK(!input.training, name, ": step: expected evaluation, got training");
  CENTROID_CHECK(!input.record && !input.replay, name,
                 ": step: choices can be neither recorded nor replayed");
}

Tensor step_with_cache(Attention& attention, DecodeState& state, const AttentionInput& input,
                       const char* name) {
  check_step_input(input, attention.capabilities(), name);
  auto& past = state_as<KeyValueCache>(state, name);
  const NoGrad off;
  past.k.append(input.k);
  past.v.append(input.v);
  AttentionInput row = input;
  row.k = past.k.rows();
  row.v = past.v.rows();
  row.causal = false;
  return attention.attend(row);
}

// ---- what a variant does that does not know better ----------------------------------------------

namespace {

struct Prefix : DecodeState {
  History q, k, v;
};

constexpr const char* kAnyVariant = "attention";

}  // namespace

std::unique_ptr<DecodeState> Attention::start_decoding() const {
  CENTROID_CHECK(capabilities().causal,
                 "attention: start_decoding: expected a variant that can be causal");
  return std::make_unique<Prefix>();
}

Tensor Attention::step(DecodeState& state, const AttentionInput& input) {
  check_step_input(input, capabilities(), kAnyVariant);
  auto& past = state_as<Prefix>(state, kAnyVariant);
  const NoGrad off;
  past.q.append(input.q);
  past.k.append(input.k);
  past.v.append(input.v);
  AttentionInput all = input;
  all.q = past.q.rows();
  all.k = past.k.rows();
  all.v = past.v.rows();
  all.causal = true;
  const int64_t last = past.q.length() - 1;
  return raw::slice(attend(all), 2, last, last + 1);
}

}  // namespace centroid::nn
