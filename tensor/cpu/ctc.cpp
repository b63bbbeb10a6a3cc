// Connectionist temporal classification (Graves et al., 2006); the recursions are derived in
// docs/ctc.md. Probabilities are kept as logarithms in double precision: with thousands of frames
// they leave the range of any float, and scaling each frame by its sum would still lose the states
// from which alone the end can be reached.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tensor/cpu/log_space.h"
#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

// log z for z in [1, 3]: z = 2^k m with m in [sqrt(1/2), sqrt(2)].
inline double log_from_one_to_three(double z) {
  constexpr double kSqrt2 = 1.4142135623730951, kLog2 = 0.6931471805599453;
  double m = z, shift = 0;
  shift = m > kSqrt2 ? kLog2 : shift;
  m = m > kSqrt2 ? 0.5 * m : m;
  shift = m > kSqrt2 ? 2 * kLog2 : shift;
  m = m > kSqrt2 ? 0.5 * m : m;
  return shift + log_near_one(m);
}

// log(e^a + e^b) and log(e^a + e^b + e^c).
inline double log_add(double a, double b) {
  const double most = a > b ? a : b;
  return most + log_from_one_to_three(exp_nonpositive(a - most) + exp_nonpositive(b - most));
}
inline double log_add(double a, double b, double c) {
  const double pair = a > b ? a : b, most = pair > c ? pair : c;
  return most + log_from_one_to_three(exp_nonpositive(a - most) + exp_nonpositive(b - most) +
                                      exp_nonpositive(c - most));
}

// The states of one frame in one row of 2 U + 2 numbers: blanks 0..U, then an impossible label -1,
// then labels 0..U-1. Blanks and labels apart make every recursion a loop over neighbours.
struct Row {
  double *blank, *label;  // label[u + 1] is the state of label u
  Row(double* row, int64_t targets) : blank(row), label(row + targets + 1) {}
};

// One utterance: logits (time, classes) and its targets.
template <typename T>
class Item {
 public:
  Item(const T* logits, int64_t time, int64_t classes, const int32_t* targets, int64_t count,
       int64_t blank)
      : x_(logits),
        time_(time),
        classes_(classes),
        targets_(targets),
        count_(count),
        blank_(blank) {
    skip_.assign(count + 1, kLogZero);
    for (int64_t u = 1; u < count; ++u) {
      if (targets[u] != targets[u - 1]) skip_[u] = 0;
    }
    emit_.resize(count + 1, kLogZero);
    normalise();
  }

  // log p(target | logits); keeps every frame's alpha when a gradient is to follow.
  double forward(bool keep);

  // dlogits (time, classes) = softmax - posterior; after forward(true).
  void backward(double log_p, T* dlogits);

 private:
  void normalise();
  void emissions(int64_t t);
  void step_forward(const Row& from, const Row& to) const;
  void step_back(const Row& ahead, const Row& beta) const;
  void posterior(const Row& alpha, const Row& beta, double log_p);

  const T* x_;
  int64_t time_, classes_;
  const int32_t* targets_;
  int64_t count_, blank_;
  std::vector<double> log_sum_;    // (time), the logarithm of the softmax denominator
  std::vector<double> skip_;       // (count + 1), 0 where label u may follow label u - 1 directly
  std::vector<double> emit_;       // (count + 1), log p of each target label in the current frame
  double emit_blank_ = 0;          // log p of the blank there
  std::vector<double> alpha_;      // rows of frames -1, 0, ..., time - 1, or just two of them
  std::vector<double> posterior_;  // (classes)
};

template <typename T>
void Item<T>::normalise() {
  log_sum_.resize(time_);
  for (int64_t t = 0; t < time_; ++t) {
    const T* row = x_ + t * classes_;
    T most = row[0];
#pragma omp simd reduction(max : most)
    for (int64_t k = 0; k < classes_; ++k) most = row[k] > most ? row[k] : most;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < classes_; ++k) {
      sum += exp_nonpositive(static_cast<double>(row[k]) - static_cast<double>(most));
    }
    log_sum_[t] = static_cast<double>(most) + std::log(sum);
  }
}

// Classes of probability 0 (a logit of -inf) become kLogZero; NaN stays NaN.
template <typename T>
void Item<T>::emissions(int64_t t) {
  const T* row = x_ + t * classes_;
  const double log_sum = log_sum_[t];
  const auto log_p = [=](T logit) {
    const double value = static_cast<double>(logit) - log_sum;
    return value < kLogZero ? kLogZero : value;
  };
  for (int64_t u = 0; u < count_; ++u) emit_[u] = log_p(row[targets_[u]]);
  emit_blank_ = log_p(row[blank_]);
}

// alpha_t(state) = log p(frames 0..t, ending in state), from the frame before.
template <typename T>
void Item<T>::step_forward(const Row& from, const Row& to) const {
  const double* __restrict blank = from.blank, * __restrict label = from.label;
  double* __restrict to_blank = to.blank, * __restrict to_label = to.label + 1;
  const double* __restrict skip = skip_.data(), * __restrict emit = emit_.data();
  const double emit_blank = emit_blank_;
  for (int64_t u = 0; u <= count_; ++u) {
    to_blank[u] = log_add(blank[u], label[u]) + emit_blank;
  }
  for (int64_t u = 0; u < count_; ++u) {
    to_label[u] = log_add(label[u + 1], blank[u], label[u] + skip[u]) + emit[u];
  }
}

// Before the first frame stands the first blank alone: nothing has been emitted.
template <typename T>
double Item<T>::forward(bool keep) {
  const int64_t width = 2 * count_ + 2, rows = keep ? time_ + 1 : 2;
  alpha_.assign(rows * width, kLogZero);
  alpha_[0] = 0;
  for (int64_t t = 0; t < time_; ++t) {
    emissions(t);
    step_forward(Row(alpha_.data() + t % rows * width, count_),
                 Row(alpha_.data() + (t + 1) % rows * width, count_));
  }
  const Row last(alpha_.data() + time_ % rows * width, count_);
  return log_add(last.blank[count_], last.label[count_]);
}

// Adds e^(alpha + beta - log p), the probability of being in a state now, to the state's class.
template <typename T>
void Item<T>::posterior(const Row& alpha, const Row& beta, double log_p) {
  std::fill(posterior_.begin(), posterior_.end(), 0.0);
  double* label = alpha.label + 1;  // the row is not needed any more: it takes the result
  double blanks = 0;
#pragma omp simd reduction(+ : blanks)
  for (int64_t u = 0; u <= count_; ++u) {
    blanks += exp_nonpositive(alpha.blank[u] + beta.blank[u] - log_p);
  }
  for (int64_t u = 0; u < count_; ++u) {
    label[u] = exp_nonpositive(label[u] + beta.label[u] - log_p);
  }
  posterior_[blank_] = blanks;
  for (int64_t u = 0; u < count_; ++u) posterior_[targets_[u]] += label[u];
}

// beta_t(state) = log p(frames t + 1.. reach the end | state at t), from `ahead`, which is beta
// plus emission of frame t + 1. In these rows label[u] is label u and label[U] the impossible one.
template <typename T>
void Item<T>::step_back(const Row& ahead, const Row& beta) const {
  const double* __restrict blank = ahead.blank, * __restrict label = ahead.label;
  double* __restrict to_blank = beta.blank, * __restrict to_label = beta.label;
  const double* __restrict skip = skip_.data();
  for (int64_t u = 0; u <= count_; ++u) to_blank[u] = log_add(blank[u], label[u]);
  for (int64_t u = 0; u < count_; ++u) {
    to_label[u] = log_add(label[u], blank[u + 1], label[u + 1] + skip[u + 1]);
  }
}

// Past the last frame stands the last blank alone: it has reached the end.
template <typename T>
void Item<T>::backward(double log_p, T* dlogits) {
  const int64_t width = 2 * count_ + 2;
  posterior_.resize(classes_);
  std::vector<double> beta_row(width, kLogZero), ahead_row(width, kLogZero);
  const Row beta(beta_row.data(), count_), ahead(ahead_row.data(), count_);
  ahead.blank[count_] = 0;
  for (int64_t t = time_ - 1; t >= 0; --t) {
    step_back(ahead, beta);
    posterior(Row(alpha_.data() + (t + 1) * width, count_), beta, log_p);
    const T* __restrict row = x_ + t * classes_;
    T* __restrict dx = dlogits + t * classes_;
    for (int64_t k = 0; k < classes_; ++k) {
      const double y = exp_nonpositive(static_cast<double>(row[k]) - log_sum_[t]);
      dx[k] = static_cast<T>(y - posterior_[k]);
    }
    emissions(t);
    for (int64_t u = 0; u <= count_; ++u) ahead.blank[u] = beta.blank[u] + emit_blank_;
    for (int64_t u = 0; u < count_; ++u) ahead.label[u] = beta.label[u] + emit_[u];
  }
}

// Loss and, if dlogits is not null, gradient of one item whose buffers hold `frames` frames.
template <typename T>
T ctc_item(const T* logits, int64_t frames, int64_t time, int64_t classes, const int32_t* targets,
           int64_t count, int64_t blank, T* dlogits) {
  Item<T> item(logits, time, classes, targets, count, blank);
  const double log_p = item.forward(dlogits != nullptr);
  const bool fits = !(log_p < 0.5 * kLogZero);
  if (dlogits) {
    if (fits) item.backward(log_p, dlogits);
    std::fill(dlogits + (fits ? time : 0) * classes, dlogits + frames * classes, T(0));
  }
  if (!fits) return std::numeric_limits<T>::infinity();
  return static_cast<T>(log_p > 0 ? 0 : 0 - log_p);  // rounding may leave p a little above 1
}

}  // namespace

void ctc(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
         const Tensor& target_lengths, int64_t blank, const Tensor& losses, const Tensor& dlogits) {
  const int64_t batch = logits.size(0), frames = logits.size(1), classes = logits.size(2);
  const int64_t width = targets.size(1);
  const int64_t *time = input_lengths.data<int64_t>(), *count = target_lengths.data<int64_t>();
  dispatch_float(logits.dtype(), "ctc", [&]<typename T>() {
    const T* px = logits.data<T>();
    T* pdx = dlogits.defined() ? dlogits.data<T>() : nullptr;
    parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t offset = b * frames * classes;
        losses.data<T>()[b] =
            ctc_item(px + offset, frames, time[b], classes, targets.data<int32_t>() + b * width,
                     count[b], blank, pdx ? pdx + offset : nullptr);
      }
    });
  });
}

}  // namespace centroid::cpu
