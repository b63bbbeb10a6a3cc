// Softmax and its relatives, and rotary positions. A row is read from memory once: the passes over
// it (maximum, exponentials and their sum, scaling) find it in the first-level cache.
#include <vector>

#include "tensor/cpu/rows.h"
#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

// What a row without a finite entry becomes: 0, or NaN if it holds one.
template <typename T>
T row_without_maximum(const T* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] != x[i]) return x[i];
  }
  return 0;
}

// y = softmax(scale * x). A NaN or +inf anywhere makes the sum NaN and with it the whole row.
template <typename T>
void softmax_row(const T* x, T scale, T* y, int64_t n) {
  constexpr T kInf = std::numeric_limits<T>::infinity();
  T shift;
  if (scale >= 0) {
    shift = scale * row_max(x, n);
  } else {
    shift = -kInf;
    for (int64_t i = 0; i < n; ++i) shift = scale * x[i] > shift ? scale * x[i] : shift;
  }
  // scale = 0 times an infinite entry is NaN and stays so below
  if (shift == -kInf) {
    std::fill_n(y, n, row_without_maximum(x, n));
    return;
  }
  const T inverse = 1 / row_exp(x, scale, shift, y, n);
  for (int64_t i = 0; i < n; ++i) y[i] *= inverse;
}

// Calls f(r) for every row of a (rows, n) tensor, in parallel.
template <typename F>
void for_rows(int64_t rows, int64_t n, const F& f) {
  parallel_for(0, rows, row_grain(n), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r);
  });
}

template <typename T>
void log_softmax_row(const T* x, T* y, int64_t n) {
  const T most = row_max(x, n);
  if (most == -std::numeric_limits<T>::infinity()) {
    const T value = row_without_maximum(x, n);
    std::fill_n(y, n, value == 0 ? most : value);
    return;
  }
  // Two subtractions: most + log(sum) in one number would lose the bits of the logarithm.
  const T log_sum = math::log(row_sum_exp(x, most, n));
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - most) - log_sum;
}

// One (L, S) matrix of masked_softmax: entries that the lengths and the causal mask leave.
template <typename T>
void masked_row(const T* x, T scale, int64_t keys, T* y, int64_t n) {
  if (keys > 0) softmax_row(x, scale, y, keys);
  std::fill(y + keys, y + n, T(0));
}

}  // namespace

void softmax(const Tensor& x, const Tensor& y) {
  const int64_t n = x.size(1);
  dispatch_float(x.dtype(), "softmax", [&]<typename T>() {
    const T* px = x.data<T>();
    T* py = y.data<T>();
    for_rows(x.size(0), n, [&](int64_t r) { softmax_row(px + r * n, T(1), py + r * n, n); });
  });
}

// y_i = e_i / sum e gives dy_i/dx_j = y_i (1[i = j] - y_j), so dx_j = y_j (dy_j - sum_i dy_i y_i).
void softmax_backward(const Tensor& y, const Tensor& dy, double scale, const Tensor& dx) {
  const int64_t n = y.size(1);
  dispatch_float(y.dtype(), "softmax_backward", [&]<typename T>() {
    for_rows(y.size(0), n, [&, factor = static_cast<T>(scale)](int64_t r) {
      const T* __restrict py = y.data<T>() + r * n;
      const T* __restrict pdy = dy.data<T>() + r * n;
      T* __restrict pdx = dx.data<T>() + r * n;
      const T dot = row_dot(py, pdy, n);
      for (int64_t i = 0; i < n; ++i) pdx[i] = factor * (py[i] * (pdy[i] - dot));
    });
  });
}

void log_softmax(const Tensor& x, const Tensor& y) {
  const int64_t n = x.size(1);
  dispatch_float(x.dtype(), "log_softmax", [&]<typename T>() {
    const T* px = x.data<T>();
    T* py = y.data<T>();
    for_rows(x.size(0), n, [&](int64_t r) { log_softmax_row(px + r * n, py + r * n, n); });
  });
}

// y_i = x_i - log sum e^x gives dy_i/dx_j = 1[i = j] - e^(y_j), so dx_j = dy_j - e^(y_j) sum_i
// dy_i.
void log_softmax_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) {
  const int64_t n = y.size(1);
  dispatch_float(y.dtype(), "log_softmax_backward", [&]<typename T>() {
    for_rows(y.size(0), n, [&](int64_t r) {
      const T* __restrict py = y.data<T>() + r * n;
      const T* __restrict pdy = dy.data<T>() + r * n;
      T* __restrict pdx = dx.data<T>() + r * n;
      const T sum = row_sum(pdy, n);
      for (int64_t i = 0; i < n; ++i) pdx[i] = pdy[i] - math::exp(py[i]) * sum;
    });
  });
}

void masked_softmax(const Tensor& x, double scale, const Tensor& q_lengths, const Tensor& k_lengths,
                    bool causal, const Tensor& y) {
  const int64_t heads = x.size(1), queries = x.size(2), n = x.size(3);
  const int64_t* q_valid = q_lengths.defined() ? q_lengths.data<int64_t>() : nullptr;
  const int64_t* k_valid = k_lengths.defined() ? k_lengths.data<int64_t>() : nullptr;
  dispatch_float(x.dtype(), "masked_softmax", [&]<typename T>() {
    const T* px = x.data<T>();
    T* py = y.data<T>();
    for_rows(x.size(0) * heads * queries, n, [&](int64_t r) {
      const int64_t b = r / (heads * queries), l = r % queries;
      int64_t keys = k_valid ? k_valid[b] : n;
      if (causal) keys = std::min(keys, l + 1);
      if (q_valid && l >= q_valid[b]) keys = 0;
      masked_row(px + r * n, static_cast<T>(scale), keys, py + r * n, n);
    });
  });
}

void rotary(const Tensor& x, const Tensor& angles, bool inverse, const Tensor& y) {
  const int64_t batch = x.size(0), time = x.size(1), heads = x.size(2), pairs = x.size(3) / 2;
  const Strides& strides = x.strides();
  const int64_t step = strides[3];
  dispatch_float(x.dtype(), "rotary", [&]<typename T>() {
    const T *px = x.data<T>(), *pa = angles.data<T>();
    T* py = y.data<T>();
    parallel_for(0, time, row_grain(batch * heads * pairs * 2), [&](int64_t begin, int64_t end) {
      std::vector<T> cosine(pairs), sine(pairs);
      for (int64_t l = begin; l < end; ++l) {
        for (int64_t i = 0; i < pairs; ++i) {
          cosine[i] = std::cos(pa[l * pairs + i]);
          sine[i] = inverse ? -std::sin(pa[l * pairs + i]) : std::sin(pa[l * pairs + i]);
        }
        for (int64_t bh = 0; bh < batch * heads; ++bh) {
          const int64_t b = bh / heads, h = bh % heads;
          const T* from = px + b * strides[0] + l * strides[1] + h * strides[2];
          T* to = py + ((b * time + l) * heads + h) * pairs * 2;
          for (int64_t i = 0; i < pairs; ++i) {
            const T even = from[2 * i * step], odd = from[(2 * i + 1) * step];
            to[2 * i] = even * cosine[i] - odd * sine[i];
            to[2 * i + 1] = even * sine[i] + odd * cosine[i];
          }
        }
      }
    });
  });
}

}  // namespace centroid::cpu
