// Cross entropy of logits, with its gradient from the same pass.
#include "tensor/cpu/rows.h"
#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

// With p = softmax(x), loss = -(1 - s) log p[target] - s mean_v log p[v], and
// log p[v] = x[v] - lse, whose derivative by x[k] is 1[v = k] - p[k]; the weights (1 - s) and s / V
// sum to 1, so
//   dx[k] = p[k] - (1 - s) 1[k = target] - s / V.
template <typename T>
T cross_entropy_row(const T* __restrict x, int64_t target, T smoothing, T* __restrict dx,
                    int64_t n) {
  const T most = row_max(x, n);
  const T sum = dx ? row_exp(x, T(1), most, dx, n) : row_sum_exp(x, most, n);
  const T log_sum = math::log(sum);
  T loss = log_sum - (x[target] - most);
  if (smoothing > 0) {
    T mean = 0;
#pragma omp simd reduction(+ : mean)
    for (int64_t i = 0; i < n; ++i) mean += x[i] - most;
    loss = (1 - smoothing) * loss + smoothing * (log_sum - mean / static_cast<T>(n));
  }
  if (dx) {
    const T inverse = 1 / sum, share = smoothing / static_cast<T>(n);
    for (int64_t i = 0; i < n; ++i) dx[i] = dx[i] * inverse - share;
    dx[target] -= 1 - smoothing;
  }
  return loss;
}

}  // namespace

void cross_entropy(const Tensor& logits, const Tensor& targets, int64_t ignore, double smoothing,
                   const Tensor& losses, const Tensor& dlogits) {
  const int64_t n = logits.size(1);
  const int64_t* target = targets.data<int64_t>();
  dispatch_float(logits.dtype(), "cross_entropy", [&]<typename T>() {
    const T* px = logits.data<T>();
    T* pdx = dlogits.defined() ? dlogits.data<T>() : nullptr;
    T* loss = losses.data<T>();
    parallel_for(0, logits.size(0), row_grain(n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        T* dx = pdx ? pdx + r * n : nullptr;
        if (target[r] == ignore) {
          loss[r] = 0;
          if (dx) std::fill_n(dx, n, T(0));
          continue;
        }
        loss[r] = cross_entropy_row(px + r * n, target[r], static_cast<T>(smoothing), dx, n);
      }
    });
  });
}

}  // namespace centroid::cpu
