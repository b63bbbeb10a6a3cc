// Attention to every stride-th position: query l sees the keys l + j * stride, |j| <= taps. With
// kernels of its own on CUDA devices, made of the usual operations elsewhere.
#include "nn/attention/common.h"

#ifdef __CUDACC__
#include "cuda/reduce.cuh"
#include "tensor/math.h"
#endif

namespace centroid::nn {

namespace {

// Who sees whom, once for both ways to compute it. What a position sees, and what sees it, are
// positions [first, end) in steps of `stride`.
struct Pattern {
  int64_t stride, taps;
  bool causal;

  CENTROID_HD int64_t first_key(int64_t query) const {
    const int64_t before = query / stride;
    return query - (before < taps ? before : taps) * stride;
  }
  CENTROID_HD int64_t end_key(int64_t query, int64_t keys) const {
    const int64_t end = query + (causal ? 0 : taps * stride) + 1;
    return end < keys ? end : keys;
  }
  CENTROID_HD int64_t first_query(int64_t key) const { return causal ? key : first_key(key); }
  CENTROID_HD int64_t end_query(int64_t key, int64_t queries) const {
    const int64_t end = key + taps * stride + 1;
    return end < queries ? end : queries;
  }
};

// ---- of the usual operations --------------------------------------------------------------------

// (L, S) u8: 1 where query l sees key s.
Tensor seen_keys(const Pattern& pattern, int64_t queries, int64_t keys, Device device) {
  std::vector<uint8_t> seen(queries * keys, 0);
  for (int64_t l = 0; l < queries; ++l) {
    const int64_t end = pattern.end_key(l, keys);
    for (int64_t s = pattern.first_key(l); s < end; s += pattern.stride) seen[l * keys + s] = 1;
  }
  return from_vector(seen, {queries, keys}, device);
}

Tensor attend_plainly(const AttentionInput& input, const Pattern& pattern, double scale) {
  const Tensor scores = matmul(input.q, transpose(input.k, -1, -2)) * scale;  // (B, H, L, S)
  const Tensor seen = seen_keys(pattern, scores.size(2), scores.size(3), scores.device());
  const Tensor least = full({1}, -1e30, scores.dtype(), scores.device());
  // A row may see none of the valid keys: the softmax alone would then be over those not seen.
  const Tensor weights = masked_softmax(where(seen, scores, least), 1, input.q_lengths,
                                        input.k_lengths, input.causal) *
                         raw::cast(seen, scores.dtype());
  return heads_last(matmul(weights, input.v));
}

// ---- fused, a warp per row ----------------------------------------------------------------------

#ifdef __CUDACC__

using cuda::kFullMask, cuda::kThreads, cuda::kWarp, cuda::Rows4;

constexpr int kPerLane = 4;  // numbers of a row; what is wider is computed plainly
constexpr int64_t kMostWidth = kPerLane * kWarp;

template <typename T>
struct Arguments {
  Pattern pattern;
  T scale;
  Rows4<const T> q, k, v, out, dout;
  Rows4<T> to, dq, dk, dv;
  T *lse, *delta;                        // (B, H, L)
  const int64_t *q_lengths, *k_lengths;  // (B), or null
  int64_t heads, positions, rows;        // rows = B H L
  int width, value_width;

  CENTROID_DEVICE int64_t queries(int64_t b) const { return q_lengths ? q_lengths[b] : positions; }
  CENTROID_DEVICE int64_t keys(int64_t b) const { return k_lengths ? k_lengths[b] : positions; }
};

// A row (b, h, n) of each tensor, in the registers of a warp: lane i has elements i, i + 32, ...
struct Place {
  int64_t row, b, h, n;
};
template <typename T>
CENTROID_DEVICE Place place_of_warp(const Arguments<T>& a) {
  const int64_t row = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;
  const int64_t bh = row / a.positions;
  return {row, bh / a.heads, bh % a.heads, row % a.positions};
}

template <typename T>
struct Row {
  T at[kPerLane] = {};

  static CENTROID_DEVICE Row load(const T* from, int width) {
    Row row;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int e = threadIdx.x % kWarp + i * kWarp;
      if (e < width) row.at[i] = from[e];
    }
    return row;
  }
  CENTROID_DEVICE void store(T* to, int width) const {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int e = threadIdx.x % kWarp + i * kWarp;
      if (e < width) to[e] = at[i];
    }
  }
  CENTROID_DEVICE void scale(T factor) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) at[i] *= factor;
  }
  CENTROID_DEVICE void add(T factor, const Row& x) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) at[i] += factor * x.at[i];
  }
  CENTROID_DEVICE T dot(const Row& x) const {
    T sum = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) sum += at[i] * x.at[i];
    return cuda::warp_reduce(sum, cuda::Sum{});
  }
};

// The softmax as it comes: what was summed is scaled down whenever a larger score appears.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(Arguments<T> a) {
  const Place p = place_of_warp(a);
  if (p.row >= a.rows) return;
  const Row<T> q = Row<T>::load(a.q.at(p.b, p.h, p.n), a.width);
  const int64_t end = p.n < a.queries(p.b) ? a.pattern.end_key(p.n, a.keys(p.b)) : 0;
  Row<T> out;
  T most = -INFINITY, sum = 0;
  for (int64_t s = a.pattern.first_key(p.n); s < end; s += a.pattern.stride) {
    const T score = a.scale * q.dot(Row<T>::load(a.k.at(p.b, p.h, s), a.width));
    const T higher = score > most ? score : most;
    const T shrink = math::exp(most - higher), weight = math::exp(score - higher);
    most = higher;
    sum = sum * shrink + weight;
    out.scale(shrink);
    out.add(weight, Row<T>::load(a.v.at(p.b, p.h, s), a.value_width));
  }
  if (sum > 0) out.scale(1 / sum);
  out.store(a.to.at(p.b, p.h, p.n), a.value_width);
  if (threadIdx.x % kWarp == 0) a.lse[p.row] = most + math::log(sum);
}

// With weights w and out_l = sum_s w_ls v_s: dw_ls = dout_l . v_s, and through the softmax
// dscore_ls = w_ls (dw_ls - delta_l), delta_l = sum_s w_ls dw_ls = dout_l . out_l.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2) query_gradient_kernel(Arguments<T> a) {
  const Place p = place_of_warp(a);
  if (p.row >= a.rows) return;
  const Row<T> q = Row<T>::load(a.q.at(p.b, p.h, p.n), a.width);
  const Row<T> dout = Row<T>::load(a.dout.at(p.b, p.h, p.n), a.value_width);
  const T delta = dout.dot(Row<T>::load(a.out.at(p.b, p.h, p.n), a.value_width));
  const int64_t end = p.n < a.queries(p.b) ? a.pattern.end_key(p.n, a.keys(p.b)) : 0;
  Row<T> dq;
  for (int64_t s = a.pattern.first_key(p.n); s < end; s += a.pattern.stride) {
    const Row<T> k = Row<T>::load(a.k.at(p.b, p.h, s), a.width);
    const T weight = math::exp(a.scale * q.dot(k) - a.lse[p.row]);
    const T dweight = dout.dot(Row<T>::load(a.v.at(p.b, p.h, s), a.value_width));
    dq.add(a.scale * weight * (dweight - delta), k);
  }
  dq.store(a.dq.at(p.b, p.h, p.n), a.width);
  if (threadIdx.x % kWarp == 0) a.delta[p.row] = delta;
}

// The same sums by key: it asks the queries that see it, so nothing is added by two warps.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2) key_gradient_kernel(Arguments<T> a) {
  const Place p = place_of_warp(a);
  if (p.row >= a.rows) return;
  const Row<T> k = Row<T>::load(a.k.at(p.b, p.h, p.n), a.width);
  const Row<T> v = Row<T>::load(a.v.at(p.b, p.h, p.n), a.value_width);
  const int64_t end = p.n < a.keys(p.b) ? a.pattern.end_query(p.n, a.queries(p.b)) : 0;
  Row<T> dk, dv;
  for (int64_t l = a.pattern.first_query(p.n); l < end; l += a.pattern.stride) {
    const int64_t row = p.row - p.n + l;
    const Row<T> q = Row<T>::load(a.q.at(p.b, p.h, l), a.width);
    const Row<T> dout = Row<T>::load(a.dout.at(p.b, p.h, l), a.value_width);
    const T weight = math::exp(a.scale * q.dot(k) - a.lse[row]);
    dv.add(weight, dout);
    dk.add(a.scale * weight * (dout.dot(v) - a.delta[row]), q);
  }
  dk.store(a.dk.at(p.b, p.h, p.n), a.width);
  dv.store(a.dv.at(p.b, p.h, p.n), a.value_width);
}

// What is fixed for a call: inputs whose rows lie together in memory, lengths, and the
// log-sum-exps.
struct Fused {
  Tensor q, k, v, q_lengths, k_lengths, lse;
  Pattern pattern;
  double scale;

  template <typename T>
  Arguments<T> arguments() const {
    Arguments<T> a{};
    a.pattern = pattern;
    a.scale = static_cast<T>(scale);
    a.q = cuda::rows4<const T>(q);
    a.k = cuda::rows4<const T>(k);
    a.v = cuda::rows4<const T>(v);
    a.lse = lse.data<T>();
    a.q_lengths = cuda::data_or_null<const int64_t>(q_lengths);
    a.k_lengths = cuda::data_or_null<const int64_t>(k_lengths);
    a.heads = q.size(1);
    a.positions = q.size(2);
    a.rows = q.size(0) * q.size(1) * q.size(2);
    a.width = static_cast<int>(q.size(3));
    a.value_width = static_cast<int>(v.size(3));
    return a;
  }
  template <typename T>
  void start(void (*kernel)(Arguments<T>), const Arguments<T>& a) const {
    const auto blocks = static_cast<unsigned>(cuda::div_up(a.rows, kThreads / kWarp));
    cuda::begin_kernel(q.device().index, "strided attention");
    cuda::launch(kernel, blocks, kThreads, 0, a);
    cuda::end_kernel(q.device().index);
  }

  Tensor forward() const {
    const Tensor out = raw::empty_heads_last(q, q.size(2), v.size(3));
    dispatch_float(q.dtype(), "strided", [&]<typename T>() {
      Arguments<T> a = arguments<T>();
      a.to = cuda::rows4<T>(out);
      start(forward_kernel<T>, a);
    });
    return out;
  }
  Grads backward(const Tensor& out, const Tensor& any_dout) const {
    const Tensor dout = raw::unit_last(any_dout);
    const Tensor delta = empty(lse.shape(), lse.dtype(), lse.device());
    const Tensor dq = raw::empty_heads_last(q, q.size(2), q.size(3));
    const Tensor dk = raw::empty_heads_last(k, k.size(2), k.size(3));
    const Tensor dv = raw::empty_heads_last(v, v.size(2), v.size(3));
    dispatch_float(q.dtype(), "strided", [&]<typename T>() {
      Arguments<T> a = arguments<T>();
      a.out = cuda::rows4<const T>(out);
      a.dout = cuda::rows4<const T>(dout);
      a.delta = delta.data<T>();
      a.dq = cuda::rows4<T>(dq);
      a.dk = cuda::rows4<T>(dk);
      a.dv = cuda::rows4<T>(dv);
      start(query_gradient_kernel<T>, a);
      start(key_gradient_kernel<T>, a);
    });
    return {dq, dk, dv};
  }
};

bool can_fuse(const AttentionInput& input) {
  return input.q.device().kind == DeviceKind::cuda && input.q.size(3) <= kMostWidth &&
         input.v.size(3) <= kMostWidth;
}

Tensor attend_fused(const AttentionInput& input, const Pattern& pattern, double scale) {
  const Tensor &q = input.q, &k = input.k, &v = input.v;
  Fused fused{raw::unit_last(q.detach()),
              raw::unit_last(k.detach()),
              raw::unit_last(v.detach()),
              input.q_lengths.tensor(q.device()),
              input.k_lengths.tensor(q.device()),
              empty({q.size(0), q.size(1), q.size(2)}, q.dtype(), q.device()),
              pattern,
              scale};
  const Tensor out = fused.forward();
  return record("strided attention", out, {q, k, v},
                [fused, saved = Saved(out)](const Tensor& dout) -> Grads {
                  return fused.backward(saved.get(), dout);
                });
}

#endif

// ---- the variant --------------------------------------------------------------------------------

class Strided : public Attention {
 public:
  explicit Strided(const AttentionOptions& options)
      : stride_(options.integer("stride", 1, 1000000)),
        taps_(options.integer("taps", 0, 1000000)),
        temperature_(options.number("temperature", 0, 1e6)) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "strided");
    const Pattern pattern{stride_, taps_, input.causal};
    const double scale = attention_scale(temperature_, input.q);
#ifdef __CUDACC__
    if (can_fuse(input)) return attend_fused(input, pattern, scale);
#endif
    return attend_plainly(input, pattern, scale);
  }

  Capabilities capabilities() const override {
    return {.causal = true,
            .exact_options = "stride=1,taps=1000",
            .test_options = {"stride=2,taps=1", "stride=3,taps=2"}};
  }

 private:
  int64_t stride_, taps_;
  double temperature_;
};

const RegisterAttention kStrided{
    "strided",
    "each query attends to every stride-th key around it",
    {{"stride", "4", "positions from one key that is seen to the next"},
     {"taps", "16", "keys on either side that are seen; causal: on the left"},
     {"temperature", "0", "factor on q k^T before the softmax; 0: 1 / sqrt(head size)"}},
    [](const AttentionOptions& options) { return std::make_unique<Strided>(options); }};

}  // namespace

}  // namespace centroid::nn
