#pragma once
// What the kernels of tile attention share: masks, dropout, and tiles of rows in shared memory.
//
// A block owns a tile of rows - queries, or keys - and walks over tiles of columns - keys, or
// queries. Two kinds of arithmetic fill in the products of tiles, with the same interface: fma
// (tile_fma.cuh) and tensor cores (tile_mma.cuh). Each gives a thread a fixed set of rows and of
// columns of the tile of scores; the kernels (tile_forward.cuh, tile_backward.cuh) are written
// once, in terms of these.
#include "cuda/reduce.cuh"
#include "tensor/attention.h"
#include "tensor/math.h"

namespace centroid::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;
template <typename T>
inline constexpr T kInf = std::numeric_limits<T>::infinity();

// ---- masks --------------------------------------------------------------------------------------

/// KeyMask on the device.
struct TileMask {
  const int64_t* q_lengths;
  const int64_t* k_lengths;
  const int32_t* begin;
  const int32_t* end;
  int queries, keys;
};
inline TileMask tile_mask(const KeyMask& mask, const Tensor& q, const Tensor& k) {
  return {data_or_null<int64_t>(mask.q_lengths), data_or_null<int64_t>(mask.k_lengths),
          data_or_null<int32_t>(mask.begin),     data_or_null<int32_t>(mask.end),
          static_cast<int>(q.size(2)),           static_cast<int>(k.size(2))};
}

struct Range {
  int begin = 0, end = 0;
  CENTROID_DEVICE bool has(int i) const { return i >= begin && i < end; }
};

/// The keys that query l of item b sees; none for l beyond the queries.
CENTROID_DEVICE Range visible_keys(const TileMask& mask, int b, int l) {
  if (l >= mask.queries || (mask.q_lengths && l >= mask.q_lengths[b])) return {};
  Range seen{0, mask.keys};
  if (mask.k_lengths) seen.end = static_cast<int>(min(mask.k_lengths[b], int64_t{mask.keys}));
  if (mask.begin) seen.begin = max(0, mask.begin[l]);
  if (mask.end) seen.end = min(seen.end, mask.end[l]);
  return seen.begin < seen.end ? seen : Range{};
}

struct Least {
  CENTROID_DEVICE int operator()(int a, int b) const { return min(a, b); }
};
struct Greatest {
  CENTROID_DEVICE int operator()(int a, int b) const { return max(a, b); }
};

/// What the queries of a tile see: nobody sees a key outside `some`, everybody all keys of `all`.
/// Every warp computes it for itself.
struct Span {
  Range some, all;
  CENTROID_DEVICE bool all_see(int s, int n) const { return s >= all.begin && s + n <= all.end; }
};
CENTROID_DEVICE Span span_of(const TileMask& mask, int b, int l0, int n) {
  Span span{{mask.keys, 0}, {0, mask.keys}};
  for (int l = l0 + static_cast<int>(threadIdx.x) % kWarp; l < min(l0 + n, mask.queries);
       l += kWarp) {
    const Range seen = visible_keys(mask, b, l);
    span.all = {max(span.all.begin, seen.begin), min(span.all.end, seen.end)};
    if (seen.begin >= seen.end) continue;
    span.some = {min(span.some.begin, seen.begin), max(span.some.end, seen.end)};
  }
  return {{warp_reduce(span.some.begin, Least{}), warp_reduce(span.some.end, Greatest{})},
          {warp_reduce(span.all.begin, Greatest{}), warp_reduce(span.all.end, Least{})}};
}

// ---- dropout of weights -------------------------------------------------------------------------

struct TileDropout {
  uint64_t key, counter;
  int64_t blocks;      // Philox blocks per query: one decides about eight keys
  uint32_t threshold;  // of 65536
  float scale;
  bool active;
};
inline TileDropout tile_dropout(const WeightDropout& dropout, int64_t keys) {
  const auto threshold = static_cast<uint32_t>(dropout.p * 65536 + 0.5);
  return {dropout.state.key,
          dropout.state.counter,
          (keys + 7) / 8,
          threshold,
          static_cast<float>(65536.0 / (65536.0 - threshold)),
          dropout.p > 0};
}

/// Bit i: whether the weight of key `key` + i is kept; `key` is a multiple of 8 and `row` is
/// (b * H + h) * L + l.
CENTROID_DEVICE unsigned kept_of_eight(const TileDropout& dropout, int64_t row, int key) {
  const PhiloxBlock block = philox(dropout.key, dropout.counter, row * dropout.blocks + key / 8);
  unsigned kept = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t draw = block[i / 2] >> (i % 2 * 16) & 0xffffu;
    kept |= (draw >= dropout.threshold ? 1u : 0u) << i;
  }
  return kept;
}

/// 2^x, within 2 ulp; 0 below -126, as on the CPU.
CENTROID_DEVICE float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- rows in global memory ----------------------------------------------------------------------

/// The rows of one head in f32. Rows from `count` and columns from `width` on count as 0.
struct RowSource {
  const float* data;
  int64_t stride;
  int count, width;
  bool aligned;  // 16 bytes at a time
};

/// All heads of a tensor (B, H, N, E), with 1 as its last stride.
struct HeadRows {
  Rows4<float> rows;
  int count, width;
  bool aligned;

  CENTROID_DEVICE RowSource head(int b, int h) const {
    return {rows.at(b, h, 0), rows.row, count, width, aligned};
  }
};
inline HeadRows head_rows(const Tensor& x) {
  if (!x.defined()) return {};
  const Rows4<float> rows = rows4<float>(x);
  const bool aligned = x.size(3) % 4 == 0 && rows.batch % 4 == 0 && rows.head % 4 == 0 &&
                       rows.row % 4 == 0 && reinterpret_cast<uintptr_t>(rows.data) % 16 == 0;
  return {rows, static_cast<int>(x.size(2)), static_cast<int>(x.size(3)), aligned};
}

/// Columns 4 quad .. 4 quad + 4 of a row.
CENTROID_DEVICE float4 load_quad(const RowSource& from, int row, int quad) {
  float4 x{0, 0, 0, 0};
  const int column = 4 * quad;
  if (row >= from.count || column >= from.width) return x;
  const float* at = from.data + row * from.stride + column;
  if (from.aligned) return *reinterpret_cast<const float4*>(at);
  x.x = at[0];
  if (column + 1 < from.width) x.y = at[1];
  if (column + 2 < from.width) x.z = at[2];
  if (column + 3 < from.width) x.w = at[3];
  return x;
}

CENTROID_DEVICE float4 operator*(const float4& x, float factor) {
  return {x.x * factor, x.y * factor, x.z * factor, x.w * factor};
}

/// Writes kCount (2 or 4) neighbouring columns, those within `width`.
template <int kCount>
CENTROID_DEVICE void store_columns(float* row, int column, int width, bool aligned, const float* x,
                                   float factor) {
  if (aligned && column < width) {  // widths of aligned rows are multiples of 4
    if constexpr (kCount == 4) {
      *reinterpret_cast<float4*>(row + column) = float4{x[0], x[1], x[2], x[3]} * factor;
    } else {
      *reinterpret_cast<float2*>(row + column) = {x[0] * factor, x[1] * factor};
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (column + i < width) row[column + i] = x[i] * factor;
  }
}

/// x, as if it could be any number: what is computed from it is computed anew where it is needed,
/// not kept in registers across the walk over tiles, which has none to spare.
CENTROID_DEVICE int hidden(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// ---- tiles in shared memory ---------------------------------------------------------------------

/// Rows of W elements in shared memory, in chunks of 16 bytes. Chunk c of row r stands at c ^ s(r):
/// lanes that read the same chunk of eight rows, kStep apart, meet all 32 banks; and so do lanes
/// that read neighbouring chunks of one row.
template <typename Element, int W, int kRowCount, int kStep = 1>
struct SharedTile {
  static constexpr int kPerChunk = 16 / sizeof(Element), kChunks = W / kPerChunk;
  static constexpr int kRows = kRowCount;
  static constexpr size_t kBytes = sizeof(Element) * W * kRows;
  static_assert(kChunks >= 8 || kStep == 1);
  Element* data;

  /// Rows of four chunks are 64 bytes: two of them fill the banks.
  static CENTROID_DEVICE int swizzle(int row) {
    return kChunks >= 8 ? row / kStep & 7 : row / 2 & 3;
  }
  CENTROID_DEVICE Element* chunk(int row, int c) const {
    return data + row * W + (c ^ swizzle(row)) * kPerChunk;
  }
};

CENTROID_DEVICE unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

}  // namespace centroid::cuda
