// Attention of groups of queries to their lists of keys, row by row: for f64, and for groups of a
// few rows each, such as queries that have a list of their own.
//
// Forward and dq: a warp per row, against its group's keys 32 at a time. For the products eight
// lanes share a key, so that they read it in whole sectors; for the softmax a lane has a key; for
// sums over keys the lanes are columns. Shared memory holds the row itself.
// dk and dv: a block per key. Its four warps share out the rows of the groups that list the key,
// lanes are columns, and the warps' sums are added in order.
#include "cuda/gathered_attention.cuh"

namespace centroid::cuda::gathered {
namespace {

constexpr int kRowWarps = 4;
constexpr int kRowThreads = kRowWarps * kWarp;
// Blocks per multiprocessor that registers have to suffice for.
template <typename T, int kColumns>
constexpr int kBlocks = sizeof(T) == 8  ? 2
                        : kColumns == 2 ? 6
                                        : 4;

// A row by number: those in `order` first, then the groups' extra queries.
template <typename T>
struct RowOfGroup {
  Head head;
  int64_t number;  // among the rows of all heads
  int group, row;  // kNoRow: not there, or in no group

  CENTROID_DEVICE explicit RowOfGroup(const Gathered<T>& g) {
    const int per_head = g.queries + (g.with_extra ? g.groups : 0);
    const int blocks = (per_head + kRowWarps - 1) / kRowWarps;
    head = g.head(static_cast<int>(blockIdx.x) / blocks);
    const int r = static_cast<int>(blockIdx.x) % blocks * kRowWarps + warp_of_block();
    number = head.bh * per_head + r;
    group = r - g.queries;
    row = r < per_head ? kExtraRow : kNoRow;
    if (r >= g.queries) return;
    const int32_t* offsets = g.offsets_of(head);
    group = warp_partition_point(g.groups, [&](int i) { return offsets[i + 1] <= r; });
    row = group < g.groups ? g.member(head, r) : kNoRow;
  }
};
int64_t rows_per_head(int queries, int groups, bool with_extra) {
  return queries + (with_extra ? groups : 0);
}

template <typename T>
CENTROID_DEVICE void copy_to_shared(const T* row, int n, T* to) {
  for (int c = lane_of_warp(); c < n; c += kWarp) to[c] = row[c];
}

// A lane's share, of eight lanes, of the dot product of a row in memory and one in shared memory.
template <typename T>
CENTROID_DEVICE T dot_share(const T* row, const T* shared, int n, bool vector) {
  const int share = lane_of_warp() % 8;
  T sum = 0;
  if constexpr (std::is_same_v<T, float>) {
    if (vector) {
#pragma unroll 2
      for (int c = 4 * share; c < n; c += 32) {
        const float4 a = load4(row + c), b = load4(shared + c);
        sum += a.x * b.x + a.y * b.y + (a.z * b.z + a.w * b.w);
      }
      return sum;
    }
  }
#pragma unroll 2
  for (int c = share; c < n; c += 8) sum += row[c] * shared[c];
  return sum;
}

// To each of the first `count` lanes the dot product of its row with the one in shared memory.
template <typename T>
CENTROID_DEVICE T products_of_lanes(const T* mine, int count, const T* shared, int n, bool vector) {
  const int lane = lane_of_warp();
  T result = 0;
#pragma unroll 2
  for (int step = 0; step * 4 < count; ++step) {
    const T* row = pointer_of_lane(mine, step * 4 + lane / 8);
    T sum = row ? dot_share(row, shared, n, vector) : T(0);
#pragma unroll
    for (int other = 4; other > 0; other /= 2) sum += __shfl_xor_sync(kFullMask, sum, other);
    const T product = __shfl_sync(kFullMask, sum, lane % 4 * 8);
    if (lane / 4 == step) result = product;
  }
  return result;
}

// sums[i] += sum over the lanes' rows of their weight times the row, at column lane + 32 i. Lanes
// without a row have a null pointer.
template <typename T, int kColumns>
CENTROID_DEVICE void add_rows(const T* mine, T weight, int count, int n, T (&sums)[kColumns]) {
#pragma unroll 4
  for (int j = 0; j < count; ++j) {
    const T* row = pointer_of_lane(mine, j);
    const T w = __shfl_sync(kFullMask, weight, j);
    if (!row) continue;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int c = lane_of_warp() + i * kWarp;
      if (c < n) sums[i] += w * row[c];
    }
  }
}

template <typename T, int kColumns>
__global__ void __launch_bounds__(kRowThreads, (kBlocks<T, kColumns>))
    rows_forward(Gathered<T> g, RowsOfBoth<T> outs, ScalarsOfBoth<T> lses, bool vector) {
  __shared__ __align__(16) T q_rows[kRowWarps][kLargestHead];
  const RowOfGroup<T> r(g);
  if (r.row == kNoRow) return;
  const int lane = lane_of_warp();
  T* q = q_rows[warp_of_block()];
  copy_to_shared(g.q.at(r.head, r.group, r.row), g.width, q);
  __syncwarp();
  T top = -INFINITY, sum = 0, sums[kColumns] = {};
  for (int base = 0; base < g.list; base += kWarp) {
    const int key = g.key(r.head, r.group, base + lane), count = min(kWarp, g.list - base);
    if (!__any_sync(kFullMask, key >= 0)) continue;
    const T* k_row = key < 0 ? nullptr : g.k.at(r.head.b, r.head.h, key);
    const T* v_row = key < 0 ? nullptr : g.v.at(r.head.b, r.head.h, key);
    T score = products_of_lanes(k_row, count, q, g.width, vector) * g.unit;
    if (g.is_last_resort(r.row, key)) score = static_cast<T>(kLastResort);
    if (key < 0) score = -INFINITY;
    const T now = fmax(top, warp_reduce(score, Max{})), shift = now == -INFINITY ? T(0) : now;
    const T rescale = power_of_two(top - shift);
    T weight = power_of_two(score - shift);
    sum = sum * rescale + warp_reduce(weight, Sum{});
    top = now;
    if (key >= 0) weight *= g.factor(r.head, r.group, r.row, key);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) sums[i] *= rescale;
    add_rows(v_row, weight, count, g.value_width, sums);
  }
  T* out = outs.at(r.head, r.group, r.row);
  const T inverse = sum == 0 ? T(0) : 1 / sum;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int c = lane + i * kWarp;
    if (c < g.value_width) out[c] = sum == 0 ? T(0) : sums[i] * inverse;
  }
  if (lane == 0) {
    *g.scalar(lses, r.head, r.group, r.row) =
        sum == 0 ? -INFINITY : top * static_cast<T>(kNatsPerBit) + math::log(sum);
  }
}

template <typename T>
CENTROID_DEVICE T delta_of(const Gathered<T>& g, const GatheredGradients<T>& grads,
                           const RowOfGroup<T>& r, const T* dout) {
  const T* out = grads.out.at(r.head, r.group, r.row);
  T delta = 0;
  for (int c = lane_of_warp(); c < g.value_width; c += kWarp) delta += out[c] * dout[c];
  delta = warp_reduce(delta, Sum{});
  const bool has_dlse = (r.row == kExtraRow ? grads.dlse.extra : grads.dlse.members) != nullptr;
  return has_dlse ? delta - *g.scalar(grads.dlse, r.head, r.group, r.row) : delta;
}

// dq, and delta of every row for the pass over the keys.
template <typename T, int kColumns>
__global__ void __launch_bounds__(kRowThreads, (kBlocks<T, kColumns>))
    rows_backward(Gathered<T> g, GatheredGradients<T> grads, T* deltas, bool vector) {
  __shared__ __align__(16) T q_rows[kRowWarps][kLargestHead], dout_rows[kRowWarps][kLargestHead];
  const RowOfGroup<T> r(g);
  if (r.row == kNoRow) return;
  const int lane = lane_of_warp();
  T *q = q_rows[warp_of_block()], *dout = dout_rows[warp_of_block()];
  copy_to_shared(g.q.at(r.head, r.group, r.row), g.width, q);
  copy_to_shared(grads.dout.at(r.head, r.group, r.row), g.value_width, dout);
  __syncwarp();
  const T delta = delta_of(g, grads, r, dout);
  if (lane == 0) deltas[r.number] = delta;
  const auto of_row = RowGradient<T>::of(*g.scalar(grads.lse, r.head, r.group, r.row), delta);
  T sums[kColumns] = {};
  for (int base = 0; base < g.list; base += kWarp) {
    const int key = g.key(r.head, r.group, base + lane), count = min(kWarp, g.list - base);
    if (!__any_sync(kFullMask, key >= 0)) continue;
    const T* k_row = key < 0 ? nullptr : g.k.at(r.head.b, r.head.h, key);
    const T* v_row = key < 0 ? nullptr : g.v.at(r.head.b, r.head.h, key);
    const T product = products_of_lanes(k_row, count, q, g.width, vector);
    const T dweight = products_of_lanes(v_row, count, dout, g.value_width, vector);
    T dscore = 0;
    if (key >= 0) {
      dscore = PairGradient<T>(g, r.head, r.group, r.row, key, product, dweight, of_row).dscore;
    }
    add_rows(k_row, dscore, count, g.width, sums);
  }
  T* dq = grads.dq.at(r.head, r.group, r.row);
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int c = lane + i * kWarp;
    if (c < g.width) dq[c] = sums[i];
  }
}

// A row's columns lane + 32 i, zeros beyond its end.
template <typename T, int kColumns>
struct Columns {
  T x[kColumns] = {};

  CENTROID_DEVICE Columns() {}
  CENTROID_DEVICE Columns(const T* row, int n) {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int c = lane_of_warp() + i * kWarp;
      if (c < n) x[i] = row[c];
    }
  }
  CENTROID_DEVICE T dot(const Columns& y) const {
    T sum = 0;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) sum += x[i] * y.x[i];
    return warp_reduce(sum, Sum{});
  }
  CENTROID_DEVICE void add(T factor, const Columns& y) {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) x[i] += factor * y.x[i];
  }
  CENTROID_DEVICE void store(T* to) const {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) to[lane_of_warp() + i * kWarp] = x[i];
  }
};

// What a key adds up over the rows that see it.
template <typename T, int kColumns>
struct KeyGradient {
  Columns<T, kColumns> k, v, dk, dv;
  int key;

  CENTROID_DEVICE KeyGradient(const Gathered<T>& g, const Head& head, int key)
      : k(g.k.at(head.b, head.h, key), g.width),
        v(g.v.at(head.b, head.h, key), g.value_width),
        key(key) {}

  CENTROID_DEVICE void add(const Gathered<T>& g, const GatheredGradients<T>& grads,
                           const Head& head, int group, int row, T delta) {
    const Columns<T, kColumns> q(g.q.at(head, group, row), g.width);
    const Columns<T, kColumns> dout(grads.dout.at(head, group, row), g.value_width);
    const auto of_row = RowGradient<T>::of(*g.scalar(grads.lse, head, group, row), delta);
    const PairGradient<T> pair(g, head, group, row, key, q.dot(k), dout.dot(v), of_row);
    dk.add(pair.dscore, q);
    dv.add(pair.weight, dout);
  }
};

template <typename T, int kColumns>
__global__ void __launch_bounds__(kRowThreads, (kBlocks<T, kColumns>))
    keys_backward(Gathered<T> g, GatheredGradients<T> grads, const T* deltas, const int32_t* slots,
                  const int32_t* slot_offsets) {
  constexpr int kRow = kColumns * kWarp;
  __shared__ T dk_sums[kRowWarps][kRow], dv_sums[kRowWarps][kRow];
  const Head head = g.head(static_cast<int>(blockIdx.x) / g.keys);
  const int key = static_cast<int>(blockIdx.x) % g.keys;
  const int lane = lane_of_warp(), warp = warp_of_block();
  const int32_t* offsets = g.offsets_of(head);
  const int32_t* uses = slot_offsets + head.bh * (g.keys + 1) + key;
  const int begin = uses[0], end = uses[1];
  slots += head.bh * g.groups * g.list;
  deltas += head.bh * (g.queries + (g.with_extra ? g.groups : 0));
  KeyGradient<T, kColumns> sum(g, head, key);
  int turn = warp;  // the next row of the use at hand that is this warp's
  for (int base = begin; base < end; base += kWarp) {
    // Each lane looks one use up; then they are taken one after the other.
    int group = 0, from = 0, members = 0;
    if (base + lane < end) {
      group = slots[base + lane] / g.list;
      from = max(0, offsets[group]);
      members = max(0, min(offsets[group + 1], g.queries) - from);
    }
    const int here = min(kWarp, end - base);
    for (int u = 0; u < here; ++u) {
      const int of_use = __shfl_sync(kFullMask, group, u), at = __shfl_sync(kFullMask, from, u);
      const int among = __shfl_sync(kFullMask, members, u), rows = among + (g.with_extra ? 1 : 0);
      for (; turn < rows; turn += kRowWarps) {
        const bool extra = turn == among;
        const int row = extra ? kExtraRow : g.member(head, at + turn);
        if (row == kNoRow) continue;
        sum.add(g, grads, head, of_use, row, deltas[extra ? g.queries + of_use : at + turn]);
      }
      turn -= rows;
    }
  }
  sum.dk.store(dk_sums[warp]);
  sum.dv.store(dv_sums[warp]);
  __syncthreads();
  const auto write = [&](const T(&sums)[kRowWarps][kRow], T* to, int n) {
    for (int c = threadIdx.x; c < n; c += kRowThreads) {
      T total = sums[0][c];
#pragma unroll
      for (int w = 1; w < kRowWarps; ++w) total += sums[w][c];
      to[c] = total;
    }
  };
  write(dk_sums, grads.dk.at(head.b, head.h, key), g.width);
  write(dv_sums, grads.dv.at(head.b, head.h, key), g.value_width);
}

// Whether rows of keys and values may be read in 16 bytes.
template <typename T>
bool keys_align(const Gathered<T>& g) {
  const auto aligned = [](const Rows4<const T>& x, int width) {
    return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
           (x.batch | x.head | x.row | width) % 4 == 0;
  };
  return aligned(g.k, g.width) && aligned(g.v, g.value_width);
}

template <typename T>
unsigned row_blocks(const Gathered<T>& g, int64_t heads) {
  const int64_t per_head = rows_per_head(g.queries, g.groups, g.with_extra);
  return static_cast<unsigned>(heads * div_up(per_head, kRowWarps));
}

template <typename T>
bool narrow(const Gathered<T>& g) {
  return g.width <= 2 * kWarp && g.value_width <= 2 * kWarp;
}

}  // namespace

template <typename T>
void gathered_rows(const Gathered<T>& g, int64_t heads, RowsOfBoth<T> out, ScalarsOfBoth<T> lse) {
  const auto kernel = narrow(g) ? rows_forward<T, 2> : rows_forward<T, 8>;
  launch(kernel, row_blocks(g, heads), kRowThreads, 0, g, out, lse, keys_align(g));
}

template <typename T>
void gathered_rows_backward(const Gathered<T>& g, const GatheredGradients<T>& grads,
                            const KeyUses& uses, int64_t heads, Device device) {
  const Tensor deltas =
      empty({heads * rows_per_head(g.queries, g.groups, g.with_extra)}, dtype_of<T>(), device);
  const auto of_rows = narrow(g) ? rows_backward<T, 2> : rows_backward<T, 8>;
  const auto of_keys = narrow(g) ? keys_backward<T, 2> : keys_backward<T, 8>;
  launch(of_rows, row_blocks(g, heads), kRowThreads, 0, g, grads, deltas.data<T>(), keys_align(g));
  launch(of_keys, static_cast<unsigned>(heads * g.keys), kRowThreads, 0, g, grads,
         static_cast<const T*>(deltas.data<T>()), uses.slots.data<int32_t>(),
         uses.offsets.data<int32_t>());
}

#define CENTROID_INSTANTIATE(T)                                                              \
  template void gathered_rows(const Gathered<T>&, int64_t, RowsOfBoth<T>, ScalarsOfBoth<T>); \
  template void gathered_rows_backward(const Gathered<T>&, const GatheredGradients<T>&,      \
                                       const KeyUses&, int64_t, Device);
CENTROID_INSTANTIATE(float)
CENTROID_INSTANTIATE(double)
#undef CENTROID_INSTANTIATE

}  // namespace centroid::cuda::gathered
