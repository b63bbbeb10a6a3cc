// Raw attention: checks, allocation, and the cut of work that several tasks add to.
#include <algorithm>
#include <limits>

#include "tensor/check.h"
#include "tensor/ops.h"

namespace centroid::raw {
namespace {

void check_range(const char* name, const Tensor& x, const Tensor& q) {
  if (!x.defined()) return;
  detail::check_shape("attention", name, x, {q.size(2)});
  CENTROID_CHECK(x.dtype() == DType::i32 && x.device() == q.device(), "attention: ", name,
                 ": expected i32 on ", q.device(), ", got ", x.dtype(), " on ", x.device());
}

void check_inputs(const char* op, const Tensor& q, const Tensor& k, const Tensor& v) {
  detail::check_floats(op, {{"q", q}, {"k", k}, {"v", v}});
  CENTROID_CHECK(k.defined() && q.dim() == 4 && k.dim() == 4 && q.size(0) == k.size(0) &&
                     q.size(1) == k.size(1) && q.size(3) == k.size(3),
                 op, ": expected q (B, H, L, E) and k (B, H, S, E), got ", q.shape(), " and ",
                 k.defined() ? to_string(k.shape()) : "no tensor");
  CENTROID_CHECK(!v.defined() || (v.dim() == 4 && v.size(0) == k.size(0) &&
                                  v.size(1) == k.size(1) && v.size(2) == k.size(2)),
                 op, ": expected v (B, H, S, D) to fit k ", k.shape(), ", got ",
                 v.defined() ? to_string(v.shape()) : "no tensor");
}

void check_index(const char* op, const char* name, const Tensor& x, const Shape& shape) {
  detail::check_shape(op, name, x, shape);
  CENTROID_CHECK(x.dtype() == DType::i32 && x.is_contiguous(), op, ": ", name,
                 ": expected contiguous i32, got ", x.dtype());
}

// Enough tasks for a few cores when there are few heads. The cut follows from shapes alone, so that
// results do not depend on the machine.
int64_t parts_for(const Tensor& q, int64_t work, int64_t least) {
  const int64_t rows = std::max<int64_t>(1, q.size(0) * q.size(1));
  constexpr int64_t kTasks = 4;
  return std::clamp<int64_t>(work / least, 1, (kTasks + rows - 1) / rows);
}

Tensor partials(int64_t parts, const Tensor& like) {
  if (parts == 1) return {};
  return empty({parts - 1, like.size(0), like.size(1), like.size(2), like.size(3)}, like.dtype(),
               like.device());
}

Tensor zeros_like(const Tensor& x) { return zeros(x.shape(), x.dtype(), x.device()); }

}  // namespace

Tensor empty_heads_last(const Tensor& like, int64_t n, int64_t width) {
  const Tensor x = empty({like.size(0), n, like.size(1), width}, like.dtype(), like.device());
  return permute(x, {0, 2, 1, 3});
}

KeyMask key_mask(const Tensor& q, const Tensor& k, const Lengths& q_lengths,
                 const Lengths& k_lengths, bool causal) {
  q_lengths.check(q.size(0), q.size(2), "attention: q_lengths");
  k_lengths.check(q.size(0), k.size(2), "attention: k_lengths");
  KeyMask mask;
  mask.q_lengths = q_lengths.tensor(q.device());
  mask.k_lengths = k_lengths.tensor(q.device());
  if (causal) mask.end = unary(Unary::add_scalar, arange(q.size(2), DType::i32, q.device()), 1);
  return mask;
}

Attended tile_attention(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                        double scale, const WeightDropout& dropout, int64_t best) {
  check_inputs("tile_attention", q, k, v);
  check_range("begin", mask.begin, q);
  check_range("end", mask.end, q);
  for (const Tensor& lengths : {mask.q_lengths, mask.k_lengths}) {
    CENTROID_CHECK(!lengths.defined() || lengths.device() == q.device(),
                   "attention: lengths: expected them on ", q.device(), ", got ", lengths.device());
  }
  CENTROID_CHECK(dropout.p >= 0 && dropout.p < 1, "tile_attention: dropout: expected [0, 1), got ",
                 dropout.p);
  Attended y;
  if (v.defined()) y.out = empty_heads_last(q, q.size(2), v.size(3));
  y.lse = empty({q.size(0), q.size(1), q.size(2)}, q.dtype(), q.device());
  if (best > 0) {
    const Shape shape{q.size(0), q.size(1), q.size(2), best};
    y.top_scores = empty(shape, q.dtype(), q.device());
    y.top_keys = empty(shape, DType::i32, q.device());
  }
  CENTROID_DISPATCH(q.device(), tile_attention, unit_last(q), unit_last(k), unit_last(v), mask,
                    scale, dropout, y.out, y.lse, y.top_scores, y.top_keys);
  return y;
}

AttentionGrads tile_attention_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                                       const KeyMask& mask, double scale,
                                       const WeightDropout& dropout, const Attended& y,
                                       const Tensor& dout, const Tensor& dlse, bool needs_dq,
                                       bool needs_dk, bool needs_dv) {
  AttentionGrads grads;
  if (needs_dq) grads.dq = empty_heads_last(q, q.size(2), q.size(3));
  if (needs_dk) grads.dk = empty_heads_last(q, k.size(2), k.size(3));
  if (needs_dv) grads.dv = empty_heads_last(q, k.size(2), v.size(3));
  const Tensor partial = partials(parts_for(q, k.size(2), 512), q);
  CENTROID_DISPATCH(
      q.device(), tile_attention_backward, unit_last(q), unit_last(k), unit_last(v), mask, scale,
      dropout, y.out, y.lse, dout.defined() ? unit_last(dout) : zeros_like(y.out),
      dlse.defined() ? contiguous(dlse) : dlse, partial, grads.dq, grads.dk, grads.dv);
  return grads;
}

Attended gathered_attention(const Tensor& q, const Tensor& extra, const Tensor& k, const Tensor& v,
                            const Groups& groups, KeyRule rule, double scale,
                            const WeightDropout& dropout, const WeightDropout& extra_dropout,
                            bool partly) {
  const char* op = "gathered_attention";
  check_inputs(op, q, k, v);
  const int64_t batch = q.size(0), heads = q.size(1), count = groups.count();
  check_index(op, "order", groups.order, {batch, heads, q.size(2)});
  check_index(op, "offsets", groups.offsets, {batch, heads, count + 1});
  check_index(op, "keys", groups.keys, {batch, heads, count, groups.keys.size(-1)});
  Attended y;
  y.out = empty_heads_last(q, q.size(2), v.size(3));
  y.lse = empty({batch, heads, q.size(2)}, q.dtype(), q.device());
  if (partly) {
    fill_(y.out, 0);
    fill_(y.lse, -std::numeric_limits<double>::infinity());
  }
  if (extra.defined()) {
    detail::check_shape(op, "extra", extra, {batch, heads, count, q.size(3)});
    y.extra_out = empty({batch, heads, count, v.size(3)}, q.dtype(), q.device());
    y.extra_lse = empty({batch, heads, count}, q.dtype(), q.device());
  }
  CENTROID_DISPATCH(q.device(), gathered_attention, unit_last(q), unit_last(extra), unit_last(k),
                    unit_last(v), groups, rule, scale, dropout, extra_dropout, y.out, y.lse,
                    y.extra_out, y.extra_lse);
  return y;
}

AttentionGrads gathered_attention_backward(const Tensor& q, const Tensor& extra, const Tensor& k,
                                           const Tensor& v, const Groups& groups, KeyRule rule,
                                           double scale, const WeightDropout& dropout,
                                           const WeightDropout& extra_dropout, bool partly,
                                           const Attended& y, const Attended& dy) {
  AttentionGrads grads;
  grads.dq = empty_heads_last(q, q.size(2), q.size(3));
  if (partly) fill_(grads.dq, 0);
  if (extra.defined()) grads.dextra = empty(extra.shape(), q.dtype(), q.device());
  grads.dk = empty_heads_last(q, k.size(2), k.size(3));
  grads.dv = empty_heads_last(q, k.size(2), v.size(3));
  const int64_t parts = parts_for(q, groups.count(), 8);
  const auto given = [](const Tensor& gradient, const Tensor& like) {
    return gradient.defined() || !like.defined() ? unit_last(gradient) : zeros_like(like);
  };
  const auto scalars = [](const Tensor& x) { return x.defined() ? contiguous(x) : x; };
  CENTROID_DISPATCH(q.device(), gathered_attention_backward, unit_last(q), unit_last(extra),
                    unit_last(k), unit_last(v), groups, rule, scale, dropout, extra_dropout, y.out,
                    y.lse, y.extra_out, y.extra_lse, given(dy.out, y.out), scalars(dy.lse),
                    given(dy.extra_out, y.extra_out), scalars(dy.extra_lse),
                    partials(parts, grads.dk), partials(parts, grads.dv), grads.dq, grads.dextra,
                    grads.dk, grads.dv);
  return grads;
}

}  // namespace centroid::raw
