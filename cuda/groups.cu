// Groups of positions: sorting them by label, sums over groups, and rows handed back to members.
//
// Sorting is a stable counting sort, one block per head (rank.cuh); with more labels than counters,
// digit by digit from the lowest. Sums: a block per group and tile of columns, whose threads are
// `slices` of members times `lanes` of 16 bytes; members go to the slices in turn, and the slices'
// sums are added in order, so the result depends on shapes alone.
#include "cuda/rank.cuh"
#include "cuda/vectors.cuh"

namespace centroid::cuda {
namespace {

// ---- sorting by label ---------------------------------------------------------------------------

constexpr int kSortThreads = 1024;
constexpr int kDigitBits = 8, kMostBins = 1 << kDigitBits;

struct SortPass {
  const int32_t* labels;
  const int32_t* from;    // (B, H, L): the order so far; null: ascending positions
  int32_t *to, *offsets;  // (B, H, L), (B, H, G + 1)
  int positions, groups;
  int shift, bins;
  bool whole;  // the digit is all of the label: offsets come with it

  // Positions without a label come last; so would any with a label that is out of range.
  CENTROID_DEVICE int slot(int32_t label) const {
    return static_cast<unsigned>(label) < static_cast<unsigned>(groups) ? label : groups;
  }
};

__global__ void __launch_bounds__(kSortThreads) sort_pass_kernel(SortPass a) {
  const int64_t at = int64_t{blockIdx.x} * a.positions;
  const auto position = [&](int i) { return a.from ? a.from[at + i] : i; };
  const auto bin = [&](int i) {
    const int slot = a.slot(a.labels[at + position(i)]);
    return a.whole ? slot : slot >> a.shift & (kMostBins - 1);
  };
  const auto first = [&](int bin, int rank) {
    if (a.whole) a.offsets[int64_t{blockIdx.x} * (a.groups + 1) + bin] = rank;
  };
  const auto take = [&](int i, int, int rank) { a.to[at + rank] = position(i); };
  stable_ranks(a.positions, a.bins, dynamic_shared<int>(), bin, first, take);
}

// Where the sorted positions reach label g, by bisection.
struct FindOffset {
  SortPass a;

  CENTROID_DEVICE void operator()(int64_t i) const {
    const int64_t at = i / (a.groups + 1) * a.positions;
    const int group = static_cast<int>(i % (a.groups + 1));
    int low = 0, high = a.positions;
    while (low < high) {
      const int middle = low + (high - low) / 2;
      const bool before = a.slot(a.labels[at + a.from[at + middle]]) < group;
      (before ? low : high) = before ? middle + 1 : middle;
    }
    a.offsets[i] = low;
  }
};

// ---- rows ---------------------------------------------------------------------------------------

// The logarithm of the lanes that take one row of `vectors` vectors.
int lane_bits(int64_t vectors) {
  int bits = 0;
  while (bits < 5 && int64_t{1} << bits < vectors) ++bits;
  return bits;
}

constexpr int kMostSumThreads = 512;

template <typename T>
struct SumArguments {
  Rows4<const T> x;
  const int32_t *order, *offsets;
  T* y;
  int heads, positions, groups, width;
  int lane_bits;
  bool mean;
};

template <typename T, int kCount>
__global__ void __launch_bounds__(kMostSumThreads) group_sum_kernel(SumArguments<T> a) {
  using Values = Vector<T, kCount>;
  Values* sums = dynamic_shared<Values>();
  const int group = blockIdx.x % a.groups, bh = blockIdx.x / a.groups;
  const int lane = threadIdx.x & ((1 << a.lane_bits) - 1), slice = threadIdx.x >> a.lane_bits;
  const int slices = blockDim.x >> a.lane_bits;
  const int e = static_cast<int>((blockIdx.y << a.lane_bits) + lane) * kCount;
  const int32_t* offset = a.offsets + int64_t{bh} * (a.groups + 1) + group;
  const int begin = offset[0], end = offset[1];
  Values sum = {};
  if (e < a.width) {
    const T* from = a.x.at(bh / a.heads, bh % a.heads, 0) + e;
    const int32_t* member = a.order + int64_t{bh} * a.positions;
#pragma unroll 4
    for (int j = begin + slice; j < end; j += slices) {
      const Values value = *reinterpret_cast<const Values*>(from + member[j] * a.x.row);
#pragma unroll
      for (int i = 0; i < kCount; ++i) sum.at[i] += value.at[i];
    }
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (slice > 0 || e >= a.width) return;
  const int used = min(slices, end - begin);
  for (int s = 1; s < used; ++s) {
    const Values other = sums[(s << a.lane_bits) + lane];
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum.at[i] += other.at[i];
  }
  const T scale = a.mean ? 1 / static_cast<T>(max(1, end - begin)) : T(1);
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum.at[i] *= scale;
  *reinterpret_cast<Values*>(a.y + int64_t{blockIdx.x} * a.width + e) = sum;
}

template <typename T>
struct BroadcastArguments {
  const T* y;
  const int32_t *labels, *offsets;
  Rows4<T> x;
  int batch, heads, positions, groups, width;
  int lane_bits;
  bool mean;
};

// Rows in the order (l, h), in which they lie in the memory of a projection.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) group_broadcast_kernel(BroadcastArguments<T> a) {
  using Values = Vector<T, kCount>;
  const int lane = threadIdx.x & ((1 << a.lane_bits) - 1);
  const int64_t row = (int64_t{blockIdx.x} * kThreads + threadIdx.x) >> a.lane_bits;
  if (row >= int64_t{a.heads} * a.positions) return;
  const int l = static_cast<int>(row / a.heads), h = static_cast<int>(row % a.heads);
  for (int b = blockIdx.y; b < a.batch; b += gridDim.y) {
    const int64_t bh = int64_t{b} * a.heads + h;
    const int label = a.labels[bh * a.positions + l];
    const bool member = static_cast<unsigned>(label) < static_cast<unsigned>(a.groups);
    T scale = 1;
    if (member && a.mean) {
      const int32_t* offset = a.offsets + bh * (a.groups + 1) + label;
      scale = 1 / static_cast<T>(offset[1] - offset[0]);
    }
    const T* from = a.y + (bh * a.groups + label) * a.width;
    T* to = a.x.at(b, h, l);
    for (int e = lane * kCount; e < a.width; e += kCount << a.lane_bits) {
      Values value = {};
      if (member) value = *reinterpret_cast<const Values*>(from + e);
#pragma unroll
      for (int i = 0; i < kCount; ++i) value.at[i] *= scale;
      *reinterpret_cast<Values*>(to + e) = value;
    }
  }
}

template <typename T, int kCount>
void launch_sum(SumArguments<T> a, int64_t items) {
  constexpr int64_t kManyMembers = 512;
  a.lane_bits = lane_bits(div_up(a.width, kCount));
  const int64_t tiles = div_up(a.width, int64_t{kCount} << a.lane_bits);
  const dim3 grid(static_cast<unsigned>(items * a.groups), static_cast<unsigned>(tiles));
  const bool large = a.positions / kManyMembers >= a.groups;
  const unsigned threads = large ? kMostSumThreads : kThreads;
  launch(group_sum_kernel<T, kCount>, grid, threads, threads * sizeof(T) * kCount, a);
}

template <typename T, int kCount>
void launch_broadcast(BroadcastArguments<T> a) {
  a.lane_bits = lane_bits(div_up(a.width, kCount));
  const int64_t rows = int64_t{a.heads} * a.positions;
  const dim3 grid(static_cast<unsigned>(div_up(rows, kThreads >> a.lane_bits)), grid_for(a.batch));
  launch(group_broadcast_kernel<T, kCount>, grid, kThreads, 0, a);
}

}  // namespace

void group_by_label(const Tensor& labels, const Tensor& order, const Tensor& offsets) {
  const int64_t items = labels.size(0) * labels.size(1), n = labels.size(2);
  const int64_t groups = offsets.size(2) - 1, slots = groups + 1;
  SortPass pass{labels.data<int32_t>(),
                nullptr,
                order.data<int32_t>(),
                offsets.data<int32_t>(),
                static_cast<int>(n),
                static_cast<int>(groups),
                0,
                static_cast<int>(std::min<int64_t>(slots, kMostBins)),
                slots <= kMostBins};
  constexpr int64_t kPerThread = 2;
  const auto threads = static_cast<unsigned>(
      std::clamp<int64_t>(div_up(n, kPerThread * kWarp) * kWarp, kWarp, kSortThreads));
  const size_t shared = sizeof(int) * rank_ints(threads / kWarp, pass.bins);
  Tensor other;
  if (!pass.whole) other = empty(order.shape(), DType::i32, order.device());
  int passes = 1;
  while (!pass.whole && slots - 1 >> passes * kDigitBits > 0) ++passes;
  for (int i = 0; i < passes; ++i) {
    // The last one has to end in `order`.
    pass.shift = i * kDigitBits;
    pass.to = ((passes - i) % 2 ? order : other).data<int32_t>();
    launch(sort_pass_kernel, static_cast<unsigned>(items), threads, shared, pass);
    pass.from = pass.to;
  }
  if (!pass.whole) for_each(items * slots, FindOffset{pass});
}

void group_sum(const Tensor& x, const Tensor& order, const Tensor& offsets, bool mean,
               const Tensor& y) {
  dispatch_float(x.dtype(), "group_sum", [&]<typename T>() {
    const SumArguments<T> arguments{rows4<const T>(x),
                                    order.data<int32_t>(),
                                    offsets.data<int32_t>(),
                                    y.data<T>(),
                                    static_cast<int>(x.size(1)),
                                    static_cast<int>(x.size(2)),
                                    static_cast<int>(y.size(2)),
                                    static_cast<int>(x.size(3)),
                                    0,
                                    mean};
    const int64_t items = x.size(0) * x.size(1);
    if (in_vectors<T>(x) && in_vectors<T>(y)) {
      launch_sum<T, kVector<T>>(arguments, items);
    } else {
      launch_sum<T, 1>(arguments, items);
    }
  });
}

void group_broadcast(const Tensor& y, const Tensor& labels, const Tensor& offsets, bool mean,
                     const Tensor& x) {
  dispatch_float(x.dtype(), "group_broadcast", [&]<typename T>() {
    const BroadcastArguments<T> arguments{y.data<T>(),
                                          labels.data<int32_t>(),
                                          offsets.data<int32_t>(),
                                          rows4<T>(x),
                                          static_cast<int>(x.size(0)),
                                          static_cast<int>(x.size(1)),
                                          static_cast<int>(x.size(2)),
                                          static_cast<int>(y.size(2)),
                                          static_cast<int>(x.size(3)),
                                          0,
                                          mean};
    if (in_vectors<T>(x) && in_vectors<T>(y)) {
      launch_broadcast<T, kVector<T>>(arguments);
    } else {
      launch_broadcast<T, 1>(arguments);
    }
  });
}

}  // namespace centroid::cuda
