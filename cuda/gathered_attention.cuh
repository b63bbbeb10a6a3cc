#pragma once
// What the kernels of gathered attention share: the problem as kernels see it, the weight of one
// (query, key) pair, and products of tiles in shared memory.
//
// A row of a group is a member, a query given by its position, or the group's extra query.
#include "cuda/group_items.cuh"
#include "cuda/reduce.cuh"
#include "tensor/math.h"

namespace centroid::cuda::gathered {

inline constexpr int kExtraRow = -1, kNoRow = -2;  ///< in place of a query's position
inline constexpr int kLargestHead = 256;
inline constexpr double kBitsPerNat = 1.4426950408889634, kNatsPerBit = 0.6931471805599453;
/// The score of a key that counts only when no other key is seen; in units of ln 2, as all scores.
inline constexpr float kLastResort = -1e5f;

CENTROID_DEVICE float power_of_two(float x) { return exp2f(x); }
CENTROID_DEVICE double power_of_two(double x) { return exp2(x); }

/// WeightDropout for the device.
struct Drop {
  uint64_t key, counter, lanes;  // lanes: Philox blocks per row of weights
  uint32_t threshold;            // 0: nothing is dropped

  Drop(const WeightDropout& dropout, int64_t keys)
      : key(dropout.state.key),
        counter(dropout.state.counter),
        lanes(static_cast<uint64_t>(keys + 7) / 8),
        threshold(dropout.p > 0 ? static_cast<uint32_t>(dropout.p * 65536 + 0.5) : 0) {}

  /// What weight s of a row is multiplied by: 0 or 1 / (1 - p).
  template <typename T>
  CENTROID_DEVICE T factor(int64_t row, int s) const {
    if (threshold == 0) return 1;
    const PhiloxBlock bits = philox(key, counter, static_cast<uint64_t>(row) * lanes + s / 8);
    const uint32_t low = s & 2 ? bits.word[1] : bits.word[0];
    const uint32_t high = s & 2 ? bits.word[3] : bits.word[2];
    const uint32_t draw = (s & 4 ? high : low) >> (s % 2 * 16) & 0xffff;
    return draw >= threshold ? static_cast<T>(65536.0 / (65536.0 - threshold)) : T(0);
  }
};

/// An (item, head).
struct Head {
  int64_t bh;
  int b, h;
};

/// A tensor of the queries and the one of the groups' extra queries that goes with it.
template <typename T>
struct RowsOfBoth {
  Rows4<T> members, extra;
  RowsOfBoth(const Tensor& of_members, const Tensor& of_extra)
      : members(rows4<T>(of_members)), extra(rows4<T>(of_extra)) {}
  CENTROID_DEVICE T* at(const Head& head, int group, int row) const {
    if (row == kNoRow) return nullptr;
    return row == kExtraRow ? extra.at(head.b, head.h, group) : members.at(head.b, head.h, row);
  }
};
/// The same of (B, H, L) and (B, H, G); null where undefined.
template <typename T>
struct ScalarsOfBoth {
  T *members, *extra;
  ScalarsOfBoth(const Tensor& of_members, const Tensor& of_extra)
      : members(data_or_null<T>(of_members)), extra(data_or_null<T>(of_extra)) {}
};

template <typename T>
struct Gathered {
  RowsOfBoth<const T> q;
  Rows4<const T> k, v;
  const int32_t *order, *offsets, *lists;
  int heads, queries, keys, groups, list, width, value_width;
  bool with_extra, not_itself;
  T scale, unit;  // unit: what makes q k^T a score in units of ln 2
  Drop dropout, extra_dropout;
  Fault* fault;
  unsigned long long name;

  Gathered(const Tensor& q, const Tensor& extra, const Tensor& k, const Tensor& v,
           const Groups& groups, KeyRule rule, double scale, const WeightDropout& dropout,
           const WeightDropout& extra_dropout)
      : q(q, extra),
        k(rows4<const T>(k)),
        v(rows4<const T>(v)),
        order(groups.order.data<int32_t>()),
        offsets(groups.offsets.data<int32_t>()),
        lists(groups.keys.data<int32_t>()),
        heads(static_cast<int>(q.size(1))),
        queries(static_cast<int>(q.size(2))),
        keys(static_cast<int>(k.size(2))),
        groups(static_cast<int>(groups.count())),
        list(static_cast<int>(groups.keys.size(3))),
        width(static_cast<int>(q.size(3))),
        value_width(static_cast<int>(v.size(3))),
        with_extra(extra.defined()),
        not_itself(rule == KeyRule::not_itself),
        scale(static_cast<T>(scale)),
        unit(static_cast<T>(scale * kBitsPerNat)),
        dropout(dropout, k.size(2)),
        extra_dropout(extra_dropout, k.size(2)),
        fault(fault_record()),
        name(reinterpret_cast<unsigned long long>("gathered_attention: keys")) {
    CENTROID_CHECK(width <= kLargestHead && value_width <= kLargestHead,
                   "gathered_attention: on a CUDA device heads have at most ", kLargestHead,
                   " numbers, got ", width, " and ", value_width);
  }

  CENTROID_DEVICE Head head(int bh) const { return {bh, bh / heads, bh % heads}; }
  CENTROID_DEVICE const int32_t* offsets_of(const Head& head) const {
    return offsets + head.bh * (groups + 1);
  }
  /// The query at a position of `order`.
  CENTROID_DEVICE int member(const Head& head, int position) const {
    const int row = position < queries ? order[head.bh * queries + position] : kNoRow;
    return row >= 0 && row < queries ? row : kNoRow;
  }
  /// The key in a slot of a group's list; -1 where there is none.
  CENTROID_DEVICE int key(const Head& head, int group, int slot) const {
    if (slot >= list) return -1;
    const int64_t at = (head.bh * groups + group) * list + slot;
    const int s = lists[at];
    if (s < keys) return max(s, -1);
    record_fault(fault, name, s, at, keys);
    return -1;
  }
  CENTROID_DEVICE bool is_last_resort(int row, int key) const { return not_itself && row == key; }
  CENTROID_DEVICE T factor(const Head& head, int group, int row, int key) const {
    return row == kExtraRow ? extra_dropout.template factor<T>(head.bh * groups + group, key)
                            : dropout.template factor<T>(head.bh * queries + row, key);
  }
  /// Which of the scalars of a row.
  template <typename U>
  CENTROID_DEVICE U* scalar(const ScalarsOfBoth<U>& x, const Head& head, int group, int row) const {
    return row == kExtraRow ? x.extra + head.bh * groups + group
                            : x.members + head.bh * queries + row;
  }
};

/// What the gradients through a row's weights take from the row: with the weights P, the dropout
/// factors M and dW = dO V^T they are dS = P (M dW - delta) where delta = dO . O - dlse.
template <typename T>
struct RowGradient {
  T shift, delta;  // P = 2^(score - shift)

  CENTROID_DEVICE static RowGradient of(T lse, T delta) {
    if (lse == -INFINITY) return {T(0), delta};
    // The score of a last resort is too large for its log-sum to give it back exactly.
    const bool alone = lse < static_cast<T>(kLastResort * kNatsPerBit / 2);
    return {alone ? static_cast<T>(kLastResort) : lse * static_cast<T>(kBitsPerNat), delta};
  }
};
/// P M, and dS times the scale, of one pair.
template <typename T>
struct PairGradient {
  T weight, dscore;

  CENTROID_DEVICE PairGradient(const Gathered<T>& g, const Head& head, int group, int row, int key,
                               T product, T dweight, const RowGradient<T>& of_row) {
    const bool last_resort = g.is_last_resort(row, key);
    const T score = last_resort ? static_cast<T>(kLastResort) : product * g.unit;
    const T p = power_of_two(score - of_row.shift), factor = g.factor(head, group, row, key);
    weight = p * factor;
    // The score of a last resort is a constant.
    dscore = last_resort ? T(0) : p * (dweight * factor - of_row.delta) * g.scale;
  }
};

/// What another lane of the warp has in `mine`.
template <typename T>
CENTROID_DEVICE const T* pointer_of_lane(const T* mine, int lane) {
  const auto bits = reinterpret_cast<unsigned long long>(mine);
  return reinterpret_cast<const T*>(__shfl_sync(kFullMask, bits, lane));
}

/// Gradients that backward reads and writes.
template <typename T>
struct GatheredGradients {
  RowsOfBoth<const T> out, dout;
  ScalarsOfBoth<const T> lse, dlse;
  RowsOfBoth<T> dq;
  Rows4<T> dk, dv;
};

/// Where each key is used: slots of the groups' lists in ascending order, (B, H, G M), and where
/// the slots of each key begin, (B, H, S + 1).
struct KeyUses {
  Tensor slots, offsets;
};

/// The kernels that work row by row and key by key (gathered_rows.cu): for f64, and for groups of a
/// few rows, where tiles would be mostly empty.
template <typename T>
void gathered_rows(const Gathered<T>& g, int64_t heads, RowsOfBoth<T> out, ScalarsOfBoth<T> lse);
template <typename T>
void gathered_rows_backward(const Gathered<T>& g, const GatheredGradients<T>& grads,
                            const KeyUses& uses, int64_t heads, Device device);

/// Whether tiles of rows and keys are worth it.
inline bool worth_tiles(const Tensor& q, const Groups& groups) {
  return q.dtype() == DType::f32 && q.size(2) >= 8 * groups.count() && groups.keys.size(3) >= 8;
}

// ---- tiles of f32 in shared memory --------------------------------------------------------------

inline constexpr int kTileThreads = 128;
inline constexpr int kTileRows = 32;  ///< of a group, and keys: a lane each
inline constexpr int kSlice = 64;     ///< columns that are staged at once
inline constexpr int kPitch =
    68;  ///< of a row of columns: eight rows side by side are in different banks
inline constexpr int kWeightPitch = 40;  ///< of a row of weights: so are four rows of eight weights

/// A thread's part of a tile: the rows row + 8 i, and the columns col + 16 j or 4 col .. 4 col + 3.
/// A warp covers four rows and eight columns, which takes the fewest reads of shared memory.
struct Place {
  int row, col;
  CENTROID_DEVICE Place()
      : row(warp_of_block() / 2 * 4 + lane_of_warp() / 8),
        col(warp_of_block() % 2 * 8 + lane_of_warp() % 8) {}
};

/// Columns column .. column + 63 of 32 rows, of which lane i of every warp knows the i-th, into
/// shared memory: zeros for null rows and from `width` on. With `vector`, rows are aligned to 16
/// bytes and `width` is a multiple of 4.
CENTROID_DEVICE void stage_rows(float* to, const float* mine, int column, int width, bool vector) {
  const int lane = lane_of_warp(), first = warp_of_block() * (kTileRows / 4);
  if (vector) {
    const int c = lane % 16 * 4;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const int r = first + 2 * step + lane / 16;
      const float* from = pointer_of_lane(mine, r);
      float4 x = make_float4(0, 0, 0, 0);
      if (from && column + c < width) x = *reinterpret_cast<const float4*>(from + column + c);
      *reinterpret_cast<float4*>(to + r * kPitch + c) = x;
    }
    return;
  }
#pragma unroll 4
  for (int r = first; r < first + kTileRows / 4; ++r) {
    const float* from = pointer_of_lane(mine, r);
#pragma unroll
    for (int c = lane; c < kSlice; c += kWarp) {
      to[r * kPitch + c] = from && column + c < width ? from[column + c] : 0.0f;
    }
  }
}

CENTROID_DEVICE float4 load4(const float* x) { return *reinterpret_cast<const float4*>(x); }
CENTROID_DEVICE void add_scaled(float4& sum, float a, const float4& x) {
  sum.x += a * x.x;
  sum.y += a * x.y;
  sum.z += a * x.z;
  sum.w += a * x.w;
}

/// products[i][j] += the dot product of row `row + 8 i` of a and row `col + 16 j` of b over the
/// first `columns` columns, rounded up to a multiple of 4.
CENTROID_DEVICE void add_products(const float* a, const float* b, int columns, const Place& place,
                                  float (&products)[4][2]) {
#pragma unroll 2
  for (int c = 0; c < columns; c += 4) {
    float4 x[4], y[2];
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = load4(a + (place.row + 8 * i) * kPitch + c);
#pragma unroll
    for (int j = 0; j < 2; ++j) y[j] = load4(b + (place.col + 16 * j) * kPitch + c);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        products[i][j] += x[i].x * y[j].x;
        products[i][j] += x[i].y * y[j].y;
        products[i][j] += x[i].z * y[j].z;
        products[i][j] += x[i].w * y[j].w;
      }
    }
  }
}

/// sums[i] += sum over the first n rows r of x, rounded up to a multiple of 4, of
/// weights[row + 8 i][r] x[r], at the thread's four columns.
CENTROID_DEVICE void add_weighted(const float* weights, const float* x, int n, const Place& place,
                                  float4 (&sums)[4]) {
  for (int r = 0; r < n; r += 4) {
    float4 w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = load4(weights + (place.row + 8 * i) * kWeightPitch + r);
    const float* at = x + r * kPitch + 4 * place.col;
    const float4 x0 = load4(at), x1 = load4(at + kPitch);
    const float4 x2 = load4(at + 2 * kPitch), x3 = load4(at + 3 * kPitch);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      add_scaled(sums[i], w[i].x, x0);
      add_scaled(sums[i], w[i].y, x1);
      add_scaled(sums[i], w[i].z, x2);
      add_scaled(sums[i], w[i].w, x3);
    }
  }
}

/// sums[i] = sum over the first n rows r of x of weights[r][4 row + i] x[r], at the thread's four
/// columns.
CENTROID_DEVICE void weighted_by_columns(const float* weights, const float* x, int n,
                                         const Place& place, float4 (&sums)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] = make_float4(0, 0, 0, 0);
#pragma unroll 4
  for (int r = 0; r < n; ++r) {
    const float4 w = load4(weights + r * kWeightPitch + 4 * place.row);
    const float4 y = load4(x + r * kPitch + 4 * place.col);
    add_scaled(sums[0], w.x, y);
    add_scaled(sums[1], w.y, y);
    add_scaled(sums[2], w.z, y);
    add_scaled(sums[3], w.w, y);
  }
}

/// Columns column .. column + 3 of a row of `width`, as far as they exist.
CENTROID_DEVICE void store_row(float* row, int column, int width, bool vector, const float4& x) {
  if (column >= width) return;
  if (vector) {
    *reinterpret_cast<float4*>(row + column) = x;
    return;
  }
  row[column] = x.x;
  if (column + 1 < width) row[column + 1] = x.y;
  if (column + 2 < width) row[column + 2] = x.z;
  if (column + 3 < width) row[column + 3] = x.w;
}

/// Whether rows of a tensor may be accessed in 16 bytes; an undefined tensor never is.
inline bool rows_align(const Tensor& x) {
  if (!x.defined() || x.numel() == 0) return true;
  bool aligned = x.size(3) % 4 == 0 && reinterpret_cast<uintptr_t>(x.data<float>()) % 16 == 0;
  for (int d = 0; d < 3; ++d) aligned = aligned && (x.size(d) == 1 || x.strides()[d] % 4 == 0);
  return aligned;
}

/// An item of work of a tile kernel. Every warp's lane i knows row i; the extra query comes last,
/// in the group's first item.
template <typename T>
struct ItemRows {
  int group, count, mine;

  CENTROID_DEVICE ItemRows(const Gathered<T>& g, const GroupItems& items, const Head& head, int i) {
    const GroupItems::Item item = items.at(g.offsets_of(head), i);
    const int members = min(max(0, item.end - item.begin), items.rows), lane = lane_of_warp();
    group = item.group;
    const bool extra = g.with_extra && item.first;
    count = members + (extra ? 1 : 0);
    mine = lane < members             ? g.member(head, item.begin + lane)
           : extra && lane == members ? kExtraRow
                                      : kNoRow;
  }
  CENTROID_DEVICE int row(int i) const { return __shfl_sync(kFullMask, mine, i); }
};
/// Rows are tiles less the place of the extra query.
inline GroupItems tile_items(int64_t queries, int64_t groups, bool with_extra) {
  return {queries, groups, kTileRows - (with_extra ? 1 : 0)};
}

}  // namespace centroid::cuda::gathered
