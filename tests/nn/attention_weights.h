#pragma once
// Attention weights of variants, read row by row, for tests that compare them with formulas.
#include "tests/nn/attention_battery.h"

namespace centroid::test {

using Row = std::vector<double>;

/// A tensor (B, H, N, W) or (B, H, N) of any dtype, to be read as x(b, h, n) -> the row, or as
/// x(b, h, n, w).
struct Table {
  Row values;
  int64_t heads, rows, width;
  explicit Table(const Tensor& x)
      : values(doubles(x)), heads(x.size(1)), rows(x.size(2)), width(x.dim() > 3 ? x.size(3) : 1) {}
  Row operator()(int64_t b, int64_t h, int64_t n) const {
    const auto at = values.begin() + ((b * heads + h) * rows + n) * width;
    return {at, at + width};
  }
  double operator()(int64_t b, int64_t h, int64_t n, int64_t w) const {
    return values[((b * heads + h) * rows + n) * width + w];
  }
};

inline Tensor weights_of(Attention& attention, const Problem& p, Choices* record = nullptr,
                         const Choices* replay = nullptr, bool training = false) {
  Rng rng(7, "battery");
  return attention_weights(attention, {.q = p.q,
                                       .k = p.k,
                                       .q_lengths = p.q_lengths,
                                       .k_lengths = p.k_lengths,
                                       .causal = p.causal,
                                       .training = training,
                                       .rng = &rng,
                                       .record = record,
                                       .replay = replay});
}

inline Tensor weights_of(const std::string& spec, const Problem& p, Choices* record = nullptr,
                         const Choices* replay = nullptr, bool training = false) {
  return weights_of(*make_attention(spec), p, record, replay, training);
}

inline double dot(const Row& a, const Row& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
inline double l1(const Row& a, const Row& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::fabs(a[i] - b[i]);
  return sum;
}
inline double l2(const Row& a, const Row& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

/// The softmax of scale q k over the keys for which `seen` holds; returns the log-sum-exp.
template <typename F>
double softmax_over(const Row& q, const Table& k, int64_t b, int64_t h, double scale, const F& seen,
                    Row& weights) {
  weights.assign(k.rows, 0);
  double most = -1e300, sum = 0;
  for (int64_t s = 0; s < k.rows; ++s) {
    if (seen(s)) most = std::max(most, scale * dot(q, k(b, h, s)));
  }
  for (int64_t s = 0; s < k.rows; ++s) {
    if (seen(s)) sum += weights[s] = std::exp(scale * dot(q, k(b, h, s)) - most);
  }
  if (sum == 0) return -std::numeric_limits<double>::infinity();
  for (double& w : weights) w /= sum;
  return most + std::log(sum);
}

}  // namespace centroid::test
