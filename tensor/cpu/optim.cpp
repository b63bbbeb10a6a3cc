// One fused pass over parameters, gradients and state per optimiser step, over all parameters:
// their elements are cut into chunks that one parallel loop runs over.
#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kGrain = 32768;

// Elements [begin, end) of one tensor of a list.
struct Chunk {
  size_t item;
  int64_t begin, end;
};

// `sizes(i)` elements of each of `count` tensors.
template <typename F>
std::vector<Chunk> chunks_of(size_t count, const F& sizes) {
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < count; ++i) {
    const int64_t n = sizes(i);
    for (int64_t begin = 0; begin < n; begin += kGrain) {
      chunks.push_back({i, begin, std::min(begin + kGrain, n)});
    }
  }
  return chunks;
}

// Calls f(chunk, its number) for all chunks, in parallel when they hold enough work for it.
template <typename F>
void for_each_chunk(const std::vector<Chunk>& chunks, const F& f) {
  int64_t total = 0;
  for (const Chunk& chunk : chunks) total += chunk.end - chunk.begin;
  const int64_t count = static_cast<int64_t>(chunks.size());
  parallel_for(0, count, total <= kGrain ? count : 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) f(chunks[c], c);
  });
}

// Loads, updates and stores elements; a loop that vectorises, because the tensors do not overlap.
template <bool kScaled, typename T, typename Update>
void run(const Update& update, T scale, int64_t n, T* __restrict a, const T* __restrict b,
         T* __restrict c = nullptr, T* __restrict d = nullptr) {
  constexpr int kTensors = Update::kTensors;
  for (int64_t i = 0; i < n; ++i) {
    T x[kTensors];
    x[0] = a[i];
    x[1] = kScaled ? scale * b[i] : b[i];
    if constexpr (kTensors > 2) x[2] = c[i];
    if constexpr (kTensors > 3) x[3] = d[i];
    update(x);
    a[i] = x[0];
    if constexpr (kTensors > 2) c[i] = x[2];
    if constexpr (kTensors > 3) d[i] = x[3];
  }
}

// Updates all elements of a list; `scale` multiplies the second tensors. A list may mix dtypes.
template <template <typename> typename Update, typename Item, typename... Rule>
void step_list(const char* op, const std::vector<Item>& list, const Tensor& scale,
               const Rule&... rule) {
  const double factor = scale.defined() ? *scale.data<double>() : 1;
  if (!std::isfinite(factor)) return;
  const auto chunks =
      chunks_of(list.size(), [&](size_t i) { return tensors_of(list[i])[0]->numel(); });
  for_each_chunk(chunks, [&](const Chunk& chunk, int64_t) {
    const Item& item = list[chunk.item];
    const auto tensors = tensors_of(item);
    dispatch_float(tensors[0]->dtype(), op, [&]<typename T>() {
      const Update<T> update(item, rule...);
      const auto at = [&](int k) { return tensors[k]->template data<T>() + chunk.begin; };
      const auto run_all = [&]<bool kScaled>() {
        const T by = static_cast<T>(factor);
        const int64_t n = chunk.end - chunk.begin;
        if constexpr (Update<T>::kTensors == 2) run<kScaled, T>(update, by, n, at(0), at(1));
        if constexpr (Update<T>::kTensors == 3) run<kScaled, T>(update, by, n, at(0), at(1), at(2));
        if constexpr (Update<T>::kTensors == 4)
          run<kScaled, T>(update, by, n, at(0), at(1), at(2), at(3));
      };
      // Apart, because a product with 1 would change how sums are contracted.
      if (factor == 1) {
        run_all.template operator()<false>();
      } else {
        run_all.template operator()<true>();
      }
    });
  });
}

}  // namespace

void sgd_step(const std::vector<SgdTensors>& list, const Tensor& scale, double lr, double mu,
              bool nesterov) {
  if (mu == 0) return step_list<update::Sgd>("sgd_step", list, scale, lr);
  step_list<update::SgdMomentum>("sgd_step", list, scale, lr, mu, nesterov);
}

void adam_step(const std::vector<AdamTensors>& list, const Tensor& scale, const AdamRule& rule) {
  step_list<update::Adam>("adam_step", list, scale, rule);
}

void ema_step(const std::vector<EmaTensors>& list, double rate) {
  step_list<update::Ema>("ema_step", list, Tensor(), rate);
}

void sum_squares(const std::vector<Tensor>& list, const Tensor& y) {
  const auto chunks = chunks_of(list.size(), [&](size_t i) { return list[i].numel(); });
  std::vector<double> partial(chunks.size());
  for_each_chunk(chunks, [&](const Chunk& chunk, int64_t c) {
    dispatch_float(list[chunk.item].dtype(), "sum_squares", [&]<typename T>() {
      const T* x = list[chunk.item].data<T>();
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = chunk.begin; i < chunk.end; ++i) sum += static_cast<double>(x[i]) * x[i];
      partial[c] = sum;
    });
  });
  // Chunks of a tensor, then tensors.
  std::vector<double> totals(list.size());
  for (size_t c = 0; c < chunks.size(); ++c) totals[chunks[c].item] += partial[c];
  double total = 0;
  for (double sum : totals) total += sum;
  *y.data<double>() = total;
}

}  // namespace centroid::cpu
