// Attention of groups of queries, each to its own list of keys; forward and backward.
#include <vector>

#include "tensor/cpu/attention/gathered.h"
#include "tensor/cpu/attention/splits.h"
#include "tensor/cpu/rows.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kGroupsPerTask = 8;

// All lanes of a vector folded by `op`, halves at a time.
template <typename T, typename Op>
T across(simd::Vector<T> x, const Op& op) {
  simd::Vector<IntOf<T>> lane;
  for (int l = 0; l < kLanes<T>; ++l) lane[l] = l;
  for (int half = kLanes<T> / 2; half >= 1; half /= 2) {
    x = op(x, __builtin_shuffle(x, lane ^ static_cast<IntOf<T>>(half)));
  }
  return x[0];
}

template <typename T>
void add_row(const T* __restrict x, int64_t n, T* __restrict y) {
  for (int64_t e = 0; e < n; ++e) y[e] += x[e];
}

// scores (n) -> weights 2^score / sum, in place; returns the log-sum-exp. n is a multiple of a
// vector. A row without keys has weights 0.
template <typename T>
T softmax_row(T* scores, int64_t n) {
  using Vec = simd::Vector<T>;
  constexpr T kInf = std::numeric_limits<T>::infinity();
  Vec tops = simd::load(scores);
  for (int64_t j = kLanes<T>; j < n; j += kLanes<T>) {
    const Vec x = simd::load(scores + j);
    tops = tops > x ? tops : x;
  }
  const T top = across<T>(tops, [](auto a, auto b) { return a > b ? a : b; });
  const T shift = top == -kInf ? T(0) : top;
  Vec sums{};
  for (int64_t j = 0; j < n; j += kLanes<T>) {
    const Vec weight = exp2_nonpositive(simd::load(scores + j) - shift);
    simd::store(scores + j, weight);
    sums += weight;
  }
  const T sum = across<T>(sums, [](auto a, auto b) { return a + b; });
  if (sum == 0) return -kInf;
  const T inverse = 1 / sum;
  for (int64_t j = 0; j < n; j += kLanes<T>) {
    simd::store(scores + j, simd::load(scores + j) * inverse);
  }
  return top * static_cast<T>(kLn2) + std::log(sum);
}

// ---- forward ------------------------------------------------------------------------------------

template <typename T>
void forward_groups(const Gathered<T>& g, int64_t bh, int64_t begin, int64_t end, const Tensor& out,
                    const Tensor& lse, const Tensor& extra_out, const Tensor& extra_lse) {
  const Rows<const T> q_rows(g.q, bh), extra_rows(g.extra, bh), k_rows(g.k, bh), v_rows(g.v, bh);
  const Rows<T> to(out, bh), extra_to(extra_out, bh);
  const Rows<T> lses(lse, bh), extra_lses(extra_lse, bh);
  GroupKeys<T> keys(g, false);
  GroupRows<T> rows;
  const Scratch<T> q(kGroupQueries * g.padded_width), weights(kGroupQueries * g.padded_list);
  const Scratch<T> result(kGroupQueries * g.padded_value), factors(g.padded_list);
  for (int64_t group = begin; group < end; ++group) {
    bool gathered = false;
    for (int64_t from = 0; rows.take(g, bh, group, from); from += kGroupQueries) {
      if (!std::exchange(gathered, true)) keys.gather(g, bh, group);
      rows.gather(q_rows, extra_rows, g.width, q, g.padded_width);
      group_scores<T>(
          g, rows, keys, q, weights,
          rows.ahead(to, g.value_width) + g.ahead_keys(k_rows, rows.next_keys, g.list, g.width));
      for (int64_t i = 0; i < rows.size(); ++i) {
        T* row = weights + i * g.padded_list;
        *rows.row(lses, extra_lses, i) = softmax_row(row, g.padded_list);
        if ((rows.at[i] >= 0 ? g.dropout : g.extra_dropout).p == 0) continue;
        group_dropout<T>(g, rows, keys, bh, i, factors);
        for (int64_t j = 0; j < keys.size(); ++j) row[j] *= factors[j];
      }
      multiply<T>(rows.size(), g.value_width, keys.size(), weights, g.padded_list, 1, keys.v_rows,
                  g.padded_value, result, g.padded_value, false,
                  rows.ahead_next(q_rows, g.width) +
                      g.ahead_keys(v_rows, rows.next_keys, g.list, g.value_width));
      for (int64_t i = 0; i < rows.size(); ++i) {
        copy_row<T>(result + i * g.padded_value, g.value_width, rows.row(to, extra_to, i), 0);
      }
    }
  }
}

// ---- backward -----------------------------------------------------------------------------------

// The gradients that backward reads and writes; names as in the derivation of tile_backward.cpp.
struct GatheredGrads {
  const Tensor &out, &lse, &extra_out, &extra_lse, &dout, &dlse, &dextra_out, &dextra_lse;
  const Tensor &partial_dk, &partial_dv, &dq, &dextra, &dk, &dv;
};

template <typename T>
struct BackwardRows {
  GroupRows<T> rows;
  const Rows<const T> out, extra_out;
  const Rows<T> lse, extra_lse, dlse, dextra_lse;
  Scratch<T> q, dout, weights, dscores, dq, factors;
  BackwardRows(const Gathered<T>& g, const GatheredGrads& grads, int64_t bh)
      : out(grads.out, bh),
        extra_out(grads.extra_out, bh),
        lse(grads.lse, bh),
        extra_lse(grads.extra_lse, bh),
        dlse(grads.dlse, bh),
        dextra_lse(grads.dextra_lse, bh),
        q(kGroupQueries * g.padded_width),
        dout(kGroupQueries * g.padded_value),
        weights(kGroupQueries * g.padded_list),
        dscores(kGroupQueries * g.padded_list),
        dq(kGroupQueries * g.padded_width),
        factors(g.padded_list) {}
};

// weights = P M and dscores = dS of row i, from dscores = dO V^T.
template <typename T>
void backward_row(const Gathered<T>& g, const GroupKeys<T>& keys, BackwardRows<T>& r, int64_t bh,
                  int64_t i) {
  using Vec = simd::Vector<T>;
  const GroupRows<T>& rows = r.rows;
  T *weight = r.weights + i * g.padded_list, *dscore = r.dscores + i * g.padded_list;
  const T log_sum = *rows.row(r.lse, r.extra_lse, i);
  const T* out = rows.row(r.out, r.extra_out, i);
  const T* dout = r.dout + i * g.padded_value;
  T delta = row_dot(out, dout, g.value_width);
  if ((rows.at[i] >= 0 ? r.dlse : r.dextra_lse).data) delta -= *rows.row(r.dlse, r.dextra_lse, i);
  const bool dropping = (rows.at[i] >= 0 ? g.dropout : g.extra_dropout).p > 0;
  std::fill(dscore + keys.size(), dscore + g.padded_list, T(0));
  std::fill_n(r.factors.get(), g.padded_list, T(1));
  if (dropping) group_dropout<T>(g, rows, keys, bh, i, r.factors);
  const bool empty = log_sum == -std::numeric_limits<T>::infinity();
  // The score of a last resort is too large for its logarithm to give it back exactly.
  const bool alone = log_sum < static_cast<T>(kLastResort * kLn2 / 2);
  const T shift = empty   ? T(0)
                  : alone ? static_cast<T>(kLastResort)
                          : log_sum * static_cast<T>(kLog2E);
  for (int64_t j = 0; j < g.padded_list; j += kLanes<T>) {
    const Vec score = simd::load(weight + j), factor = simd::load(r.factors + j);
    const Vec p = exp2_nonpositive(score - shift);
    // The score of a last resort is a constant.
    const Vec ds = p * (simd::load(dscore + j) * factor - delta) * static_cast<T>(g.scale);
    simd::store(dscore + j, score == static_cast<T>(kLastResort) ? Vec{} : ds);
    simd::store(weight + j, p * factor);
  }
}

// The groups begin .. end of one (item, head): dq of their queries, and their part of dk and dv.
template <typename T>
void backward_groups(const Gathered<T>& g, const GatheredGrads& grads, int64_t bh, int64_t begin,
                     int64_t end, const Rows<T>& dk, const Rows<T>& dv) {
  const Rows<const T> q_rows(g.q, bh), extra_rows(g.extra, bh), k_rows(g.k, bh), v_rows(g.v, bh);
  const Rows<const T> dout(grads.dout, bh), dextra_out(grads.dextra_out, bh);
  const Rows<T> dq(grads.dq, bh), dextra(grads.dextra, bh);
  GroupKeys<T> keys(g, true);
  BackwardRows<T> r(g, grads, bh);
  const Scratch<T> dk_list(g.padded_list * g.padded_width), dv_list(g.padded_list * g.padded_value);
  for (int64_t group = begin; group < end; ++group) {
    bool started = false;
    for (int64_t from = 0; r.rows.take(g, bh, group, from); from += kGroupQueries) {
      const bool more = std::exchange(started, true);
      if (!more) keys.gather(g, bh, group);
      const int64_t n = r.rows.size(), m = keys.size();
      r.rows.gather(q_rows, extra_rows, g.width, r.q, g.padded_width);
      r.rows.gather(dout, dextra_out, g.value_width, r.dout, g.padded_value);
      group_scores<T>(g, r.rows, keys, r.q, r.weights,
                      r.rows.ahead(r.out, g.value_width) + r.rows.ahead(dq, g.width));
      multiply<T>(n, m, g.value_width, r.dout, g.padded_value, 1, keys.v_t, g.padded_list,
                  r.dscores, g.padded_list, false, g.ahead_keys(dk, keys.at.data(), m, g.width));
      for (int64_t i = 0; i < n; ++i) backward_row<T>(g, keys, r, bh, i);
      multiply<T>(
          n, g.width, m, r.dscores, g.padded_list, 1, keys.k_rows, g.padded_width, r.dq,
          g.padded_width, false,
          g.ahead_keys(dv, keys.at.data(), m, g.value_width) + r.rows.ahead_next(q_rows, g.width));
      for (int64_t i = 0; i < n; ++i) {
        copy_row<T>(r.dq + i * g.padded_width, g.width, r.rows.row(dq, dextra, i), 0);
      }
      multiply<T>(m, g.width, n, r.dscores, 1, g.padded_list, r.q, g.padded_width, dk_list,
                  g.padded_width, more,
                  r.rows.ahead_next(dout, g.value_width) +
                      g.ahead_keys(k_rows, r.rows.next_keys, g.list, g.width));
      multiply<T>(m, g.value_width, n, r.weights, 1, g.padded_list, r.dout, g.padded_value, dv_list,
                  g.padded_value, more,
                  g.ahead_keys(v_rows, r.rows.next_keys, g.list, g.value_width));
    }
    for (int64_t j = 0; started && j < keys.size(); ++j) {
      add_row(dk_list + j * g.padded_width, g.width, dk[keys.at[j]]);
      add_row(dv_list + j * g.padded_value, g.value_width, dv[keys.at[j]]);
    }
  }
}

// Where split `s` of the groups adds its part of dk or dv.
template <typename T>
Rows<T> split_rows(const Tensor& total, const Tensor& partial, int64_t bh, int64_t s) {
  if (s == 0) return {total, bh};
  Rows<T> rows;
  rows.stride = total.size(3);
  rows.data = partial.data<T>() +
              ((s - 1) * total.size(0) * total.size(1) + bh) * total.size(2) * rows.stride;
  return rows;
}

}  // namespace

void gathered_attention(const Tensor& q, const Tensor& extra, const Tensor& k, const Tensor& v,
                        const Groups& groups, KeyRule rule, double scale,
                        const WeightDropout& dropout, const WeightDropout& extra_dropout,
                        const Tensor& out, const Tensor& lse, const Tensor& extra_out,
                        const Tensor& extra_lse) {
  const int64_t count = groups.count(), tasks = (count + kGroupsPerTask - 1) / kGroupsPerTask;
  dispatch_float(q.dtype(), "gathered_attention", [&]<typename T>() {
    const Gathered<T> g{q, extra, k, v, groups, rule, scale, dropout, extra_dropout};
    parallel_for(0, q.size(0) * q.size(1) * tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % tasks * kGroupsPerTask;
        forward_groups<T>(g, i / tasks, first, std::min(count, first + kGroupsPerTask), out, lse,
                          extra_out, extra_lse);
      }
    });
  });
}

void gathered_attention_backward(const Tensor& q, const Tensor& extra, const Tensor& k,
                                 const Tensor& v, const Groups& groups, KeyRule rule, double scale,
                                 const WeightDropout& dropout, const WeightDropout& extra_dropout,
                                 const Tensor& out, const Tensor& lse, const Tensor& extra_out,
                                 const Tensor& extra_lse, const Tensor& dout, const Tensor& dlse,
                                 const Tensor& dextra_out, const Tensor& dextra_lse,
                                 const Tensor& partial_dk, const Tensor& partial_dv,
                                 const Tensor& dq, const Tensor& dextra, const Tensor& dk,
                                 const Tensor& dv) {
  const int64_t splits = partial_dk.defined() ? partial_dk.size(0) + 1 : 1;
  const int64_t count = groups.count();
  dispatch_float(q.dtype(), "gathered_attention_backward", [&]<typename T>() {
    const Gathered<T> g{q, extra, k, v, groups, rule, scale, dropout, extra_dropout};
    const GatheredGrads grads{out,  lse,        extra_out,  extra_lse,  dout,
                              dlse, dextra_out, dextra_lse, partial_dk, partial_dv,
                              dq,   dextra,     dk,         dv};
    parallel_for(0, q.size(0) * q.size(1) * splits, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t bh = i / splits, split = i % splits;
        const Rows<T> dk_rows = split_rows<T>(dk, partial_dk, bh, split);
        const Rows<T> dv_rows = split_rows<T>(dv, partial_dv, bh, split);
        zero_rows(dk_rows, 0, g.keys, g.width);
        zero_rows(dv_rows, 0, g.keys, g.value_width);
        backward_groups<T>(g, grads, bh, count * split / splits, count * (split + 1) / splits,
                           dk_rows, dv_rows);
      }
    });
    if (splits == 1) return;
    add_partials<T>(partial_dk, dk);
    add_partials<T>(partial_dv, dv);
  });
}

}  // namespace centroid::cpu
