// Putting attention over parts of the keys together again, and correcting rows by their group.
//
// All of it is bound by memory. Rows of D numbers belong to *bands*: as many lanes of a warp as it
// takes, a power of two, with neighbouring columns each, 16 bytes at a time where rows are aligned
// to it. The gradients of correct_rows are sums over groups of any size: a block sums one item of
// at most kItemRows rows of a group (group_items.cuh), and a second pass adds up the items in
// order.
#include "cuda/group_items.cuh"
#include "cuda/reduce.cuh"
#include "tensor/math.h"
#include "tensor/merge.h"

namespace centroid::cuda {
namespace {

constexpr int kMergeThreads = 256;
constexpr int kItemRows = 128;

template <typename T, int kWide>
struct alignas(kWide * sizeof(T)) Vector {
  T x[kWide] = {};

  CENTROID_DEVICE static Vector load(const T* from) {
    return *reinterpret_cast<const Vector*>(from);
  }
  CENTROID_DEVICE void store(T* to) const { *reinterpret_cast<Vector*>(to) = *this; }
  CENTROID_DEVICE void add(T factor, const Vector& y) {
#pragma unroll
    for (int i = 0; i < kWide; ++i) x[i] += factor * y.x[i];
  }
  CENTROID_DEVICE T dot(const Vector& y) const {
    T sum = 0;
#pragma unroll
    for (int i = 0; i < kWide; ++i) sum += x[i] * y.x[i];
    return sum;
  }
};

// Lanes per row. Every band of a warp goes through the same loops, so that all lanes meet in sums.
struct Bands {
  int lanes;

  CENTROID_DEVICE int lane() const { return static_cast<int>(threadIdx.x) & (lanes - 1); }
  CENTROID_DEVICE int band() const { return static_cast<int>(threadIdx.x) / lanes; }
  CENTROID_DEVICE int per_block() const { return kMergeThreads / lanes; }
  template <typename T>
  CENTROID_DEVICE T sum(T value) const {
    for (int other = lanes / 2; other > 0; other /= 2) {
      value += __shfl_xor_sync(kFullMask, value, other);
    }
    return value;
  }
};
Bands bands_for(int64_t width, int wide) {
  Bands bands{1};
  while (bands.lanes < kWarp && bands.lanes * wide < width) bands.lanes *= 2;
  return bands;
}

bool aligned16(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }
// Whether rows of x may be accessed in 16 bytes.
bool wide_rows(const Tensor& x) {
  bool wide = x.size(-1) % 4 == 0 && aligned16(x.data<float>());
  for (int d = 0; d + 1 < x.dim(); ++d) wide = wide && x.strides()[d] % 4 == 0;
  return wide;
}
// Calls f<T, kWide>() with four f32 at once, if all the tensors' rows allow it, or one number.
template <typename F>
void dispatch_wide(const char* name, std::initializer_list<Tensor> rows, const F& f) {
  if (rows.begin()->dtype() == DType::f32 &&
      std::all_of(rows.begin(), rows.end(), [](const Tensor& x) { return wide_rows(x); })) {
    return f.template operator()<float, 4>();
  }
  dispatch_float(rows.begin()->dtype(), name, [&]<typename T>() { f.template operator()<T, 1>(); });
}

// ---- merging
// --------------------------------------------------------------------------------------

template <typename T>
struct Merge {
  const T *outs, *lses;
  const double* signs;
  int parts, width;
  int64_t rows;
};

// Row r, of whose part 0 the share `left` remains after taking away.
template <typename T>
struct MergeRow {
  const Merge<T>& m;
  int64_t r;
  T left = share_left(m.lses, m.signs, m.parts, m.rows, r);

  CENTROID_DEVICE bool counts(int n) const { return left != 0 || (n > 0 && m.signs[n] > 0); }
  CENTROID_DEVICE T largest() const {
    T top = -INFINITY;
    for (int n = 0; n < m.parts; ++n) {
      const T lse = m.lses[n * m.rows + r];
      if (m.signs[n] > 0 && counts(n)) top = top < lse ? lse : top;
    }
    return top;
  }
  // signs_n e^(lse_n - top)
  CENTROID_DEVICE T share(int n, T top) const {
    if (top == -INFINITY || !counts(n)) return 0;
    return static_cast<T>(m.signs[n]) * math::exp(m.lses[n * m.rows + r] - top);
  }
  CENTROID_DEVICE T sum(T top) const {
    T total = 0;
    for (int n = 0; n < m.parts; ++n) {
      if (m.signs[n] > 0) total += (n == 0 ? left : T(1)) * share(n, top);
    }
    return total;
  }
};

// out = sum_n share_n out_n / sum with share_n = signs_n e^(lse_n - top).
template <typename T, int kWide>
__global__ void __launch_bounds__(kMergeThreads, 3)
    merge_forward(Merge<T> m, Bands bands, T* out, T* lse) {
  using Numbers = Vector<T, kWide>;
  const int64_t r = int64_t{blockIdx.x} * bands.per_block() + bands.band();
  if (r >= m.rows) return;
  const MergeRow<T> row{m, r};
  const T top = row.largest(), sum = row.sum(top);
  for (int c = bands.lane() * kWide; c < m.width; c += bands.lanes * kWide) {
    Numbers y;
    for (int n = 0; n < m.parts && top != -INFINITY; ++n) {
      y.add(row.share(n, top) / sum, Numbers::load(m.outs + (n * m.rows + r) * m.width + c));
    }
    y.store(out + r * m.width + c);
  }
  if (bands.lane() == 0) lse[r] = top == -INFINITY ? top : top + math::log(sum);
}

// The derivation is at tensor/cpu/attention/merge.cpp.
template <typename T, int kWide>
__global__ void __launch_bounds__(kMergeThreads, 3)
    merge_backward(Merge<T> m, Bands bands, const T* out, const T* lse, const T* dout,
                   const T* dlse, T* douts, T* dlses) {
  using Numbers = Vector<T, kWide>;
  const int64_t r = int64_t{blockIdx.x} * bands.per_block() + bands.band();
  const bool exists = r < m.rows;
  const int width = exists ? m.width : 0, step = bands.lanes * kWide;
  const T* dy = dout + r * m.width;
  T base = 0;
  for (int c = bands.lane() * kWide; c < width; c += step) {
    base += Numbers::load(dy + c).dot(Numbers::load(out + r * m.width + c));
  }
  base = bands.sum(base) - (exists && dlse ? dlse[r] : T(0));
  const T log_sum = exists ? lse[r] : T(0);
  const MergeRow<T> row{m, exists ? r : 0};
  for (int n = 0; n < m.parts; ++n) {
    const int64_t at = n * m.rows + r;
    const T share = exists ? row.share(n, log_sum) : T(0);
    T product = 0;
    for (int c = bands.lane() * kWide; c < width; c += step) {
      const Numbers y = Numbers::load(dy + c);
      product += y.dot(Numbers::load(m.outs + at * m.width + c));
      Numbers x;
      x.add(share, y);
      x.store(douts + at * m.width + c);
    }
    product = bands.sum(product);
    if (exists && bands.lane() == 0) dlses[at] = share * (product - base);
  }
}

template <typename T>
Merge<T> merge_of(const Tensor& outs, const Tensor& lses, const Tensor& signs) {
  return {outs.data<T>(),
          lses.data<T>(),
          signs.data<double>(),
          static_cast<int>(outs.size(0)),
          static_cast<int>(outs.size(2)),
          outs.size(1)};
}

// ---- correcting
// -----------------------------------------------------------------------------------

template <typename T>
struct Correction {
  Rows4<const T> top;
  const T *top_mass, *mass, *top_of_group, *out_of_group;
  int heads, queries, groups, width;
};

template <typename T, int kWide>
__global__ void __launch_bounds__(kMergeThreads, 3)
    correct(Correction<T> x, Bands bands, const int32_t* labels, Rows4<T> out) {
  using Numbers = Vector<T, kWide>;
  const int blocks = (x.queries + bands.per_block() - 1) / bands.per_block();
  const int bh = static_cast<int>(blockIdx.x) / blocks, b = bh / x.heads, h = bh % x.heads;
  const int l = static_cast<int>(blockIdx.x) % blocks * bands.per_block() + bands.band();
  if (l >= x.queries) return;
  const int label = labels[int64_t{bh} * x.queries + l];
  const bool grouped = label >= 0 && label < x.groups;
  const int64_t at = int64_t{bh} * x.groups + (grouped ? label : 0);
  const T kept = grouped ? x.top_mass[at] : T(0), taken = grouped ? x.mass[at] : T(0);
  for (int c = bands.lane() * kWide; c < x.width; c += bands.lanes * kWide) {
    Numbers y;
    if (grouped) {
      y = Numbers::load(x.out_of_group + at * x.width + c);
      y.add(-taken, Numbers::load(x.top_of_group + at * x.width + c));
      y.add(kept, Numbers::load(x.top.at(b, h, l) + c));
    }
    y.store(out.at(b, h, l) + c);
  }
}

// A group's sums over items: of dout, (D), and of dout . top.
template <typename T>
struct GroupSums {
  T *dout, *dkept;
};

template <typename T, int kWide>
__global__ void __launch_bounds__(kMergeThreads, 3)
    correct_backward(Correction<T> x, GroupItems items, Bands bands, const int32_t* order,
                     const int32_t* offsets, Rows4<const T> dout, Rows4<T> dtop,
                     GroupSums<T> parts) {
  using Numbers = Vector<T, kWide>;
  __shared__ __align__(16) T sums[kMergeThreads * kWide];
  __shared__ T dots[kMergeThreads];
  const int bh = static_cast<int>(blockIdx.x) / items.count(), b = bh / x.heads, h = bh % x.heads;
  const auto item = items.at(offsets + int64_t{bh} * (x.groups + 1),
                             static_cast<int>(blockIdx.x) % items.count());
  const int end = min(item.end, x.queries);
  if (item.begin >= end) return;
  order += int64_t{bh} * x.queries;
  const T kept = x.top_mass[int64_t{bh} * x.groups + item.group];
  T dkept = 0;
  // Each turn of this loop does one stretch of columns of all rows.
  for (int from = 0; from < x.width; from += bands.lanes * kWide) {
    const int c = from + bands.lane() * kWide;
    Numbers total;
    for (int i = item.begin + bands.band(); c < x.width && i < end; i += bands.per_block()) {
      const int l = order[i];
      if (l < 0 || l >= x.queries) continue;
      const Numbers dy = Numbers::load(dout.at(b, h, l) + c);
      dkept += dy.dot(Numbers::load(x.top.at(b, h, l) + c));
      total.add(1, dy);
      Numbers dx;
      dx.add(kept, dy);
      dx.store(dtop.at(b, h, l) + c);
    }
    total.store(sums + threadIdx.x * kWide);
    __syncthreads();
    for (int band = 1; bands.band() == 0 && band < bands.per_block(); ++band) {
      total.add(1, Numbers::load(sums + (threadIdx.x + band * bands.lanes) * kWide));
    }
    if (bands.band() == 0 && c < x.width) {
      total.store(parts.dout + int64_t{blockIdx.x} * x.width + c);
    }
    __syncthreads();
  }
  dkept = block_reduce<kMergeThreads>(dkept, Sum{}, dots);
  if (threadIdx.x == 0) parts.dkept[blockIdx.x] = dkept;
}

// With G the sum of dout over a group: dout_of_group = G, dtop_of_group = -mass G and
// dmass = -G . top_of_group.
template <typename T, int kWide>
__global__ void __launch_bounds__(kMergeThreads, 3)
    correct_sums(Correction<T> x, GroupItems items, Bands bands, const int32_t* offsets,
                 int64_t count, GroupSums<const T> parts, GroupSums<T> total, T* dmass,
                 T* dtop_of_group) {
  using Numbers = Vector<T, kWide>;
  const int64_t at = int64_t{blockIdx.x} * bands.per_block() + bands.band();
  const bool exists = at < count;
  int64_t first = 0;
  int n = 0;
  if (exists) {
    const int64_t bh = at / x.groups;
    const int group = static_cast<int>(at % x.groups);
    const int32_t* offset = offsets + bh * (x.groups + 1) + group;
    const int start = items.first_of_group(group, offset[0]);
    n = max(0, min(items.with_rows(offset[0], offset[1]), items.count() - start));
    first = bh * items.count() + start;
  }
  T product = 0, dkept = 0;
  for (int i = 0; i < n; ++i) dkept += parts.dkept[first + i];
  for (int c = bands.lane() * kWide; exists && c < x.width; c += bands.lanes * kWide) {
    Numbers sum, taken;
    for (int i = 0; i < n; ++i) sum.add(1, Numbers::load(parts.dout + (first + i) * x.width + c));
    sum.store(total.dout + at * x.width + c);
    product += sum.dot(Numbers::load(x.top_of_group + at * x.width + c));
    taken.add(-x.mass[at], sum);
    taken.store(dtop_of_group + at * x.width + c);
  }
  product = bands.sum(product);
  if (!exists || bands.lane() != 0) return;
  total.dkept[at] = dkept;
  dmass[at] = -product;
}

template <typename T>
Correction<T> correction_of(const Tensor& top, const Tensor& top_mass, const Tensor& mass,
                            const Tensor& top_of_group, const Tensor& out_of_group) {
  return {rows4<const T>(top),
          top_mass.data<T>(),
          mass.data<T>(),
          top_of_group.data<T>(),
          data_or_null<T>(out_of_group),
          static_cast<int>(top.size(1)),
          static_cast<int>(top.size(2)),
          static_cast<int>(mass.size(2)),
          static_cast<int>(top.size(3))};
}

unsigned blocks_of_rows(int64_t heads, int64_t rows, const Bands& bands) {
  return static_cast<unsigned>(heads * div_up(rows, kMergeThreads / bands.lanes));
}

}  // namespace

void merge_attention(const Tensor& outs, const Tensor& lses, const Tensor& signs, const Tensor& out,
                     const Tensor& lse) {
  dispatch_wide("merge_attention", {outs, out}, [&]<typename T, int kWide>() {
    const Bands bands = bands_for(outs.size(2), kWide);
    launch(merge_forward<T, kWide>, blocks_of_rows(1, outs.size(1), bands), kMergeThreads, 0,
           merge_of<T>(outs, lses, signs), bands, out.data<T>(), lse.data<T>());
  });
}

void merge_attention_backward(const Tensor& outs, const Tensor& lses, const Tensor& signs,
                              const Tensor& out, const Tensor& lse, const Tensor& dout,
                              const Tensor& dlse, const Tensor& douts, const Tensor& dlses) {
  dispatch_wide("merge_attention_backward", {outs, out, dout, douts}, [&]<typename T, int kWide>() {
    const Bands bands = bands_for(outs.size(2), kWide);
    launch(merge_backward<T, kWide>, blocks_of_rows(1, outs.size(1), bands), kMergeThreads, 0,
           merge_of<T>(outs, lses, signs), bands, out.data<T>(), lse.data<T>(), dout.data<T>(),
           data_or_null<const T>(dlse), douts.data<T>(), dlses.data<T>());
  });
}

void correct_rows(const Tensor& top, const Tensor& labels, const Tensor& top_mass,
                  const Tensor& mass, const Tensor& top_of_group, const Tensor& out_of_group,
                  const Tensor& out) {
  dispatch_wide(
      "correct_rows", {top, top_of_group, out_of_group, out}, [&]<typename T, int kWide>() {
        const Bands bands = bands_for(top.size(3), kWide);
        launch(correct<T, kWide>, blocks_of_rows(top.size(0) * top.size(1), top.size(2), bands),
               kMergeThreads, 0, correction_of<T>(top, top_mass, mass, top_of_group, out_of_group),
               bands, labels.data<int32_t>(), rows4<T>(out));
      });
}

void correct_rows_backward(const Tensor& top, const Tensor& order, const Tensor& offsets,
                           const Tensor& top_mass, const Tensor& mass, const Tensor& top_of_group,
                           const Tensor& dout, const Tensor& dtop, const Tensor& dtop_mass,
                           const Tensor& dmass, const Tensor& dtop_of_group,
                           const Tensor& dout_of_group) {
  const int64_t heads = top.size(0) * top.size(1), width = top.size(3), count = mass.numel();
  const GroupItems items(top.size(2), mass.size(2), kItemRows);
  const Tensor parts = empty({heads * items.count(), width}, top.dtype(), top.device());
  const Tensor dkept = empty({heads * items.count()}, top.dtype(), top.device());
  if (dtop.numel() > 0) fill(dtop, 0);  // for queries of no group
  dispatch_wide(
      "correct_rows_backward", {top, top_of_group, dout, dtop, dtop_of_group, dout_of_group, parts},
      [&]<typename T, int kWide>() {
        const Bands bands = bands_for(width, kWide);
        const Correction<T> x = correction_of<T>(top, top_mass, mass, top_of_group, Tensor());
        launch(correct_backward<T, kWide>, static_cast<unsigned>(heads * items.count()),
               kMergeThreads, 0, x, items, bands, order.data<int32_t>(), offsets.data<int32_t>(),
               rows4<const T>(dout), rows4<T>(dtop),
               GroupSums<T>{parts.data<T>(), dkept.data<T>()});
        launch(correct_sums<T, kWide>, blocks_of_rows(1, count, bands), kMergeThreads, 0, x, items,
               bands, offsets.data<int32_t>(), count,
               GroupSums<const T>{parts.data<T>(), dkept.data<T>()},
               GroupSums<T>{dout_of_group.data<T>(), dtop_mass.data<T>()}, dmass.data<T>(),
               dtop_of_group.data<T>());
      });
}

}  // namespace centroid::cuda
