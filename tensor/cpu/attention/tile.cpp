// Softmax attention in tiles with online softmax (Milakov and Gimelshein, "Online normalizer
// calculation for softmax", 2018; Dao et al., "FlashAttention", 2022): nothing of size L x S.
//
// The lanes of a vector are queries: scores, weights and outputs of a chunk are kept transposed,
// (keys, queries) and (D, queries). Maxima and sums over keys are then lane by lane, and keys and
// values are read where they lie, a scalar at a time: no operand but the queries is repacked.
#include "tensor/cpu/attention/best.h"
#include "tensor/cpu/attention/visible.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kQueries = 128;  // per chunk, at most
constexpr int64_t kKeys = 128;     // per tile; a multiple of 8, see `drop`

// The running softmax of a chunk: scores are in units of ln 2.
template <typename T>
struct OnlineSoftmax {
  alignas(64) T most[kQueries], sum[kQueries], shrink[kQueries];

  OnlineSoftmax() {
    std::fill_n(most, kQueries, -std::numeric_limits<T>::infinity());
    std::fill_n(sum, kQueries, T(0));
  }

  // scores (n, kQueries) -> weights 2^(score - most), in place; `shrink` is what earlier weights
  // must be multiplied by. While a query has seen no key, `most` is -inf and its weights are 0.
  void add(int64_t n, int64_t queries, T* scores) {
    using Vec = simd::Vector<T>;
    constexpr T kInf = std::numeric_limits<T>::infinity();
    for (int64_t i = 0; i < queries; i += kLanes<T>) {
      Vec top = simd::load(scores + i);
      for (int64_t s = 1; s < n; ++s) {
        const Vec x = simd::load(scores + s * kQueries + i);
        top = top > x ? top : x;
      }
      const Vec old = simd::load(most + i);
      top = top > old ? top : old;
      const Vec shift = top == -kInf ? Vec{} : top;
      Vec total{};
      for (int64_t s = 0; s < n; ++s) {
        T* at = scores + s * kQueries + i;
        const Vec weight = exp2_nonpositive(simd::load(at) - shift);
        total += weight;
        simd::store(at, weight);
      }
      const Vec factor = exp2_nonpositive(old - shift);
      simd::store(most + i, top);
      simd::store(shrink + i, factor);
      simd::store(sum + i, simd::load(sum + i) * factor + total);
    }
  }
};

template <typename T>
struct TileForward {
  const Tensor &q, &k, &v;
  const KeyMask& mask;
  double scale;
  const WeightDropout& dropout;
  const Tensor &out, &lse, &top_scores, &top_keys;
  int64_t heads = q.size(1), queries = q.size(2), keys = k.size(2), width = q.size(3);
  int64_t value_width = out.defined() ? v.size(3) : 0;
  int64_t best = top_keys.defined() ? top_keys.size(3) : 0;

  void chunk(int64_t bh, int64_t l0, int64_t n) const;
  void finish(int64_t bh, int64_t l0, int64_t n, const OnlineSoftmax<T>& softmax, T* result) const;
};

template <typename T>
void TileForward<T>::chunk(int64_t bh, int64_t l0, int64_t n) const {
  const int64_t lanes = padded<T>(n);
  const Visible<T, kQueries> visible(mask, bh / heads, l0, n, keys);
  const Scratch<T> packed(width * kQueries), scores(kKeys * kQueries);
  const Scratch<T> result(value_width * kQueries), dropped(dropout.p > 0 ? kKeys * kQueries : 0);
  const Rows<const T> k_rows(k, bh), v_rows(v, bh), q_rows(q, bh);
  transpose<T>(q_rows[l0], q_rows.stride, n, width, packed, kQueries);
  const T unit = static_cast<T>(scale * kLog2E);
  for (int64_t e = 0; e < width; ++e) {
    for (int64_t i = 0; i < lanes; ++i) packed[e * kQueries + i] *= unit;
  }
  OnlineSoftmax<T> softmax;
  BestKeys<T, kQueries> top(best);
  std::fill_n(result.get(), value_width * kQueries, T(0));
  for (int64_t s = visible.first / 8 * 8; s < visible.last; s += kKeys) {  // eights: see `drop`
    const int64_t m = std::min(kKeys, visible.last - s);
    multiply<T>(m, lanes, width, k_rows[s], k_rows.stride, 1, packed, kQueries, scores, kQueries,
                false, v_rows.ahead(s, s + m, value_width));
    if (!visible.sees_all(s, m)) visible.hide(s, m, lanes, scores);
    if (best > 0) top.offer(s, m, n, scores, visible.sees_all(s, m));
    softmax.add(m, lanes, scores);
    if (value_width == 0) continue;
    for (int64_t d = 0; d < value_width; ++d) {
      for (int64_t i = 0; i < lanes; ++i) result[d * kQueries + i] *= softmax.shrink[i];
    }
    const T* weights = scores;
    if (dropout.p > 0) {
      drop<T, kQueries>(dropout, keys, bh * queries + l0, lanes, s, m, scores, dropped);
      weights = dropped;
    }
    multiply<T>(value_width, lanes, m, v_rows[s], 1, v_rows.stride, weights, kQueries, result,
                kQueries, true, k_rows.ahead(s + m, std::min(s + m + kKeys, visible.last), width));
  }
  finish(bh, l0, n, softmax, result);
  for (int64_t i = 0; best > 0 && i < n; ++i) {
    const int64_t at = (bh * queries + l0 + i) * best;
    top.write(i, static_cast<T>(kLn2), top_scores.data<T>() + at, top_keys.data<int32_t>() + at);
  }
}

// Divides by the sums; a query that saw no key has output 0 and log-sum-exp -inf.
template <typename T>
void TileForward<T>::finish(int64_t bh, int64_t l0, int64_t n, const OnlineSoftmax<T>& softmax,
                            T* result) const {
  alignas(64) T inverse[kQueries];
  T* log_sums = lse.data<T>() + bh * queries + l0;
  for (int64_t i = 0; i < n; ++i) {
    const T sum = softmax.sum[i];
    inverse[i] = sum == 0 ? T(0) : 1 / sum;
    log_sums[i] = sum == 0 ? -std::numeric_limits<T>::infinity()
                           : softmax.most[i] * static_cast<T>(kLn2) + std::log(sum);
  }
  if (value_width == 0) return;
  for (int64_t d = 0; d < value_width; ++d) {
    for (int64_t i = 0; i < n; ++i) result[d * kQueries + i] *= inverse[i];
  }
  const Rows<T> rows(out, bh);
  transpose_back<T>(result, kQueries, n, value_width, rows[l0], rows.stride);
}

// Queries per chunk: fewer than the most where there would be too few chunks to share out, as with
// the means of one head's clusters, and where each query has a window of its own.
int64_t chunk_size(const KeyMask& mask, int64_t rows, int64_t queries) {
  constexpr int64_t kTasks = 4;
  int64_t size = mask.begin.defined() ? kWindowQueries : kQueries;
  while (size > kWindowQueries && rows * ((queries + size - 1) / size) < kTasks) size /= 2;
  return size;
}

}  // namespace

void tile_attention(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                    double scale, const WeightDropout& dropout, const Tensor& out,
                    const Tensor& lse, const Tensor& top_scores, const Tensor& top_keys) {
  const int64_t rows = q.size(0) * q.size(1), queries = q.size(2);
  const int64_t size = chunk_size(mask, rows, queries), chunks = (queries + size - 1) / size;
  dispatch_float(q.dtype(), "tile_attention", [&]<typename T>() {
    const TileForward<T> forward{q, k, v, mask, scale, dropout, out, lse, top_scores, top_keys};
    parallel_for(0, rows * chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t l0 = i % chunks * size;
        forward.chunk(i / chunks, l0, std::min(size, queries - l0));
      }
    });
  });
}

}  // namespace centroid::cpu
