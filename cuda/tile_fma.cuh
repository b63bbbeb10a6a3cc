#pragma once
// Products of tiles in f32 by fma, for tile attention.
//
// Of the scores of a tile, a thread computes 4 rows x kCols / kTx neighbouring columns: kTx lanes
// share their rows. Of results it computes the same rows x W / kTx columns, in fours that are
// 4 kTx apart. Every score is a sum over e in order, each term by one fma, as on the CPU.
#include "cuda/tile.cuh"

namespace centroid::cuda {

template <int W_, int kRows_, int kCols_, int kTx_>
struct FmaTiles {
  static constexpr bool kAvailable = true;
  static constexpr int W = W_, kRows = kRows_, kCols = kCols_, kTx = kTx_;
  static constexpr int kThreads = kRows / 4 * kTx;
  static constexpr bool kTwoResults = true;
  // Blocks that registers allow, with one result and with two.
  static constexpr int kMinBlocks = kThreads == 256 ? 2
                                    : W < 64        ? 4
                                                    : 3,
                       kMinBlocksTwo = kThreads == 256 ? 2 : 3;
  static constexpr int kRowLanes = kTx;  // lanes that share a row
  static constexpr int kFragRows = 4, kFragCols = kCols / kTx;
  static constexpr int kOutCols = W / kTx, kOutGroup = 4;
  using RowTile = SharedTile<float, W, kRows, 4>;
  using ColTile = SharedTile<float, W, kCols, kFragCols>;
  using Scores = float[kFragRows][kFragCols];
  using Output = float[kFragRows][kOutCols];
  static_assert(kFragCols == 1 || kFragCols == 2 || kFragCols == 4);

  static CENTROID_DEVICE int thread() { return hidden(static_cast<int>(threadIdx.x)); }
  static CENTROID_DEVICE int tx() { return static_cast<int>(threadIdx.x) % kTx; }
  static CENTROID_DEVICE int row(int i) { return static_cast<int>(threadIdx.x) / kTx * 4 + i; }
  static CENTROID_DEVICE int col(int j) { return tx() * kFragCols + j; }
  static CENTROID_DEVICE int out_col(int j) { return (j / 4 * kTx + tx()) * 4 + j % 4; }

  /// Fills a tile at once.
  template <typename Tile>
  static CENTROID_DEVICE void fill(const Tile& tile, const RowSource& from, int first,
                                   float factor) {
    for (int i = static_cast<int>(threadIdx.x); i < Tile::kRows * W / 4; i += kThreads) {
      const int r = i / (W / 4), c = i % (W / 4);
      *reinterpret_cast<float4*>(tile.chunk(r, c)) = load_quad(from, first + r, c) * factor;
    }
  }

  /// Fills a tile while the block computes: from sm_80 on, global memory is copied to shared memory
  /// without passing through registers. `start` needs the tile to be free; what `finish` leaves is
  /// there for all after the next barrier.
  struct Filler {
    ColTile tile;
    const HeadRows& rows;
    int b, h;
    float factor;  // that rows are multiplied by

    CENTROID_DEVICE void start(int first) {
      const RowSource from = rows.head(hidden(b), h);
#if __CUDA_ARCH__ >= 800
      for (int i = thread(); i < kCols * W / 4; i += kThreads) {
        const int r = i / (W / 4), c = i % (W / 4);
        copy_quad(tile.chunk(r, c), from, first + r, 4 * c);
      }
      asm volatile("cp.async.commit_group;" ::: "memory");
#else
      fill(tile, from, first, factor);
#endif
    }
    CENTROID_DEVICE void finish() {
#if __CUDA_ARCH__ >= 800
      asm volatile("cp.async.wait_group 0;" ::: "memory");
      if (factor == 1) return;
      // Its own copies are there for each thread, without a barrier.
      for (int i = thread(); i < kCols * W / 4; i += kThreads) {
        auto* at = reinterpret_cast<float4*>(tile.chunk(i / (W / 4), i % (W / 4)));
        *at = *at * factor;
      }
#endif
    }

   private:
    static CENTROID_DEVICE void copy_quad(float* to, const RowSource& from, int r, int column) {
#if __CUDA_ARCH__ >= 800
      const int left = r < from.count ? from.width - column : 0;  // elements that exist
      const float* at = left > 0 ? from.data + r * from.stride + column : from.data;
      if (from.aligned) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                     "l"(at), "r"(left > 0 ? 16 : 0)
                     : "memory");
        return;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to + i)),
                     "l"(i < left ? at + i : at), "r"(i < left ? 4 : 0)
                     : "memory");
      }
#endif
    }
  };

  /// scores = a b^T
  static CENTROID_DEVICE void multiply(Scores& scores, const RowTile& a, const ColTile& b) {
#pragma unroll
    for (int i = 0; i < kFragRows; ++i) {
#pragma unroll
      for (int j = 0; j < kFragCols; ++j) scores[i][j] = 0;
    }
#pragma unroll 1
    for (int c = 0; c < W / 4; ++c) {
      float4 x[kFragRows], y[kFragCols];
#pragma unroll
      for (int i = 0; i < kFragRows; ++i) x[i] = *reinterpret_cast<float4*>(a.chunk(row(i), c));
#pragma unroll
      for (int j = 0; j < kFragCols; ++j) y[j] = *reinterpret_cast<float4*>(b.chunk(col(j), c));
#pragma unroll
      for (int i = 0; i < kFragRows; ++i) {
#pragma unroll
        for (int j = 0; j < kFragCols; ++j) {
          float sum = fmaf(x[i].x, y[j].x, scores[i][j]);
          sum = fmaf(x[i].y, y[j].y, sum);
          sum = fmaf(x[i].z, y[j].z, sum);
          scores[i][j] = fmaf(x[i].w, y[j].w, sum);
        }
      }
    }
  }

  /// out += weights b. The weights of a row are spread over the lanes that share it.
  static CENTROID_DEVICE void accumulate(Output& out, const Scores& weights, const ColTile& b) {
#pragma unroll 2
    for (int lane = 0; lane < kTx; ++lane) {
#pragma unroll
      for (int j = 0; j < kFragCols; ++j) {
        float weight[kFragRows];
#pragma unroll
        for (int i = 0; i < kFragRows; ++i) {
          weight[i] = __shfl_sync(kFullMask, weights[i][j], lane, kTx);
        }
#pragma unroll
        for (int n = 0; n < kOutCols / 4; ++n) {
          const float4 y =
              *reinterpret_cast<float4*>(b.chunk(lane * kFragCols + j, n * kTx + tx()));
#pragma unroll
          for (int i = 0; i < kFragRows; ++i) {
            out[i][4 * n] = fmaf(weight[i], y.x, out[i][4 * n]);
            out[i][4 * n + 1] = fmaf(weight[i], y.y, out[i][4 * n + 1]);
            out[i][4 * n + 2] = fmaf(weight[i], y.z, out[i][4 * n + 2]);
            out[i][4 * n + 3] = fmaf(weight[i], y.w, out[i][4 * n + 3]);
          }
        }
      }
    }
  }

  /// Bit i * kFragCols + j: whether dropout keeps the weight at (row(i), column(j)). The tile
  /// begins at row `row0` and column `col0`; `base` is the first query's number among all of them.
  /// The first key is a multiple of 8.
  template <bool kKeyRows>
  static CENTROID_DEVICE unsigned keep(const TileDropout& dropout, int64_t base, int row0,
                                       int col0) {
    unsigned kept = 0;
    if constexpr (kKeyRows) {  // a thread's four keys are half of what one Philox block decides on
      const int key = row0 + row(0);
#pragma unroll 1
      for (int j = 0; j < kFragCols; ++j) {
        const unsigned eight = kept_of_eight(dropout, base + col0 + col(j), key) >> key % 8;
#pragma unroll
        for (int i = 0; i < kFragRows; ++i) kept |= (eight >> i & 1u) << (i * kFragCols + j);
      }
    } else {
      constexpr unsigned kMask = (1u << kFragCols) - 1;
      const int key = col0 + col(0);
#pragma unroll 1
      for (int i = 0; i < kFragRows; ++i) {
        const unsigned eight = kept_of_eight(dropout, base + row0 + row(i), key);
        kept |= (eight >> key % 8 & kMask) << i * kFragCols;
      }
    }
    return kept;
  }
};

}  // namespace centroid::cuda
