// Layer normalisation. Forward, and dx alone, are functors over rows (cuda/rows.cuh). The full
// backward is one kernel that reads x and dy once: each group walks over every so-manieth row,
// writes dx and keeps its share of dgain and dbias in registers (a thread sees the same columns in
// each row); the groups of a block are added in shared memory, the blocks by a second kernel, both
// in a fixed order. Rows longer than a tile get dx from the functor and the sums per tile of
// columns (gridDim.y of them).
#include "cuda/rows.cuh"

namespace centroid::cuda {
namespace {

constexpr int64_t kRowBlocks =
    256;  // that share the rows; not the device's size: sums are the same

template <typename T>
struct LayerNormRow {
  const T *x, *gain, *bias;
  T eps, *y, *mean, *rstd;
  int64_t n;

  template <typename Group>
  CENTROID_DEVICE void operator()(Group& group, int64_t r) const {
    const T* from = x + r * n;
    T v[Group::kValues], part = 0;
    group.each_tile(n, [&](int64_t at) {
      group.load(from + at, n - at, T(0), v);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) part += v[i];
    });
    const T centre = group.sum(part) / static_cast<T>(n);
    part = 0;
    group.each_tile(n, [&](int64_t at) {
      if (!Group::one_tile(n)) group.load(from + at, n - at, T(0), v);
      const int count = Group::in_tile(n - at);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) {
        v[i] -= centre;
        part += group.position(i) < count ? v[i] * v[i] : T(0);
      }
    });
    const T scale = 1 / std::sqrt(group.sum(part) / static_cast<T>(n) + eps);
    if (group.lane == 0) mean[r] = centre, rstd[r] = scale;
    group.each_tile(n, [&](int64_t at) {
      T w[Group::kValues];
      if (!Group::one_tile(n)) {
        group.load(from + at, n - at, T(0), v);
#pragma unroll
        for (int i = 0; i < Group::kValues; ++i) v[i] -= centre;
      }
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) v[i] *= scale;
      if (gain) {
        group.load(gain + at, n - at, T(0), w);
#pragma unroll
        for (int i = 0; i < Group::kValues; ++i) v[i] *= w[i];
      }
      if (bias) {
        group.load(bias + at, n - at, T(0), w);
#pragma unroll
        for (int i = 0; i < Group::kValues; ++i) v[i] += w[i];
      }
      group.store(y + r * n + at, n - at, v);
    });
  }
};

template <typename T>
struct NormBackward {
  const T *x, *gain, *mean, *rstd, *dy;
  T* dx;
  int64_t rows, n;

  // A tile of g = dy * gain and h = (x - mean) * rstd; 0 beyond the row.
  template <typename Group>
  CENTROID_DEVICE void load(const Group& group, int64_t r, int64_t at, T (&g)[Group::kValues],
                            T (&h)[Group::kValues]) const {
    const T centre = mean[r], scale = rstd[r];
    group.load(x + r * n + at, n - at, centre, h);
    group.load(dy + r * n + at, n - at, T(0), g);
#pragma unroll
    for (int i = 0; i < Group::kValues; ++i) h[i] = (h[i] - centre) * scale;
  }
  template <typename Group>
  CENTROID_DEVICE void times_gain(const Group& group, int64_t at, T (&g)[Group::kValues]) const {
    if (!gain) return;
    T w[Group::kValues];
    group.load(gain + at, n - at, T(0), w);
#pragma unroll
    for (int i = 0; i < Group::kValues; ++i) g[i] *= w[i];
  }
  // dx = rstd (g - mean_i g_i - h mean_i(g_i h_i)), derived in tensor/cpu/norm.cpp.
  template <typename Group>
  CENTROID_DEVICE void store(const Group& group, int64_t r, int64_t at, T sum_g, T sum_gh,
                             T (&g)[Group::kValues], const T (&h)[Group::kValues]) const {
    const T mean_g = sum_g / static_cast<T>(n), mean_gh = sum_gh / static_cast<T>(n);
    const T scale = rstd[r];
#pragma unroll
    for (int i = 0; i < Group::kValues; ++i) g[i] = scale * (g[i] - mean_g - h[i] * mean_gh);
    group.store(dx + r * n + at, n - at, g);
  }

  // dx of one row, of any length.
  template <typename Group>
  CENTROID_DEVICE void operator()(Group& group, int64_t r) const {
    T g[Group::kValues], h[Group::kValues], sum_g = 0, sum_gh = 0;
    const auto read = [&](int64_t at) {
      load(group, r, at, g, h);
      times_gain(group, at, g);
    };
    group.each_tile(n, [&](int64_t at) {
      read(at);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) sum_g += g[i], sum_gh += g[i] * h[i];
    });
    sum_g = group.sum(sum_g);
    sum_gh = group.sum(sum_gh);
    group.each_tile(n, [&](int64_t at) {
      if (!Group::one_tile(n)) read(at);
      store(group, r, at, sum_g, sum_gh, g, h);
    });
  }
};

// Adds what the groups of a block hold for each column of their tile, in the order of the groups.
// The slots of `shared` are in the order of values and lanes, which has no bank conflicts.
template <typename Group, typename T>
CENTROID_DEVICE void add_groups(const Group& group, const T (&part)[Group::kValues], T* shared,
                                T* to, int64_t left) {
  const int which = threadIdx.x / Group::kGroup;
#pragma unroll
  for (int i = 0; i < Group::kValues; ++i) {
    shared[which * Group::kTile + i * Group::kGroup + group.lane] = part[i];
  }
  __syncthreads();
  for (int slot = threadIdx.x; slot < Group::kTile; slot += kRowThreads) {
    T sum = 0;
#pragma unroll
    for (int w = 0; w < Group::kGroups; ++w) sum += shared[w * Group::kTile + slot];
    const int column = group.position(slot / Group::kGroup, slot % Group::kGroup);
    if (column < left) to[column] = sum;
  }
  __syncthreads();
}

// partial (gridDim.x, 2, n): dgain and dbias of the rows of each block. dx is written, unless null,
// when a row is one tile.
template <typename Group, typename T>
__global__ void __launch_bounds__(kRowThreads, 2)
    norm_backward_kernel(NormBackward<T> norm, bool wide, T* partial) {
  __shared__ double scratch[Group::kScratch];
  __shared__ T shared[Group::kGroups * Group::kTile];
  Group group(wide, scratch);
  const int64_t at = int64_t{blockIdx.y} * Group::kTile;
  T g[Group::kValues], h[Group::kValues], dgain[Group::kValues] = {}, dbias[Group::kValues] = {};
  const int64_t step = int64_t{gridDim.x} * Group::kGroups;
  int64_t r = int64_t{blockIdx.x} * Group::kGroups + threadIdx.x / Group::kGroup;
  for (; r < norm.rows; r += step) {
    norm.load(group, r, at, g, h);
#pragma unroll
    for (int i = 0; i < Group::kValues; ++i) dgain[i] += g[i] * h[i], dbias[i] += g[i];
    if (!norm.dx) continue;
    norm.times_gain(group, at, g);
    T sum_g = 0, sum_gh = 0;
#pragma unroll
    for (int i = 0; i < Group::kValues; ++i) sum_g += g[i], sum_gh += g[i] * h[i];
    sum_g = group.sum(sum_g);
    sum_gh = group.sum(sum_gh);
    norm.store(group, r, at, sum_g, sum_gh, g, h);
  }
  T* to = partial + 2 * blockIdx.x * norm.n + at;
  add_groups(group, dgain, shared, to, norm.n - at);
  add_groups(group, dbias, shared, to + norm.n, norm.n - at);
}

constexpr int kSlices = kRowThreads / kWarp;

// partial (blocks, 2 n) -> dgain, dbias (n): a warp's lanes take neighbouring columns, the warps of
// a block every eighth row.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    norm_sum_kernel(const T* partial, int64_t blocks, int64_t n, T* dgain, T* dbias) {
  __shared__ T shared[kSlices][kWarp];
  const int lane = threadIdx.x % kWarp, slice = threadIdx.x / kWarp;
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane;
  T sum = 0;
  if (column < 2 * n) {
    for (int64_t b = slice; b < blocks; b += kSlices) sum += partial[b * 2 * n + column];
  }
  shared[slice][lane] = sum;
  __syncthreads();
  if (slice > 0 || column >= 2 * n) return;
  for (int s = 1; s < kSlices; ++s) sum += shared[s][lane];
  T* to = column < n ? dgain : dbias;
  if (to) to[column < n ? column : column - n] = sum;
}

template <typename Group, typename T>
void backward(NormBackward<T> norm, const Tensor& dgain, const Tensor& dbias) {
  const int64_t rows = norm.rows, n = norm.n;
  const bool wide = wide_rows<T>(n, {norm.x, norm.gain, norm.dy, norm.dx});
  const bool sums = dgain.defined() || dbias.defined();
  if (norm.dx && (!sums || !Group::one_tile(n))) {
    for_rows<T>(rows, n, wide, norm);
    norm.dx = nullptr;
  }
  if (!sums) return;
  const int64_t blocks = std::min(div_up(rows, Group::kGroups), kRowBlocks);
  const Device device = (dgain.defined() ? dgain : dbias).device();
  const Tensor partial = empty({blocks, 2, n}, dtype_of<T>(), device);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(div_up(n, Group::kTile)));
  launch(norm_backward_kernel<Group, T>, grid, kRowThreads, 0, norm, wide, partial.data<T>());
  launch(norm_sum_kernel<T>, static_cast<unsigned>(div_up(2 * n, kWarp)), kRowThreads, 0,
         static_cast<const T*>(partial.data<T>()), blocks, n, data_or_null<T>(dgain),
         data_or_null<T>(dbias));
}

}  // namespace

void layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double eps,
                const Tensor& y, const Tensor& mean, const Tensor& rstd) {
  const int64_t n = x.size(1);
  dispatch_float(x.dtype(), "layer_norm", [&]<typename T>() {
    const T *from = x.data<T>(), *pgain = data_or_null<T>(gain), *pbias = data_or_null<T>(bias);
    T* to = y.data<T>();
    for_rows<T>(x.size(0), n, wide_rows<T>(n, {from, pgain, pbias, to}),
                LayerNormRow<T>{from, pgain, pbias, static_cast<T>(eps), to, mean.data<T>(),
                                rstd.data<T>(), n});
  });
}

void layer_norm_backward(const Tensor& x, const Tensor& gain, const Tensor& mean,
                         const Tensor& rstd, const Tensor& dy, const Tensor& dx,
                         const Tensor& dgain, const Tensor& dbias) {
  if (x.size(1) == 0) return;
  dispatch_float(x.dtype(), "layer_norm_backward", [&]<typename T>() {
    const NormBackward<T> norm{x.data<T>(),  data_or_null<T>(gain), mean.data<T>(), rstd.data<T>(),
                               dy.data<T>(), data_or_null<T>(dx),   x.size(0),      x.size(1)};
    with_row_group<T>(x.size(1), [&]<typename Group>() { backward<Group>(norm, dgain, dbias); });
  });
}

}  // namespace centroid::cuda
