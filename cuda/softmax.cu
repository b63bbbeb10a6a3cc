// Softmax and its relatives: functors over rows (cuda/rows.cuh). A row of up to 4,096 f32 is read
// once and stays in registers from its maximum to the result.
#include "cuda/rows.cuh"

namespace centroid::cuda {
namespace {

// Which keys of row (b, h, l) count; all of them when nothing is set.
struct KeysOfRow {
  const int64_t *q_lengths, *k_lengths;
  int64_t heads, queries;
  bool causal;

  CENTROID_DEVICE int64_t operator()(int64_t r, int64_t n) const {
    if (!q_lengths && !k_lengths && !causal) return n;
    const int64_t bh = r / queries, l = r - bh * queries, b = bh / heads;
    int64_t keys = k_lengths ? k_lengths[b] : n;
    if (causal && l + 1 < keys) keys = l + 1;
    return q_lengths && l >= q_lengths[b] ? 0 : keys;
  }
};

// y = softmax(scale * x) over the keys of each row, 0 at the others. A row of -inf sums to 0.
template <typename T>
struct SoftmaxRow {
  const T* x;
  T* y;
  int64_t n;
  T scale;
  KeysOfRow keys_of;

  template <typename Group>
  CENTROID_DEVICE void operator()(Group& group, int64_t r) const {
    const T* from = x + r * n;
    T v[Group::kValues];
    const int64_t keys = keys_of(r, n);
    const ExpSum<T> total = exp_sum(group, from, keys, scale, v);
    const T inverse = total.sum == 0 ? T(0) : 1 / total.sum;
    group.each_tile(n, [&](int64_t at) {
      // A row of few keys may still be one of several tiles.
      if (!Group::one_tile(n)) {
        group.load(from + at, keys - at, -kInf<T>, v, scale);
      }
      const int count = Group::in_tile(keys - at);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) {
        const bool seen = group.position(i) < count;
        v[i] = seen ? math::exp(v[i] - total.shift) * inverse : T(0);
      }
      group.store(y + r * n + at, n - at, v);
    });
  }
};

template <typename T>
struct LogSoftmaxRow {
  const T* x;
  T* y;
  int64_t n;

  template <typename Group>
  CENTROID_DEVICE void operator()(Group& group, int64_t r) const {
    T v[Group::kValues];
    const ExpSum<T> total = exp_sum(group, x + r * n, n, T(1), v);
    const T log_sum = total.sum == 0 ? T(0) : math::log(total.sum);  // 0: a row of -inf stays it
    group.each_tile(n, [&](int64_t at) {
      if (!Group::one_tile(n)) group.load(x + r * n + at, n - at, -kInf<T>, v);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) v[i] = (v[i] - total.shift) - log_sum;
      group.store(y + r * n + at, n - at, v);
    });
  }
};

// dx = scale * y (dy - sum dy y), or dx = dy - e^y sum dy when y is a log_softmax.
template <typename T, bool kLog>
struct SoftmaxRowBackward {
  const T *y, *dy;
  T scale;
  T* dx;
  int64_t n;

  template <typename Group>
  CENTROID_DEVICE void operator()(Group& group, int64_t r) const {
    const T *py = y + r * n, *pdy = dy + r * n;
    T vy[Group::kValues], vdy[Group::kValues], part = 0;
    const auto load = [&](int64_t at) {
      group.load(py + at, n - at, T(0), vy);
      group.load(pdy + at, n - at, T(0), vdy);
    };
    group.each_tile(n, [&](int64_t at) {
      load(at);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) part += kLog ? vdy[i] : vy[i] * vdy[i];
    });
    const T sum = group.sum(part);
    group.each_tile(n, [&](int64_t at) {
      if (!Group::one_tile(n)) load(at);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) {
        vdy[i] = kLog ? vdy[i] - math::exp(vy[i]) * sum : scale * (vy[i] * (vdy[i] - sum));
      }
      group.store(dx + r * n + at, n - at, vdy);
    });
  }
};

void softmax_rows(const Tensor& x, double scale, const KeysOfRow& keys, const Tensor& y) {
  const int64_t n = x.size(-1);
  if (n == 0) return;
  dispatch_float(x.dtype(), "softmax", [&]<typename T>() {
    const T* from = x.data<T>();
    T* to = y.data<T>();
    for_rows<T>(x.numel() / n, n, wide_rows<T>(n, {from, to}),
                SoftmaxRow<T>{from, to, n, static_cast<T>(scale), keys});
  });
}

template <bool kLog>
void backward_rows(const Tensor& y, const Tensor& dy, double scale, const Tensor& dx) {
  const int64_t n = y.size(1);
  dispatch_float(y.dtype(), "softmax_backward", [&]<typename T>() {
    const T *py = y.data<T>(), *pdy = dy.data<T>();
    T* to = dx.data<T>();
    for_rows<T>(y.size(0), n, wide_rows<T>(n, {py, pdy, to}),
                SoftmaxRowBackward<T, kLog>{py, pdy, static_cast<T>(scale), to, n});
  });
}

}  // namespace

void softmax(const Tensor& x, const Tensor& y) { softmax_rows(x, 1, {}, y); }

void masked_softmax(const Tensor& x, double scale, const Tensor& q_lengths, const Tensor& k_lengths,
                    bool causal, const Tensor& y) {
  softmax_rows(x, scale,
               {data_or_null<const int64_t>(q_lengths), data_or_null<const int64_t>(k_lengths),
                x.size(1), x.size(2), causal},
               y);
}

void log_softmax(const Tensor& x, const Tensor& y) {
  const int64_t n = x.size(1);
  dispatch_float(x.dtype(), "log_softmax", [&]<typename T>() {
    const T* from = x.data<T>();
    T* to = y.data<T>();
    for_rows<T>(x.size(0), n, wide_rows<T>(n, {from, to}), LogSoftmaxRow<T>{from, to, n});
  });
}

void softmax_backward(const Tensor& y, const Tensor& dy, double scale, const Tensor& dx) {
  backward_rows<false>(y, dy, scale, dx);
}

void log_softmax_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) {
  backward_rows<true>(y, dy, 1, dx);
}

}  // namespace centroid::cuda
