// Attention of groups of queries, each to its own list of keys: forward.
//
// A block of four warps takes one item (group_items.cuh): up to 32 rows of one group, against the
// group's keys, 32 at a time, with an online softmax. Shared memory holds 64 columns of the rows,
// 64 of the tile's keys or values, and the tile's weights. For the products threads have 4 x 2
// weights or 4 x 4 results each, in registers; for the softmax warps have eight rows each and lanes
// a key. Heads of more than 64 numbers pass through shared memory in slices.
#include "cuda/gathered_attention.cuh"

namespace centroid::cuda {

using namespace gathered;

namespace {

struct ForwardResults {
  RowsOfBoth<float> out;
  ScalarsOfBoth<float> lse;
};

// The running softmax of a warp's eight rows: lane r < 8 knows the largest score and the sum of row
// r.
struct RunningSoftmax {
  float top = -INFINITY, sum = 0;

  // scores -> weights relative to the largest score so far, with dropout, in place; `rescale` (8)
  // receives what brings earlier weights to the same scale.
  CENTROID_DEVICE void take(const Gathered<float>& g, const Head& head, const ItemRows<float>& rows,
                            int key, float* scores, float* rescale) {
    const int lane = lane_of_warp(), first = warp_of_block() * 8;
#pragma unroll 4
    for (int r = 0; r < 8; ++r) {
      const int row = rows.row(first + r);
      float* at = scores + r * kWeightPitch + lane;
      float score = g.is_last_resort(row, key) ? kLastResort : *at * g.unit;
      score = key < 0 ? -INFINITY : score;
      const float before = __shfl_sync(kFullMask, top, r);
      const float now = fmaxf(before, warp_reduce(score, Max{}));
      const float shift = now == -INFINITY ? 0.0f : now;
      const float weight = power_of_two(score - shift), total = warp_reduce(weight, Sum{});
      const float factor = power_of_two(before - shift);
      if (lane == r) {
        top = now;
        sum = sum * factor + total;
        rescale[r] = factor;
      }
      const bool drops = key >= 0 && row != kNoRow;
      *at = drops ? weight * g.factor(head, rows.group, row, key) : weight;
    }
  }
};

struct SharedTiles {
  float row_columns[kTileRows * kPitch], key_columns[kTileRows * kPitch];
  float weights[kTileRows * kWeightPitch], rescale[kTileRows];
};

// q k^T of a tile into shared memory. `q_staged`: the rows are there since an earlier tile.
CENTROID_DEVICE void store_products(const Gathered<float>& g, const float* q_row,
                                    const float* k_row, bool q_staged, bool vector,
                                    const Place& place, SharedTiles& tiles) {
  float products[4][2] = {};
  for (int column = 0; column < g.width; column += kSlice) {
    if (column > 0) __syncthreads();
    if (!q_staged) stage_rows(tiles.row_columns, q_row, column, g.width, vector);
    stage_rows(tiles.key_columns, k_row, column, g.width, vector);
    __syncthreads();
    add_products(tiles.row_columns, tiles.key_columns, min(kSlice, g.width - column), place,
                 products);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      tiles.weights[(place.row + 8 * i) * kWeightPitch + place.col + 16 * j] = products[i][j];
    }
  }
}

// sums = rescale sums + weights V. The weights are there after the next barrier.
template <int kSlices>
CENTROID_DEVICE void add_values(const Gathered<float>& g, const float* v_row, int keys, bool vector,
                                const Place& place, SharedTiles& tiles,
                                float4 (&sums)[kSlices][4]) {
#pragma unroll
  for (int slice = 0; slice < kSlices; ++slice) {
    if (slice > 0) __syncthreads();
    stage_rows(tiles.key_columns, v_row, slice * kSlice, g.value_width, vector);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float factor = tiles.rescale[place.row + 8 * i];
      float4& sum = sums[slice][i];
      sum = make_float4(sum.x * factor, sum.y * factor, sum.z * factor, sum.w * factor);
    }
    add_weighted(tiles.weights, tiles.key_columns, keys, place, sums[slice]);
  }
}

// What belongs to the rows: a warp writes the log-sums of its eight, threads their sums' columns.
template <int kSlices>
CENTROID_DEVICE void write_results(const Gathered<float>& g, const Head& head,
                                   const ItemRows<float>& rows, const RunningSoftmax& softmax,
                                   const float4 (&sums)[kSlices][4], const ForwardResults& to,
                                   bool vector, const Place& place, float* inverse) {
  const int lane = lane_of_warp(), r = warp_of_block() * 8 + lane % 8, mine = rows.row(r);
  if (lane < 8) {
    inverse[r] = softmax.sum == 0 ? 0.0f : 1 / softmax.sum;
    const float log_sum = softmax.top * static_cast<float>(kNatsPerBit) + math::log(softmax.sum);
    if (mine != kNoRow) {
      *g.scalar(to.lse, head, rows.group, mine) = softmax.sum == 0 ? -INFINITY : log_sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float* out = to.out.at(head, rows.group, rows.row(place.row + 8 * i));
    const float factor = inverse[place.row + 8 * i];
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      float4 sum = make_float4(0, 0, 0, 0);
      if (factor != 0) add_scaled(sum, factor, sums[slice][i]);
      if (out) store_row(out, slice * kSlice + 4 * place.col, g.value_width, vector, sum);
    }
  }
}

// kSlices slices cover the columns of the values.
template <int kSlices>
__global__ void __launch_bounds__(kTileThreads, kSlices == 4 ? 3 : 4)
    gathered_tiles(Gathered<float> g, GroupItems items, ForwardResults to, bool vector) {
  __shared__ __align__(16) SharedTiles tiles;
  const Head head = g.head(static_cast<int>(blockIdx.x) / items.count());
  const ItemRows<float> rows(g, items, head, static_cast<int>(blockIdx.x) % items.count());
  if (rows.count == 0) return;

  const int first = warp_of_block() * 8;
  const Place place;
  const float* q_row = g.q.at(head, rows.group, rows.mine);
  bool q_staged = false;
  RunningSoftmax softmax;
  float4 sums[kSlices][4] = {};
  for (int base = 0; base < g.list; base += kTileRows) {
    const int key = g.key(head, rows.group, base + lane_of_warp());
    if (!__any_sync(kFullMask, key >= 0)) continue;
    const float* k_row = key < 0 ? nullptr : g.k.at(head.b, head.h, key);
    const float* v_row = key < 0 ? nullptr : g.v.at(head.b, head.h, key);
    store_products(g, q_row, k_row, q_staged, vector, place, tiles);
    q_staged = g.width <= kSlice;
    __syncthreads();
    softmax.take(g, head, rows, key, tiles.weights + first * kWeightPitch, tiles.rescale + first);
    add_values(g, v_row, min(kTileRows, g.list - base), vector, place, tiles, sums);
    __syncthreads();
  }
  write_results(g, head, rows, softmax, sums, to, vector, place, tiles.rescale);
}

}  // namespace

void gathered_attention(const Tensor& q, const Tensor& extra, const Tensor& k, const Tensor& v,
                        const Groups& groups, KeyRule rule, double scale,
                        const WeightDropout& dropout, const WeightDropout& extra_dropout,
                        const Tensor& out, const Tensor& lse, const Tensor& extra_out,
                        const Tensor& extra_lse) {
  const int64_t heads = q.size(0) * q.size(1);
  dispatch_float(q.dtype(), "gathered_attention", [&]<typename T>() {
    const Gathered<T> g(q, extra, k, v, groups, rule, scale, dropout, extra_dropout);
    const RowsOfBoth<T> outs(out, extra_out);
    const ScalarsOfBoth<T> lses(lse, extra_lse);
    if constexpr (std::is_same_v<T, float>) {
      if (worth_tiles(q, groups)) {
        const GroupItems items = tile_items(q.size(2), groups.count(), extra.defined());
        bool vector = true;
        for (const Tensor& x : {q, extra, k, v, out, extra_out}) vector = vector && rows_align(x);
        const auto kernel = v.size(3) <= kSlice       ? gathered_tiles<1>
                            : v.size(3) <= 2 * kSlice ? gathered_tiles<2>
                                                      : gathered_tiles<4>;
        launch(kernel, static_cast<unsigned>(heads * items.count()), kTileThreads, 0, g, items,
               ForwardResults{outs, lses}, vector);
        return;
      }
    }
    gathered_rows(g, heads, outs, lses);
  });
}

}  // namespace centroid::cuda
