// One fused pass over parameter, gradient and state per optimiser step.
#include <cmath>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kGrain = 32768;

// v = mu v + g, and w -= lr v, or lr (g + mu v) for Nesterov's form.
template <typename T>
void sgd_momentum(T* __restrict w, const T* __restrict dw, T* __restrict v, int64_t n, T lr,
                  T decay, T mu, bool nesterov) {
  for (int64_t i = 0; i < n; ++i) {
    const T g = dw[i] + decay * w[i];
    const T velocity = mu * v[i] + g;
    v[i] = velocity;
    w[i] -= lr * (nesterov ? g + mu * velocity : velocity);
  }
}

template <typename T>
void sgd_plain(T* __restrict w, const T* __restrict dw, int64_t n, T lr, T decay) {
  for (int64_t i = 0; i < n; ++i) w[i] -= lr * (dw[i] + decay * w[i]);
}

// The constants of an Adam step, combined in double and rounded once.
template <typename T>
struct AdamStep {
  T beta1, one_minus_beta1, beta2, one_minus_beta2;
  T keep;       // 1 - lr * decay, when the decay is decoupled
  T coupled;    // decay that is added to the gradient
  T rate;       // of m / (sqrt(v) * root + eps), or of m when there is no v
  T root, eps;  // root = 1 / sqrt(correction2)

  template <bool kAdaptive>
  void run(T* __restrict w, const T* __restrict dw, T* __restrict m, T* __restrict v,
           int64_t n) const {
    for (int64_t i = 0; i < n; ++i) {
      const T g = dw[i] + coupled * w[i];
      m[i] = beta1 * m[i] + one_minus_beta1 * g;
      v[i] = beta2 * v[i] + one_minus_beta2 * g * g;
      const T step = kAdaptive ? rate * m[i] / (std::sqrt(v[i]) * root + eps) : rate * m[i];
      w[i] = keep * w[i] - step;
    }
  }
};

}  // namespace

void sgd_step(const Tensor& w, const Tensor& dw, const Tensor& momentum, double lr, double decay,
              double mu, bool nesterov) {
  dispatch_float(w.dtype(), "sgd_step", [&]<typename T>() {
    T *pw = w.data<T>(), *pdw = dw.data<T>();
    T* pv = momentum.defined() ? momentum.data<T>() : nullptr;
    const T rate = static_cast<T>(lr), shrink = static_cast<T>(decay), keep = static_cast<T>(mu);
    parallel_for(0, w.numel(), kGrain, [&](int64_t begin, int64_t end) {
      const int64_t n = end - begin;
      if (pv) {
        sgd_momentum(pw + begin, pdw + begin, pv + begin, n, rate, shrink, keep, nesterov);
      } else {
        sgd_plain(pw + begin, pdw + begin, n, rate, shrink);
      }
    });
  });
}

// Adam (Kingma and Ba, 2015); decoupled decay: AdamW (Loshchilov and Hutter, 2019); rectify: RAdam
// (Liu et al., 2020).
void adam_step(const Tensor& w, const Tensor& dw, const Tensor& m, const Tensor& v, double lr,
               double beta1, double beta2, double eps, double decay, bool decoupled,
               double correction1, double correction2, double rectify) {
  dispatch_float(w.dtype(), "adam_step", [&]<typename T>() {
    const bool adaptive = rectify > 0;
    const auto t = [](double value) { return static_cast<T>(value); };
    const AdamStep<T> step{t(beta1),
                           t(1 - beta1),
                           t(beta2),
                           t(1 - beta2),
                           t(decoupled ? 1 - lr * decay : 1),
                           t(decoupled ? 0 : decay),
                           t(adaptive ? lr * rectify / correction1 : lr / correction1),
                           t(1 / std::sqrt(correction2)),
                           t(eps)};
    T *pw = w.data<T>(), *pdw = dw.data<T>(), *pm = m.data<T>(), *pv = v.data<T>();
    parallel_for(0, w.numel(), kGrain, [&](int64_t begin, int64_t end) {
      const int64_t i = begin, n = end - begin;
      if (adaptive) {
        step.template run<true>(pw + i, pdw + i, pm + i, pv + i, n);
      } else {
        step.template run<false>(pw + i, pdw + i, pm + i, pv + i, n);
      }
    });
  });
}

void sum_squares(const Tensor& x, const Tensor& y) {
  const int64_t n = x.numel();
  std::vector<double> partial((n + kGrain - 1) / kGrain);
  dispatch_float(x.dtype(), "sum_squares", [&]<typename T>() {
    const T* px = x.data<T>();
    parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = begin; i < end; ++i) sum += static_cast<double>(px[i]) * px[i];
      partial[begin / kGrain] = sum;
    });
  });
  double total = 0;
  for (double sum : partial) total += sum;
  *y.data<double>() = total;
}

}  // namespace centroid::cpu
