// Attention and clusters. What the fused kernels save is what they were given and their results:
// the weights are computed again in backward.
#include "autograd/ops.h"

namespace centroid {

// The derivation is at tensor/cpu/attention/tile_backward.cpp.
Attended tile_attention(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                        double scale, const WeightDropout& dropout, int64_t best) {
  Attended y = raw::tile_attention(q, k, v, mask, scale, dropout, best);
  if (!v.defined()) return y;
  const std::vector<Tensor> recorded =
      record("tile_attention", {y.out, y.lse}, {q, k, v},
             [=, q = Saved(q), k = Saved(k), v = Saved(v), out = Saved(y.out), lse = Saved(y.lse)](
                 const std::vector<Tensor>& dys, const Needs& needs) -> Grads {
               Attended saved;
               saved.out = out.get();
               saved.lse = lse.get();
               const auto grads = raw::tile_attention_backward(
                   q.get(), k.get(), v.get(), mask, scale, dropout, saved, dys[0], dys[1], needs[0],
                   needs[1], needs[2]);
               return {grads.dq, grads.dk, grads.dv};
             });
  y.out = recorded[0];
  y.lse = recorded[1];
  return y;
}

// As tile_attention, over the keys of each group; gradients of keys are sums over the groups that
// list them.
Attended gathered_attention(const Tensor& q, const Tensor& extra, const Tensor& k, const Tensor& v,
                            const Groups& groups, KeyRule rule, double scale,
                            const WeightDropout& dropout, const WeightDropout& extra_dropout,
                            bool partly) {
  Attended y =
      raw::gathered_attention(q, extra, k, v, groups, rule, scale, dropout, extra_dropout, partly);
  const bool more = extra.defined();
  std::vector<Tensor> outputs = {y.out, y.lse}, inputs = {q, k, v};
  if (more) {
    outputs.insert(outputs.end(), {y.extra_out, y.extra_lse});
    inputs.push_back(extra);
  }
  const auto kept = [](const Tensor& x) { return x.defined() ? Saved(x) : Saved(); };
  const std::vector<Tensor> recorded = record(
      "gathered_attention", outputs, inputs,
      [=, q = Saved(q), extra = kept(extra), k = Saved(k), v = Saved(v), out = Saved(y.out),
       lse = Saved(y.lse), extra_out = kept(y.extra_out),
       extra_lse = kept(y.extra_lse)](const std::vector<Tensor>& dys, const Needs&) -> Grads {
        Attended saved{out.get(), lse.get(), {}, {}, {}, {}}, dy{dys[0], dys[1], {}, {}, {}, {}};
        if (more) {
          saved.extra_out = extra_out.get();
          saved.extra_lse = extra_lse.get();
          dy.extra_out = dys[2];
          dy.extra_lse = dys[3];
        }
        const auto grads = raw::gathered_attention_backward(
            q.get(), more ? extra.get() : Tensor(), k.get(), v.get(), groups, rule, scale, dropout,
            extra_dropout, partly, saved, dy);
        Grads result = {grads.dq, grads.dk, grads.dv};
        if (more) result.push_back(grads.dextra);
        return result;
      });
  y.out = recorded[0];
  y.lse = recorded[1];
  if (more) {
    y.extra_out = recorded[2];
    y.extra_lse = recorded[3];
  }
  return y;
}

namespace {

Tensor empty_like(const Tensor& x) { return empty(x.shape(), x.dtype(), x.device()); }

// outs (N, R, D), lses (N, R) -> out (R, D), lse (R). The derivation is at
// tensor/cpu/attention/merge.cpp.
std::vector<Tensor> merge_rows(const Tensor& outs, const Tensor& lses, const Tensor& signs) {
  const Tensor o = raw::contiguous(outs), l = raw::contiguous(lses);
  const Tensor out = empty({o.size(1), o.size(2)}, o.dtype(), o.device());
  const Tensor lse = empty({o.size(1)}, o.dtype(), o.device());
  CENTROID_DISPATCH(o.device(), merge_attention, o, l, signs, out, lse);
  return record("merge_attention", {out, lse}, {outs, lses},
                [signs, o = Saved(o), l = Saved(l), out = Saved(out), lse = Saved(lse)](
                    const std::vector<Tensor>& dys, const Needs&) -> Grads {
                  const Tensor douts = empty_like(o.get()), dlses = empty_like(l.get());
                  const Tensor& y = out.get();
                  const Tensor dout = dys[0].defined() ? raw::contiguous(dys[0])
                                                       : zeros(y.shape(), y.dtype(), y.device());
                  CENTROID_DISPATCH(
                      y.device(), merge_attention_backward, o.get(), l.get(), signs, y, lse.get(),
                      dout, dys[1].defined() ? raw::contiguous(dys[1]) : dys[1], douts, dlses);
                  return {douts, dlses};
                });
}

}  // namespace

Attended merge_attention(const std::vector<Attended>& parts, const std::vector<double>& signs) {
  CENTROID_CHECK(!parts.empty(), "merge_attention: expected at least one part");
  CENTROID_CHECK(signs.empty() || signs.size() == parts.size(), "merge_attention: expected ",
                 parts.size(), " signs, got ", signs.size());
  CENTROID_CHECK(signs.empty() || signs[0] > 0,
                 "merge_attention: signs: nothing can be taken away before the first part");
  const Shape shape = parts[0].out.shape();  // (B, H, L, D)
  std::vector<Tensor> outs, lses;
  for (const Attended& part : parts) {
    CENTROID_CHECK(part.out.shape() == shape, "merge_attention: parts differ: ", shape, " and ",
                   part.out.shape());
    outs.push_back(permute(part.out, {0, 2, 1, 3}));
    lses.push_back(permute(part.lse, {0, 2, 1}));
  }
  const int64_t n = static_cast<int64_t>(parts.size()), rows = shape[0] * shape[1] * shape[2];
  // Filled in on the device: a copy from the host could not be captured into a graph.
  std::vector<Tensor> sign;
  for (int64_t i = 0; i < n; ++i) {
    sign.push_back(full({1}, signs.empty() ? 1.0 : signs[i], DType::f64, outs[0].device()));
  }
  const std::vector<Tensor> y = merge_rows(reshape(stack(outs, 0), {n, rows, shape[3]}),
                                           reshape(stack(lses, 0), {n, rows}), raw::cat(sign, 0));
  Attended result;
  const Shape memory{shape[0], shape[2], shape[1], shape[3]};
  result.out = permute(reshape(y[0], memory), {0, 2, 1, 3});
  result.lse = permute(reshape(y[1], {shape[0], shape[2], shape[1]}), {0, 2, 1});
  return result;
}

// The derivation is at tensor/cpu/attention/merge.cpp.
Tensor correct_rows(const Tensor& top, const Clusters& clusters, const Tensor& top_mass,
                    const Tensor& mass, const Tensor& top_of_group, const Tensor& out_of_group) {
  const Tensor x = raw::unit_last(top), kept = raw::contiguous(top_mass);
  const Tensor taken = raw::contiguous(mass), of_top = raw::contiguous(top_of_group);
  const Tensor y = raw::empty_heads_last(x, x.size(2), x.size(3));
  CENTROID_DISPATCH(x.device(), correct_rows, x, clusters.labels, kept, taken, of_top,
                    raw::contiguous(out_of_group), y);
  return record("correct_rows", y, {top, top_mass, mass, top_of_group, out_of_group},
                [=, x = Saved(x), kept = Saved(kept), taken = Saved(taken),
                 of_top = Saved(of_top)](const Tensor& dy) -> Grads {
                  const Tensor dtop =
                      raw::empty_heads_last(x.get(), x.get().size(2), x.get().size(3));
                  const Tensor dkept = empty_like(kept.get()), dtaken = empty_like(kept.get());
                  const Tensor dof_top = empty_like(of_top.get());
                  const Tensor dof_all = empty_like(of_top.get());
                  CENTROID_DISPATCH(dy.device(), correct_rows_backward, x.get(), clusters.order,
                                    clusters.offsets, kept.get(), taken.get(), of_top.get(),
                                    raw::unit_last(dy), dtop, dkept, dtaken, dof_top, dof_all);
                  return {dtop, dkept, dtaken, dof_top, dof_all};
                });
}

// y_g = sum over the group of x_l (divided by its size):   dx_l = dy_g (divided by its size).
Tensor group_sum(const Tensor& x, const Clusters& clusters, bool mean) {
  return record(
      "group_sum", raw::group_sum(x, clusters, mean), {x},
      [=](const Tensor& dy) -> Grads { return {raw::group_broadcast(dy, clusters, mean)}; });
}

// x_l = y_g:   dy_g = sum over the group of dx_l.
Tensor group_broadcast(const Tensor& y, const Clusters& clusters) {
  return record("group_broadcast", raw::group_broadcast(y, clusters), {y},
                [=](const Tensor& dx) -> Grads { return {raw::group_sum(dx, clusters)}; });
}

}  // namespace centroid
