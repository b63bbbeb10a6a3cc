// Cross entropy with its gradient: one functor over rows (cuda/rows.cuh). A row of up to 4,096 f32
// is read once; of longer ones, the first pass finds the largest logit and the sum of exponentials,
// the second the gradient. A target out of range is recorded, and its row has loss NaN, gradient 0.
#include "cuda/rows.cuh"

namespace centroid::cuda {
namespace {

template <typename T>
struct CrossEntropyRow {
  const T* logits;
  const int64_t* targets;
  int64_t ignore;
  T smoothing;
  T *losses, *dlogits;
  int64_t n;
  Fault* fault;
  unsigned long long op;

  template <typename Group>
  CENTROID_DEVICE void operator()(Group& group, int64_t r) const {
    const int64_t target = targets[r];
    const bool valid = target >= 0 && target < n;
    if (target != ignore && valid) return work(group, r, target);
    if (group.lane == 0) {
      losses[r] = target == ignore ? T(0) : T(NAN);
      if (target != ignore) record_fault(fault, op, target, r, n);
    }
    if (dlogits) group.fill(dlogits + r * n, n, T(0));
  }

  // See tensor/cpu/loss.cpp for the derivation.
  template <typename Group>
  CENTROID_DEVICE void work(Group& group, int64_t r, int64_t target) const {
    const T* x = logits + r * n;
    T v[Group::kValues], above = 0;  // above: sum of x - the largest
    const ExpSum<T> total = exp_sum(group, x, n, T(1), v);
    const T inverse = 1 / total.sum, share = smoothing / static_cast<T>(n);
    if (dlogits || smoothing > 0) {
      group.each_tile(n, [&](int64_t at) {
        if (!Group::one_tile(n)) group.load(x + at, n - at, -kInf<T>, v);
        const int count = Group::in_tile(n - at);
        const int hit = target < at ? -1 : Group::in_tile(target - at);  // kTile: in a later one
#pragma unroll
        for (int i = 0; i < Group::kValues; ++i) {
          const int k = group.position(i);
          above += k < count ? v[i] - total.shift : T(0);
          v[i] = math::exp(v[i] - total.shift) * inverse - share;
          v[i] -= k == hit ? 1 - smoothing : T(0);
        }
        if (dlogits) group.store(dlogits + r * n + at, n - at, v);
      });
    }
    const T log_sum = math::log(total.sum);
    T loss = log_sum - (x[target] - total.shift);
    if (smoothing > 0) {
      const T mean = group.sum(above) / static_cast<T>(n);
      loss = (1 - smoothing) * loss + smoothing * (log_sum - mean);
    }
    if (group.lane == 0) losses[r] = loss;
  }
};

}  // namespace

void cross_entropy(const Tensor& logits, const Tensor& targets, int64_t ignore, double smoothing,
                   const Tensor& losses, const Tensor& dlogits) {
  const int64_t n = logits.size(1);
  dispatch_float(logits.dtype(), "cross_entropy", [&]<typename T>() {
    const T* x = logits.data<T>();
    T* dx = data_or_null<T>(dlogits);
    for_rows<T>(logits.size(0), n, wide_rows<T>(n, {x, dx}),
                CrossEntropyRow<T>{x, targets.data<int64_t>(), ignore, static_cast<T>(smoothing),
                                   losses.data<T>(), dx, n, fault_record(),
                                   reinterpret_cast<unsigned long long>("cross_entropy")});
  });
}

}  // namespace centroid::cuda
