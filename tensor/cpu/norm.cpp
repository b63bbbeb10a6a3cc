// Layer normalisation (Ba, Kiros and Hinton, 2016).
#include <cmath>
#include <vector>

#include "tensor/cpu/rows.h"
#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

template <typename T>
T* data_or_null(const Tensor& x) {
  return x.defined() ? x.data<T>() : nullptr;
}

// Mean first, then the squares of what is left of it: the one-pass form sum x^2 - n mean^2 cancels.
template <typename T>
void layer_norm_row(const T* __restrict x, const T* __restrict gain, const T* __restrict bias,
                    double eps, T* __restrict y, T* mean, T* rstd, int64_t n) {
  const T centre = row_sum(x, n) / static_cast<T>(n);
  T squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; ++i) squares += (x[i] - centre) * (x[i] - centre);
  const T scale = 1 / std::sqrt(squares / static_cast<T>(n) + static_cast<T>(eps));
  *mean = centre;
  *rstd = scale;
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - centre) * scale;
  if (gain) {
    for (int64_t i = 0; i < n; ++i) y[i] *= gain[i];
  }
  if (bias) {
    for (int64_t i = 0; i < n; ++i) y[i] += bias[i];
  }
}

// Blocks of rows whose contributions to dgain and dbias are summed apart and then in block order:
// as many as 64, whatever the number of threads.
int64_t rows_per_block(int64_t rows) { return std::max<int64_t>(16, (rows + 63) / 64); }

template <typename T>
struct LayerNormBackward {
  const T *x, *gain, *mean, *rstd, *dy;
  T *dx, *dgain, *dbias;
  int64_t rows, n;

  // dx of one row, see layer_norm_backward.
  void row_dx(int64_t r) const {
    const T* __restrict px = x + r * n, * __restrict pdy = dy + r * n;
    T* __restrict pdx = dx + r * n;
    const T centre = mean[r], scale = rstd[r];
    T sum_g = 0, sum_gx = 0;
#pragma omp simd reduction(+ : sum_g, sum_gx)
    for (int64_t i = 0; i < n; ++i) {
      const T g = gain ? pdy[i] * gain[i] : pdy[i];
      pdx[i] = g;
      sum_g += g;
      sum_gx += g * ((px[i] - centre) * scale);
    }
    const T mean_g = sum_g / static_cast<T>(n), mean_gx = sum_gx / static_cast<T>(n);
    for (int64_t i = 0; i < n; ++i) {
      pdx[i] = scale * (pdx[i] - mean_g - (px[i] - centre) * scale * mean_gx);
    }
  }

  // Adds one row to a block's partial sums.
  void row_parameters(int64_t r, T* __restrict to_gain, T* __restrict to_bias) const {
    const T* __restrict px = x + r * n, * __restrict pdy = dy + r * n;
    const T centre = mean[r], scale = rstd[r];
    if (dgain) {
      for (int64_t i = 0; i < n; ++i) to_gain[i] += pdy[i] * ((px[i] - centre) * scale);
    }
    if (dbias) {
      for (int64_t i = 0; i < n; ++i) to_bias[i] += pdy[i];
    }
  }

  void run() const {
    const int64_t block = rows_per_block(rows), blocks = (rows + block - 1) / block;
    std::vector<T> partial(dgain || dbias ? blocks * 2 * n : 0);
    parallel_for(0, rows, block, [&](int64_t begin, int64_t end) {
      T* to = partial.data() + (partial.empty() ? 0 : begin / block * 2 * n);
      for (int64_t r = begin; r < end; ++r) {
        if (dx) row_dx(r);
        if (!partial.empty()) row_parameters(r, to, to + n);
      }
    });
    if (dgain) combine(partial.data(), blocks, dgain);
    if (dbias) combine(partial.data() + n, blocks, dbias);
  }

  void combine(const T* partial, int64_t blocks, T* __restrict sum) const {
    std::fill_n(sum, n, T(0));
    for (int64_t b = 0; b < blocks; ++b) {
      const T* __restrict from = partial + b * 2 * n;
      for (int64_t i = 0; i < n; ++i) sum[i] += from[i];
    }
  }
};

}  // namespace

void layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double eps,
                const Tensor& y, const Tensor& mean, const Tensor& rstd) {
  const int64_t n = x.size(1);
  dispatch_float(x.dtype(), "layer_norm", [&]<typename T>() {
    const T *px = x.data<T>(), *pgain = data_or_null<T>(gain), *pbias = data_or_null<T>(bias);
    T *py = y.data<T>(), *pmean = mean.data<T>(), *prstd = rstd.data<T>();
    parallel_for(0, x.size(0), row_grain(n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        layer_norm_row(px + r * n, pgain, pbias, eps, py + r * n, pmean + r, prstd + r, n);
      }
    });
  });
}

// With h = (x - mean) rstd, y = gain h + bias:  dgain = sum_r dy h,  dbias = sum_r dy.
// For dx put g = dy gain. mean and rstd depend on every x_j: dmean/dx_j = 1/n and
// drstd/dx_j = -rstd^3 (x_j - mean) / n = -rstd^2 h_j / n, hence dh_i/dx_j =
// rstd (1[i = j] - 1/n - h_i h_j / n) and
//   dx_j = rstd (g_j - mean_i(g_i) - h_j mean_i(g_i h_i)).
void layer_norm_backward(const Tensor& x, const Tensor& gain, const Tensor& mean,
                         const Tensor& rstd, const Tensor& dy, const Tensor& dx,
                         const Tensor& dgain, const Tensor& dbias) {
  dispatch_float(x.dtype(), "layer_norm_backward", [&]<typename T>() {
    LayerNormBackward<T>{x.data<T>(),
                         data_or_null<T>(gain),
                         mean.data<T>(),
                         rstd.data<T>(),
                         dy.data<T>(),
                         data_or_null<T>(dx),
                         data_or_null<T>(dgain),
                         data_or_null<T>(dbias),
                         x.size(0),
                         x.size(1)}
        .run();
  });
}

}  // namespace centroid::cpu
