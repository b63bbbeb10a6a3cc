// Gradients of tile_attention, by recomputing the weights tile by tile.
//
// With P the weights, M the dropout factors, O = (P M) V and a = scale:
//   dV = (P M)^T dO,   dP = M (dO V^T),   dS = a P (dP - delta),   dQ = dS K,   dK = dS^T Q
// where delta_l = sum_s P_ls dP_ls = dO_l . O_l, less the gradient of lse_l, since d lse_l / d S_ls
// is a P_ls too.
#include "tensor/cpu/attention/splits.h"
#include "tensor/cpu/attention/visible.h"
#include "tensor/cpu/rows.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kQueries = 128;  // per chunk, at most
constexpr int64_t kKeys = 128;     // per tile; a multiple of 8, see `drop`

template <typename T>
struct TileBackward {
  const Tensor &q, &k, &v;
  const KeyMask& mask;
  double scale;
  const WeightDropout& dropout;
  const Tensor &out, &lse, &dout, &dlse, &dq, &dk, &dv, &partial;
  int64_t splits;
  int64_t heads = q.size(1), queries = q.size(2), keys = k.size(2);
  int64_t width = q.size(3), value_width = v.size(3);
  int64_t padded_width = padded<T>(width), padded_value = padded<T>(value_width);
  int64_t chunk = mask.begin.defined() ? kWindowQueries : kQueries;  // queries at once

  struct Chunk;
  void run(int64_t bh, int64_t split) const;
  void load(Chunk& c, int64_t bh, int64_t l0) const;
  void tile(Chunk& c, int64_t bh, int64_t s, int64_t m, bool add, const Ahead& next) const;
  void weigh(Chunk& c, int64_t bh, int64_t s, int64_t m) const;
  Rows<T> dq_rows(int64_t bh, int64_t split) const {
    if (split == 0) return {dq, bh};
    Rows<T> rows;
    rows.data = partial.data<T>() + ((split - 1) * q.size(0) * heads + bh) * queries * width;
    rows.stride = width;
    return rows;
  }
};

// What the tiles of one chunk of queries share. `_t` is transposed: (E, kQueries) and alike.
template <typename T>
struct TileBackward<T>::Chunk {
  int64_t l0 = 0, n = 0, lanes = 0;
  Scratch<T> q_t, dout_t, dq_t, q_rows, dout_rows, weights, dscores, kept;
  alignas(64) T log_sum[kQueries], delta[kQueries];
  explicit Chunk(const TileBackward& t)
      : q_t(t.width * kQueries),
        dout_t(t.value_width * kQueries),
        dq_t(t.width * kQueries),
        q_rows(kQueries * t.padded_width),
        dout_rows(kQueries * t.padded_value),
        weights(kKeys * kQueries),
        dscores(kKeys * kQueries),
        kept(t.dropout.p > 0 ? 2 * kKeys * kQueries : 0) {}
};

template <typename T>
void TileBackward<T>::load(Chunk& c, int64_t bh, int64_t l0) const {
  const Rows<const T> from(q, bh), outs(out, bh), douts(dout, bh);
  c.l0 = l0;
  c.n = std::min(chunk, queries - l0);
  c.lanes = padded<T>(c.n);
  transpose<T>(from[l0], from.stride, c.n, width, c.q_t, kQueries);
  transpose<T>(douts[l0], douts.stride, c.n, value_width, c.dout_t, kQueries);
  copy_rows<T>(from[l0], from.stride, c.n, width, c.q_rows, padded_width);
  copy_rows<T>(douts[l0], douts.stride, c.n, value_width, c.dout_rows, padded_value);
  const T unit = static_cast<T>(scale * kLog2E);
  for (int64_t e = 0; e < width; ++e) {
    for (int64_t i = 0; i < c.lanes; ++i) c.q_t[e * kQueries + i] *= unit;
  }
  std::fill_n(c.dq_t.get(), width * kQueries, T(0));
  for (int64_t i = 0; i < kQueries; ++i) {
    // An infinite log-sum makes all weights of a row 0: rows without keys, and the padding.
    c.log_sum[i] = std::numeric_limits<T>::infinity();
    c.delta[i] = 0;
    if (i >= c.n) continue;
    const T log_sum = lse.data<T>()[bh * queries + l0 + i];
    if (log_sum == -std::numeric_limits<T>::infinity()) continue;
    c.log_sum[i] = log_sum * static_cast<T>(kLog2E);
    c.delta[i] = row_dot(outs[l0 + i], douts[l0 + i], value_width) -
                 (dlse.defined() ? dlse.data<T>()[bh * queries + l0 + i] : T(0));
  }
}

// weights = P M, dscores = dS for the tile's m keys.
template <typename T>
void TileBackward<T>::weigh(Chunk& c, int64_t bh, int64_t s, int64_t m) const {
  using Vec = simd::Vector<T>;
  const T factor = static_cast<T>(scale);
  const bool dropping = dropout.p > 0;
  T* mask_of = c.kept + kKeys * kQueries;
  if (dropping) {
    std::fill_n(c.kept.get(), m * kQueries, T(1));
    drop<T, kQueries>(dropout, keys, bh * queries + c.l0, c.lanes, s, m, c.kept, mask_of);
  }
  for (int64_t i = 0; i < c.lanes; i += kLanes<T>) {
    const Vec log_sum = simd::load(c.log_sum + i), delta = simd::load(c.delta + i);
    for (int64_t j = 0; j < m; ++j) {
      T* weight = c.weights + j * kQueries + i;
      T* dscore = c.dscores + j * kQueries + i;
      const Vec p = exp2_nonpositive(simd::load(weight) - log_sum);
      Vec dp = simd::load(dscore), dropped = p;
      if (dropping) {
        const Vec kept = simd::load(mask_of + j * kQueries + i);
        dp *= kept;
        dropped *= kept;
      }
      simd::store(weight, dropped);
      simd::store(dscore, p * (dp - delta) * factor);
    }
  }
}

template <typename T>
void TileBackward<T>::tile(Chunk& c, int64_t bh, int64_t s, int64_t m, bool add,
                           const Ahead& next) const {
  const Rows<const T> k_rows(k, bh), v_rows(v, bh);
  const Rows<T> dk_rows(dk, bh), dv_rows(dv, bh);
  multiply<T>(m, c.lanes, value_width, v_rows[s], v_rows.stride, 1, c.dout_t, kQueries, c.dscores,
              kQueries, false, dv_rows.ahead(s, s + m, value_width));
  weigh(c, bh, s, m);
  if (dv.defined()) {
    multiply<T>(m, value_width, c.n, c.weights, kQueries, 1, c.dout_rows, padded_value, dv_rows[s],
                dv_rows.stride, add, dk_rows.ahead(s, s + m, width));
  }
  if (dk.defined()) {
    multiply<T>(m, width, c.n, c.dscores, kQueries, 1, c.q_rows, padded_width, dk_rows[s],
                dk_rows.stride, add);
  }
  if (dq.defined()) {
    multiply<T>(width, c.lanes, m, k_rows[s], 1, k_rows.stride, c.dscores, kQueries, c.dq_t,
                kQueries, true, next);
  }
}

// One (item, head) and one of the splits of its keys: their dk and dv, and their part of dq.
template <typename T>
void TileBackward<T>::run(int64_t bh, int64_t split) const {
  const int64_t tiles = (keys + kKeys - 1) / kKeys;
  const int64_t first = tiles * split / splits * kKeys;
  const int64_t last = std::min(keys, tiles * (split + 1) / splits * kKeys);
  const Rows<const T> k_rows(k, bh), v_rows(v, bh);
  const auto zero = [&](int64_t begin, int64_t end) {
    zero_rows(Rows<T>(dk, bh), begin, end, width);
    zero_rows(Rows<T>(dv, bh), begin, end, value_width);
  };
  if (queries == 0) zero(first, last);
  Chunk c(*this);
  for (int64_t l0 = 0; l0 < queries; l0 += chunk) {
    load(c, bh, l0);
    const Visible<T, kQueries> visible(mask, bh / heads, l0, c.n, keys);
    const int64_t begin = std::clamp(visible.first / 8 * 8, first, last);
    const int64_t end = std::clamp(visible.last, begin, last);
    // The first chunk writes dk and dv of the keys that it sees, later ones add.
    if (l0 == 0) zero(first, begin), zero(end, last);
    for (int64_t s = begin; s < end; s += kKeys) {
      const int64_t m = std::min(kKeys, end - s);
      multiply<T>(m, c.lanes, width, k_rows[s], k_rows.stride, 1, c.q_t, kQueries, c.weights,
                  kQueries, false, v_rows.ahead(s, s + m, value_width));
      if (!visible.sees_all(s, m)) visible.hide(s, m, c.lanes, c.weights);
      tile(c, bh, s, m, l0 > 0, k_rows.ahead(s + m, std::min(s + m + kKeys, end), width));
    }
    if (!dq.defined()) continue;
    const Rows<T> to = dq_rows(bh, split);
    transpose_back<T>(c.dq_t, kQueries, c.n, width, to[l0], to.stride);
  }
}

}  // namespace

void tile_attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                             double scale, const WeightDropout& dropout, const Tensor& out,
                             const Tensor& lse, const Tensor& dout, const Tensor& dlse,
                             const Tensor& partial, const Tensor& dq, const Tensor& dk,
                             const Tensor& dv) {
  const int64_t splits = partial.defined() ? partial.size(0) + 1 : 1;
  dispatch_float(q.dtype(), "tile_attention_backward", [&]<typename T>() {
    const TileBackward<T> backward{q,    k,    v,  mask, scale, dropout, out,   lse,
                                   dout, dlse, dq, dk,   dv,    partial, splits};
    const int64_t rows = q.size(0) * q.size(1);
    parallel_for(0, rows * splits, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) backward.run(i / splits, i % splits);
    });
    if (splits > 1) add_partials<T>(partial, dq);
  });
}

}  // namespace centroid::cpu
