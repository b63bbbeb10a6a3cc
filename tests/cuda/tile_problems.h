#pragma once
// Problems for the tests of tile_attention on a CUDA device.
#include <cmath>

#include "tests/cuda/compare.h"

namespace centroid::test {

struct TileSizes {
  int64_t batch, heads, queries, keys, width, value_width;
};
/// q, k, v, dout, dlse.
inline Tensors tile_inputs(const TileSizes& s, uint64_t seed) {
  Rng rng(seed, "attention");
  return {randn({s.batch, s.heads, s.queries, s.width}, rng),
          randn({s.batch, s.heads, s.keys, s.width}, rng),
          randn({s.batch, s.heads, s.keys, s.value_width}, rng),
          randn({s.batch, s.heads, s.queries, s.value_width}, rng),
          randn({s.batch, s.heads, s.queries}, rng)};
}

struct TileMaskCase {
  const char* name;
  bool q_lengths = false, k_lengths = false, causal = false, window = false;
  double dropout = 0;
};
inline const TileMaskCase kTileMasks[] = {
    {"everything"},
    {"both lengths", true, true},
    {"causal", false, false, true},
    {"causal, lengths, dropout", true, true, true, false, 0.3},
    {"window", false, false, false, true},
    {"window, key lengths, dropout", false, true, false, true, 0.1},
    {"dropout", false, false, false, false, 0.4}};

/// The mask on q's device. Windows lie partly before the first key or behind the last; some are
/// empty. With lengths the second item has no keys.
inline KeyMask tile_mask_of(const TileMaskCase& m, const Tensor& q, const Tensor& k) {
  const int64_t batch = q.size(0), queries = q.size(2), keys = k.size(2);
  const auto lengths = [&](bool given, std::vector<int64_t> values) {
    values.resize(batch);
    return given ? Lengths(values) : Lengths();
  };
  KeyMask mask = raw::key_mask(q, k, lengths(m.q_lengths, {queries - queries / 3, queries}),
                               lengths(m.k_lengths, {keys - keys / 5, 0}), m.causal);
  if (!m.window) return mask;
  std::vector<int32_t> begin, end;
  for (int64_t l = 0; l < queries; ++l) {
    begin.push_back(static_cast<int32_t>(l * keys / queries - 9));
    end.push_back(begin.back() + static_cast<int32_t>(l % 5 == 4 ? -3 : 7 + l));
  }
  mask.begin = from_vector(begin, {queries}, q.device());
  mask.end = from_vector(end, {queries}, q.device());
  return mask;
}

inline double tile_scale(const Tensor& q) { return 1 / std::sqrt(static_cast<double>(q.size(3))); }

/// (q, k, v, dout, dlse) -> out, lse, dq, dk, dv.
inline Computation attention(const TileMaskCase& m) {
  return [m](const Tensors& x) -> Tensors {
    const KeyMask mask = tile_mask_of(m, x[0], x[1]);
    const WeightDropout dropout{m.dropout, Rng(7, "dropout").reserve(1)};
    const double scale = tile_scale(x[0]);
    const Attended y = raw::tile_attention(x[0], x[1], x[2], mask, scale, dropout);
    const raw::AttentionGrads dx = raw::tile_attention_backward(
        x[0], x[1], x[2], mask, scale, dropout, y, x[3], x[4], true, true, true);
    return {raw::contiguous(y.out), y.lse, raw::contiguous(dx.dq), raw::contiguous(dx.dk),
            raw::contiguous(dx.dv)};
  };
}

}  // namespace centroid::test
