// Attention of groups of queries, each to its own list of keys: backward.
//
// Pass 1: a block takes one item, as forward does, and computes its rows' weights P and their
// gradients dS again, 32 keys at a time: products with rows staged in shared memory as in forward,
// but a thread keeps its 4 x 2 pairs from products to gradients. Then dq = dS K, and the item's
// part of each listed key's gradient, dS^T Q and (P M)^T dO, goes to scratch memory. Pass 2: a warp
// per key adds up the parts of the items that used it, in ascending order of group, slot and item,
// so that no order of blocks shows in the sum. Where each key is used follows from sorting the
// lists' slots by key (KeyUses).
#include "cuda/gathered_attention.cuh"
#include "tensor/ops.h"

namespace centroid::cuda {

using namespace gathered;

namespace {

// Scratch for all heads would be large where lists are long: passes over a few heads share it.
constexpr int64_t kScratchBytes = int64_t{256} << 20;

constexpr int padded4(int n) { return (n + 3) / 4 * 4; }

// The parts of dk and dv from each item of some heads: of slot s of item i of the n-th of them, at
// ((n items + i) list + s) pitch, the columns of dk and then those of dv, each padded to 16 bytes.
struct Parts {
  float* data;
  int first_head, items, list, key_columns, pitch;

  CENTROID_DEVICE float* at(int head, int item, int slot) const {
    return data + ((int64_t{head} * items + item) * list + slot) * pitch;
  }
};

struct SharedTiles {
  float row_columns[kTileRows * kPitch], key_columns[kTileRows * kPitch];
  float weights[kTileRows * kWeightPitch], dscores[kTileRows * kWeightPitch];
  RowGradient<float> of_row[kTileRows];
};

// delta = dO . O - dlse and the rest of RowGradient, for the eight rows of a warp.
CENTROID_DEVICE void load_row_gradients(const Gathered<float>& g,
                                        const GatheredGradients<float>& grads, const Head& head,
                                        const ItemRows<float>& rows, RowGradient<float>* to) {
  const int lane = lane_of_warp(), first = warp_of_block() * 8;
#pragma unroll 4
  for (int r = first; r < first + 8; ++r) {
    const int row = rows.row(r);
    const float* out = grads.out.at(head, rows.group, row);
    const float* dout = grads.dout.at(head, rows.group, row);
    float delta = 0;
    for (int c = lane; out && c < g.value_width; c += kWarp) delta += out[c] * dout[c];
    delta = warp_reduce(delta, Sum{});
    if (lane != 0) continue;
    if (row == kNoRow) {
      to[r] = {0, 0};
      continue;
    }
    const bool has_dlse = (row == kExtraRow ? grads.dlse.extra : grads.dlse.members) != nullptr;
    if (has_dlse) delta -= *g.scalar(grads.dlse, head, rows.group, row);
    to[r] = RowGradient<float>::of(*g.scalar(grads.lse, head, rows.group, row), delta);
  }
}

// Products -> P M and dS of a thread's 4 x 2 pairs, into shared memory.
CENTROID_DEVICE void store_pair_gradients(const Gathered<float>& g, const Head& head,
                                          const ItemRows<float>& rows, int my_key,
                                          const Place& place, const float (&products)[4][2],
                                          const float (&dweights)[4][2], SharedTiles& tiles) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int r = place.row + 8 * i, row = rows.row(r);
    const RowGradient<float> of_row = tiles.of_row[r];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int slot = place.col + 16 * j, key = __shfl_sync(kFullMask, my_key, slot);
      float weight = 0, dscore = 0;
      if (row != kNoRow && key >= 0) {
        const PairGradient<float> pair(g, head, rows.group, row, key, products[i][j],
                                       dweights[i][j], of_row);
        weight = pair.weight;
        dscore = pair.dscore;
      }
      tiles.weights[r * kWeightPitch + slot] = weight;
      tiles.dscores[r * kWeightPitch + slot] = dscore;
    }
  }
}

// A thread's four keys and columns of an item's part of dk or dv.
CENTROID_DEVICE void store_part(const Parts& parts, float* part, int my_key, const Place& place,
                                int column, int columns, const float4 (&sums)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int slot = 4 * place.row + i, key = __shfl_sync(kFullMask, my_key, slot);
    if (key < 0 || column >= columns) continue;
    *reinterpret_cast<float4*>(part + int64_t{slot} * parts.pitch + column) = sums[i];
  }
}

// What a block of pass 1 works on.
struct ItemTile {
  const Gathered<float>& g;
  const Parts& parts;
  SharedTiles& tiles;
  const float *q_row, *dout_row, *k_row, *v_row;  // of this lane's row and key
  float* part;
  int rows, keys, my_key;
  bool vector;
  Place place;

  CENTROID_DEVICE void stage(const float* row, const float* of_key, int column, int width,
                             bool both = true) const {
    __syncthreads();
    stage_rows(tiles.row_columns, row, column, width, vector);
    if (both) stage_rows(tiles.key_columns, of_key, column, width, vector);
    __syncthreads();
  }
  // products = rows keys^T, of q and k or of dO and v.
  CENTROID_DEVICE void multiply(const float* row, const float* of_key, int width,
                                float (&products)[4][2]) const {
    for (int column = 0; column < width; column += kSlice) {
      stage(row, of_key, column, width);
      add_products(tiles.row_columns, tiles.key_columns, min(kSlice, width - column), place,
                   products);
    }
  }
  // dq += dS K and this item's part of dk, dS^T Q. With one slice, q and k are still staged.
  template <int kSlices>
  CENTROID_DEVICE void take_dscores(float4 (&dq)[kSlices][4]) const {
    float4 sums[4];
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      const int column = slice * kSlice;
      if (kSlices > 1) stage(q_row, k_row, column, g.width);
      add_weighted(tiles.dscores, tiles.key_columns, keys, place, dq[slice]);
      weighted_by_columns(tiles.dscores, tiles.row_columns, rows, place, sums);
      store_part(parts, part, my_key, place, column + 4 * place.col, g.width, sums);
    }
  }
  // This item's part of dv, (P M)^T dO.
  CENTROID_DEVICE void take_weights() const {
    float4 sums[4];
    for (int column = 0; column < g.value_width; column += kSlice) {
      stage(dout_row, nullptr, column, g.value_width, false);
      weighted_by_columns(tiles.weights, tiles.row_columns, rows, place, sums);
      store_part(parts, part + parts.key_columns, my_key, place, column + 4 * place.col,
                 g.value_width, sums);
    }
  }
};

// kSlices slices cover the columns of q and k.
template <int kSlices>
__global__ void __launch_bounds__(kTileThreads, kSlices == 1   ? 4
                                                : kSlices == 2 ? 3
                                                               : 2)
    gathered_tiles_backward(Gathered<float> g, GroupItems items, GatheredGradients<float> grads,
                            Parts parts, bool vector) {
  __shared__ __align__(16) SharedTiles tiles;
  const int of_parts = static_cast<int>(blockIdx.x) / items.count();
  const int item = static_cast<int>(blockIdx.x) % items.count();
  const Head head = g.head(parts.first_head + of_parts);
  const ItemRows<float> rows(g, items, head, item);
  if (rows.count == 0) return;

  const float* q_row = g.q.at(head, rows.group, rows.mine);
  const float* dout_row = grads.dout.at(head, rows.group, rows.mine);
  load_row_gradients(g, grads, head, rows, tiles.of_row);
  float4 dq[kSlices][4] = {};
  const Place place;
  for (int base = 0; base < g.list; base += kTileRows) {
    const int key = g.key(head, rows.group, base + lane_of_warp());
    if (!__any_sync(kFullMask, key >= 0)) continue;
    const float* k_row = key < 0 ? nullptr : g.k.at(head.b, head.h, key);
    const float* v_row = key < 0 ? nullptr : g.v.at(head.b, head.h, key);
    const ItemTile tile{g,          parts,
                        tiles,      q_row,
                        dout_row,   k_row,
                        v_row,      parts.at(of_parts, item, base),
                        rows.count, min(kTileRows, g.list - base),
                        key,        vector,
                        place};
    float products[4][2] = {}, dweights[4][2] = {};
    tile.multiply(dout_row, v_row, g.value_width, dweights);
    tile.multiply(q_row, k_row, g.width, products);
    store_pair_gradients(g, head, rows, key, place, products, dweights, tiles);
    __syncthreads();
    tile.take_dscores(dq);
    tile.take_weights();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float* to = grads.dq.at(head, rows.group, rows.row(place.row + 8 * i));
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      if (to) store_row(to, slice * kSlice + 4 * place.col, g.width, vector, dq[slice][i]);
    }
  }
}

// A warp per key: lanes are columns in fours, of dk and then of dv.
__global__ void __launch_bounds__(kTileThreads, 8)
    sum_parts(Gathered<float> g, GroupItems items, Rows4<float> dk, Rows4<float> dv, Parts parts,
              const int32_t* slots, const int32_t* slot_offsets, bool vector) {
  const int blocks = (g.keys + kTileThreads / kWarp - 1) / (kTileThreads / kWarp);
  const int of_parts = static_cast<int>(blockIdx.x) / blocks, lane = lane_of_warp();
  const int s = static_cast<int>(blockIdx.x) % blocks * (kTileThreads / kWarp) + warp_of_block();
  if (s >= g.keys) return;
  const Head head = g.head(parts.first_head + of_parts);
  const int32_t* offsets = g.offsets_of(head);
  const int32_t* uses = slot_offsets + head.bh * (g.keys + 1) + s;
  slots += head.bh * g.groups * g.list;
  const int begin = uses[0], end = uses[1];
  for (int chunk = 0; chunk * 4 < parts.pitch; chunk += kWarp) {
    const int column = (chunk + lane) * 4;
    const bool exists = column < parts.pitch;
    float4 total = make_float4(0, 0, 0, 0);
    for (int base = begin; base < end; base += kWarp) {
      // Each lane looks one use up; then all of them are added by all lanes.
      int first = 0, slot = 0, n = 0;
      if (base + lane < end) {
        const int use = slots[base + lane], group = use / g.list;
        const int from = offsets[group];
        slot = use % g.list;
        first = items.first_of_group(group, from);
        n = max(items.with_rows(from, offsets[group + 1]), g.with_extra ? 1 : 0);
        n = max(0, min(n, items.count() - first));
      }
      const int here = min(kWarp, end - base);
      for (int u = 0; u < here; ++u) {
        const int from = __shfl_sync(kFullMask, first, u), at = __shfl_sync(kFullMask, slot, u);
        const int count = __shfl_sync(kFullMask, n, u);
        for (int i = 0; exists && i < count; ++i) {
          add_scaled(total, 1, load4(parts.at(of_parts, from + i, at) + column));
        }
      }
    }
    if (column < parts.key_columns) {
      store_row(dk.at(head.b, head.h, s), column, g.width, vector, total);
    } else if (exists) {
      store_row(dv.at(head.b, head.h, s), column - parts.key_columns, g.value_width, vector, total);
    }
  }
}

void tiles_backward(const Gathered<float>& g, const GatheredGradients<float>& grads,
                    const KeyUses& uses, int64_t heads, Device device, bool vector) {
  const GroupItems items = tile_items(g.queries, g.groups, g.with_extra);
  const int key_columns = padded4(g.width), pitch = key_columns + padded4(g.value_width);
  const int64_t per_head = int64_t{items.count()} * g.list * pitch;
  const int64_t fitting = kScratchBytes / std::max<int64_t>(1, per_head * sizeof(float));
  const int64_t at_once = std::clamp<int64_t>(fitting, 1, std::max<int64_t>(1, heads));
  const Tensor scratch = empty({at_once * per_head}, DType::f32, device);
  const auto kernel = g.width <= kSlice       ? gathered_tiles_backward<1>
                      : g.width <= 2 * kSlice ? gathered_tiles_backward<2>
                                              : gathered_tiles_backward<4>;
  for (int64_t head = 0; head < heads; head += at_once) {
    const int64_t n = std::min(at_once, heads - head);
    const Parts parts{
        scratch.data<float>(), static_cast<int>(head), items.count(), g.list, key_columns, pitch};
    launch(kernel, static_cast<unsigned>(n * items.count()), kTileThreads, 0, g, items, grads,
           parts, vector);
    launch(sum_parts, static_cast<unsigned>(n * div_up(g.keys, kTileThreads / kWarp)), kTileThreads,
           0, g, items, grads.dk, grads.dv, parts, uses.slots.data<int32_t>(),
           uses.offsets.data<int32_t>(), vector);
  }
}

KeyUses key_uses(const Groups& groups, int64_t keys) {
  const Tensor& lists = groups.keys;
  const int64_t batch = lists.size(0), heads = lists.size(1), n = lists.size(2) * lists.size(3);
  const KeyUses uses{empty({batch, heads, n}, DType::i32, lists.device()),
                     empty({batch, heads, keys + 1}, DType::i32, lists.device())};
  group_by_label(raw::reshape(lists, {batch, heads, n}), uses.slots, uses.offsets);
  return uses;
}

}  // namespace

// The workspace is for the CPU.
void gathered_attention_backward(const Tensor& q, const Tensor& extra, const Tensor& k,
                                 const Tensor& v, const Groups& groups, KeyRule rule, double scale,
                                 const WeightDropout& dropout, const WeightDropout& extra_dropout,
                                 const Tensor& out, const Tensor& lse, const Tensor& extra_out,
                                 const Tensor& extra_lse, const Tensor& dout, const Tensor& dlse,
                                 const Tensor& dextra_out, const Tensor& dextra_lse,
                                 const Tensor& /*partial_dk*/, const Tensor& /*partial_dv*/,
                                 const Tensor& dq, const Tensor& dextra, const Tensor& dk,
                                 const Tensor& dv) {
  const int64_t heads = q.size(0) * q.size(1);
  const KeyUses uses = key_uses(groups, k.size(2));
  dispatch_float(q.dtype(), "gathered_attention_backward", [&]<typename T>() {
    const Gathered<T> g(q, extra, k, v, groups, rule, scale, dropout, extra_dropout);
    const GatheredGradients<T> grads{{out, extra_out},   {dout, dextra_out}, {lse, extra_lse},
                                     {dlse, dextra_lse}, {dq, dextra},       rows4<T>(dk),
                                     rows4<T>(dv)};
    if constexpr (std::is_same_v<T, float>) {
      if (worth_tiles(q, groups)) {
        bool vector = true;
        for (const Tensor& x : {q, extra, k, v, dout, dextra_out, dq, dextra, dk, dv}) {
          vector = vector && rows_align(x);
        }
        return tiles_backward(g, grads, uses, heads, q.device(), vector);
      }
    }
    gathered_rows_backward(g, grads, uses, heads, q.device());
  });
}

}  // namespace centroid::cuda
