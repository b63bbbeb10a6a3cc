// Optimisers: one launch steps up to kListTensors parameters.
//
// The tensors of a launch travel in its parameters, so nothing is copied to the device first. Every
// tensor is cut into chunks of kChunk elements, one block each; a block finds its tensor by binary
// search in the table of first blocks, then loads, updates and stores elements 16 bytes at a time
// where all pointers allow it. The arithmetic is that of tensor/optim.h.
#include <vector>

#include "cuda/reduce.cuh"
#include "cuda/vectors.cuh"
#include "tensor/optim.h"

namespace centroid::cuda {
namespace {

constexpr int kListTensors = 32;
constexpr int64_t kChunk = 4096;
constexpr int kPartialThreads = 1024;

struct Nothing {};

/// Tensors that one launch works on: kTensors of equal size for each parameter, and what its update
/// needs to know.
template <typename T, int kTensors, typename Extra>
struct TensorList {
  T* data[kListTensors][kTensors];
  int64_t n[kListTensors];
  Extra extra[kListTensors];
  int first_block[kListTensors + 1];
  int count;
};

/// The part of a list that this block works on.
struct Place {
  int item;
  int64_t begin, end;
};

template <typename List>
CENTROID_DEVICE Place place_of_block(const List& list) {
  const int block = static_cast<int>(blockIdx.x);
  int item = 0;
#pragma unroll
  for (int step = kListTensors / 2; step > 0; step /= 2) {
    if (item + step < list.count && list.first_block[item + step] <= block) item += step;
  }
  const int64_t begin = (block - list.first_block[item]) * kChunk;
  return {item, begin, ::min(begin + kChunk, list.n[item])};
}

CENTROID_DEVICE bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

template <typename T, typename Update>
__global__ void __launch_bounds__(kThreads)
    step_kernel(const __grid_constant__ TensorList<T, Update::kTensors, Update> list,
                const double* scale) {
  constexpr int kTensors = Update::kTensors;
  const double factor = scale ? *scale : 1;
  if (!isfinite(factor)) return;
  const T by = static_cast<T>(factor);
  const Place place = place_of_block(list);
  const Update& update = list.extra[place.item];
  T* data[kTensors];
  bool packed = true;
#pragma unroll
  for (int k = 0; k < kTensors; ++k) {
    data[k] = list.data[place.item][k];
    packed = packed && aligned(data[k]);
  }
  int64_t rest = place.begin;  // where single elements begin
  if (packed) {
    using Packed = Vector<T>;
    rest = place.end / kVector<T> * kVector<T>;
    for (int64_t i = place.begin + threadIdx.x * kVector<T>; i < rest; i += kThreads * kVector<T>) {
      Packed pack[kTensors];
#pragma unroll
      for (int k = 0; k < kTensors; ++k) pack[k] = *reinterpret_cast<const Packed*>(data[k] + i);
#pragma unroll
      for (int j = 0; j < kVector<T>; ++j) {
        T x[kTensors];
#pragma unroll
        for (int k = 0; k < kTensors; ++k) x[k] = pack[k].at[j];
        x[1] *= by;
        update(x);
#pragma unroll
        for (int k = 0; k < kTensors; ++k) pack[k].at[j] = x[k];
      }
#pragma unroll
      for (int k = 0; k < kTensors; ++k) {
        if (k != 1) *reinterpret_cast<Packed*>(data[k] + i) = pack[k];
      }
    }
  }
  for (int64_t i = rest + threadIdx.x; i < place.end; i += kThreads) {
    T x[kTensors];
#pragma unroll
    for (int k = 0; k < kTensors; ++k) x[k] = data[k][i];
    x[1] *= by;
    update(x);
#pragma unroll
    for (int k = 0; k < kTensors; ++k) {
      if (k != 1) data[k][i] = x[k];
    }
  }
}

/// Block b writes the sum of the squares of its chunk to partial[b].
template <typename T>
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const __grid_constant__ TensorList<T, 1, Nothing> list, double* partial) {
  __shared__ double shared[kThreads / kWarp];
  const Place place = place_of_block(list);
  const T* x = list.data[place.item][0];
  double sum = 0;
  int64_t rest = place.begin;
  if (aligned(x)) {
    using Packed = Vector<T>;
    rest = place.end / kVector<T> * kVector<T>;
    for (int64_t i = place.begin + threadIdx.x * kVector<T>; i < rest; i += kThreads * kVector<T>) {
      const Packed pack = *reinterpret_cast<const Packed*>(x + i);
#pragma unroll
      for (int j = 0; j < kVector<T>; ++j) {
        sum += static_cast<double>(pack.at[j]) * static_cast<double>(pack.at[j]);
      }
    }
  }
  for (int64_t i = rest + threadIdx.x; i < place.end; i += kThreads) {
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  sum = block_reduce<kThreads>(sum, Sum{}, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// One block: y = sum of n partial sums.
__global__ void __launch_bounds__(kPartialThreads)
    add_partial_kernel(const double* partial, int64_t n, double* y) {
  __shared__ double shared[kPartialThreads / kWarp];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kPartialThreads) sum += partial[i];
  sum = block_reduce<kPartialThreads>(sum, Sum{}, shared);
  if (threadIdx.x == 0) *y = sum;
}

/// Fills lists with the entries of dtype T that have elements and calls `f(list, blocks)` whenever
/// one is full, and at the end. `extra(entry)` is what the list keeps beside the tensors.
template <typename T, int kTensors, typename Entry, typename MakeExtra, typename F>
void for_each_list(const std::vector<Entry>& entries, const MakeExtra& extra, const F& f) {
  using List = TensorList<T, kTensors, decltype(extra(entries[0]))>;
  static_assert(sizeof(List) <= 4096 - 64, "the parameters of a kernel are at most 4 KB");
  List list{};
  const auto flush = [&] {
    if (list.count > 0) f(list, static_cast<unsigned>(list.first_block[list.count]));
    list.count = 0;
  };
  for (const Entry& entry : entries) {
    const EntryTensors tensors = tensors_of(entry);
    const int64_t n = tensors[0]->numel();
    if (tensors[0]->dtype() != dtype_of<T>() || n == 0) continue;
    const int i = list.count++;
    for (int k = 0; k < kTensors; ++k) list.data[i][k] = tensors[k]->data<T>();
    list.n[i] = n;
    list.extra[i] = extra(entry);
    list.first_block[i + 1] = list.first_block[i] + static_cast<int>(div_up(n, kChunk));
    if (list.count == kListTensors) flush();
  }
  flush();
}

/// One step of all entries of dtype T.
template <typename T, typename Update, typename Entry, typename... Rule>
void step_entries(const std::vector<Entry>& entries, const Tensor& scale, const Rule&... rule) {
  const double* factor = data_or_null<double>(scale);
  for_each_list<T, Update::kTensors>(
      entries, [&](const Entry& entry) { return Update(entry, rule...); },
      [&](const auto& list, unsigned blocks) {
        launch(step_kernel<T, Update>, blocks, kThreads, 0, list, factor);
      });
}

template <template <typename> typename Update, typename Entry, typename... Rule>
void step_list(const std::vector<Entry>& entries, const Tensor& scale, const Rule&... rule) {
  step_entries<float, Update<float>>(entries, scale, rule...);
  step_entries<double, Update<double>>(entries, scale, rule...);
}

/// The partial sums of all tensors of dtype T, one per chunk; returns where the next ones go.
template <typename T>
double* squares_of(const std::vector<Tensor>& tensors, double* partial) {
  for_each_list<T, 1>(
      tensors, [](const Tensor&) { return Nothing{}; },
      [&](const auto& list, unsigned blocks) {
        launch(squares_kernel<T>, blocks, kThreads, 0, list, partial);
        partial += blocks;
      });
  return partial;
}

}  // namespace

void sgd_step(const std::vector<SgdTensors>& list, const Tensor& scale, double lr, double mu,
              bool nesterov) {
  if (mu == 0) return step_list<update::Sgd>(list, scale, lr);
  step_list<update::SgdMomentum>(list, scale, lr, mu, nesterov);
}

void adam_step(const std::vector<AdamTensors>& list, const Tensor& scale, const AdamRule& rule) {
  step_list<update::Adam>(list, scale, rule);
}

void ema_step(const std::vector<EmaTensors>& list, double rate) {
  step_list<update::Ema>(list, Tensor(), rate);
}

void sum_squares(const std::vector<Tensor>& list, const Tensor& y) {
  int64_t chunks = 0;
  for (const Tensor& x : list) chunks += div_up(x.numel(), kChunk);
  const Tensor partial = empty({chunks}, DType::f64, y.device());
  double* end = squares_of<double>(list, squares_of<float>(list, partial.data<double>()));
  launch(add_partial_kernel, 1, kPartialThreads, 0,
         static_cast<const double*>(partial.data<double>()),
         static_cast<int64_t>(end - partial.data<double>()), y.data<double>());
}

}  // namespace centroid::cuda
