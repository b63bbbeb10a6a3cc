#pragma once
// Products of tiles on tensor cores (sm_80 and later), for tile attention: factors are rounded to
// TF32 or bf16 when they enter shared memory, sums are f32.
//
// Of the scores, a warp computes 16 rows, in fragments of mma.sync: with g = lane / 4 and
// t = lane % 4, a thread has rows g and g + 8 and columns 2t, 2t + 1 of every eight. Results have
// the same rows and columns. Weights go from one product into the next in registers: the layout of
// a bf16 result is that of a bf16 factor already; for TF32, whose factors have columns t and t + 4
// of eight, the keys are renumbered, as their order in a sum is free.
#include "cuda/tile.cuh"

namespace centroid::cuda {

enum class Rounding { tf32, bf16 };

namespace detail {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
inline constexpr bool kTensorCores = true;

/// The nearest TF32 number.
CENTROID_DEVICE uint32_t to_tf32(float x) {
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}
/// Two bf16 numbers, the first in the lower half.
CENTROID_DEVICE uint32_t to_bf16_pair(float low, float high) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}

/// c (16, 8) += a (16, 8 or 16) b: (row g, column 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
template <Rounding kRounding>
CENTROID_DEVICE void mma(float& c0, float& c1, float& c2, float& c3, const uint32_t (&a)[4],
                         uint32_t b0, uint32_t b1) {
  if constexpr (kRounding == Rounding::tf32) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}
#else
// Never started on such devices; the code for them has to compile nevertheless.
inline constexpr bool kTensorCores = false;
CENTROID_DEVICE uint32_t to_tf32(float) { return 0; }
CENTROID_DEVICE uint32_t to_bf16_pair(float, float) { return 0; }
template <Rounding kRounding>
CENTROID_DEVICE void mma(float&, float&, float&, float&, const uint32_t (&)[4], uint32_t,
                         uint32_t) {}
#endif

/// Four 8 x 8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8
/// and gets elements 2t, 2t + 1 of row g of each; transposed, those of column g.
template <bool kTransposed>
CENTROID_DEVICE void load_matrices(uint32_t (&x)[4], const void* row) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

}  // namespace detail

template <int W_, Rounding kRounding, int kRows_, int kCols_>
struct MmaTiles {
  static constexpr bool kAvailable = detail::kTensorCores;
  static constexpr int W = W_, kRows = kRows_, kCols = kCols_;
  static constexpr int kThreads = kRows / 16 * kWarp;
  /// Whether registers hold two results of a tile.
  static constexpr bool kTwoResults = W < 128;
  // Blocks that registers allow, with one result and with two.
  static constexpr int kMinBlocks = W >= 128 ? 2 : W >= 64 ? 3 : 4;
  static constexpr int kMinBlocksTwo = kMinBlocks - 1;
  static constexpr int kRowLanes = 4;  // lanes that share a row
  static constexpr int kFragRows = 2, kFragCols = kCols / 4;
  static constexpr int kOutCols = W / 4, kOutGroup = 2;
  using Element = std::conditional_t<kRounding == Rounding::tf32, uint32_t, uint16_t>;
  using RowTile = SharedTile<Element, W, kRows>;
  using ColTile = SharedTile<Element, W, kCols>;
  using Scores = float[kFragRows][kFragCols];
  using Output = float[kFragRows][kOutCols];
  static_assert(kCols == 32);  // see keep

  static CENTROID_DEVICE int thread() { return hidden(static_cast<int>(threadIdx.x)); }
  static CENTROID_DEVICE int lane() { return thread() % kWarp; }
  static CENTROID_DEVICE int warp_row() { return thread() / kWarp * 16; }
  static CENTROID_DEVICE int row(int i) { return warp_row() + lane() / 4 + 8 * i; }
  static CENTROID_DEVICE int col(int j) { return j / 2 * 8 + lane() % 4 * 2 + j % 2; }
  static CENTROID_DEVICE int out_col(int j) { return col(j); }

  template <typename Tile>
  static CENTROID_DEVICE void store(const Tile& tile, int r, int quad, const float4& x) {
    if constexpr (kRounding == Rounding::tf32) {
      *reinterpret_cast<uint4*>(tile.chunk(r, quad)) = {detail::to_tf32(x.x), detail::to_tf32(x.y),
                                                        detail::to_tf32(x.z), detail::to_tf32(x.w)};
    } else {
      *reinterpret_cast<uint2*>(tile.chunk(r, quad / 2) + quad % 2 * 4) = {
          detail::to_bf16_pair(x.x, x.y), detail::to_bf16_pair(x.z, x.w)};
    }
  }

  /// Fills a tile at once.
  template <typename Tile>
  static CENTROID_DEVICE void fill(const Tile& tile, const RowSource& from, int first,
                                   float factor) {
#pragma unroll 2
    for (int i = thread(); i < Tile::kRows * W / 4; i += kThreads) {
      const int r = i / (W / 4), c = i % (W / 4);
      store(tile, r, c, load_quad(from, first + r, c) * factor);
    }
  }

  /// Fills a tile while the block computes: `start` asks for the numbers, `finish` rounds them and
  /// needs the tile to be free; what it leaves is there for all after the next barrier.
  struct Filler {
    static constexpr int kQuads = kCols * W / 4 / kThreads;
    ColTile tile;
    const HeadRows& rows;
    int b, h;
    float factor;  // that rows are multiplied by
    float4 quads[kQuads];

    CENTROID_DEVICE void start(int first) {
      const int me = thread();
      const RowSource from = rows.head(hidden(b), h);
#pragma unroll
      for (int n = 0; n < kQuads; ++n) {
        const int i = me + n * kThreads;
        quads[n] = load_quad(from, first + i / (W / 4), i % (W / 4));
      }
    }
    CENTROID_DEVICE void finish() {
      const int me = thread();
#pragma unroll
      for (int n = 0; n < kQuads; ++n) {
        const int i = me + n * kThreads;
        store(tile, i / (W / 4), i % (W / 4), quads[n] * factor);
      }
    }
  };

  /// scores = a b^T. Two chunks of a row are the depth of one mma, in both formats.
  static CENTROID_DEVICE void multiply(Scores& scores, const RowTile& a, const ColTile& b) {
#pragma unroll
    for (int j = 0; j < kFragCols; ++j) scores[0][j] = scores[1][j] = 0;
    const int l = lane(), a_row = warp_row() + l % 16, b_row = l / 16 * 8 + l % 8;
#pragma unroll 2
    for (int c = 0; c < RowTile::kChunks; c += 2) {
      uint32_t x[4];
      detail::load_matrices<false>(x, a.chunk(a_row, c + l / 16));
#pragma unroll
      for (int n = 0; n < kCols / 16; ++n) {
        uint32_t y[4];
        detail::load_matrices<false>(y, b.chunk(n * 16 + b_row, c + l / 8 % 2));
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int j = 4 * n + 2 * h;
          detail::mma<kRounding>(scores[0][j], scores[0][j + 1], scores[1][j], scores[1][j + 1], x,
                                 y[2 * h], y[2 * h + 1]);
        }
      }
    }
  }

  /// out += weights b
  static CENTROID_DEVICE void accumulate(Output& out, const Scores& weights, const ColTile& b) {
    if constexpr (kRounding == Rounding::tf32) {
      accumulate_tf32(out, weights, b);
    } else {
      accumulate_bf16(out, weights, b);
    }
  }

  static CENTROID_DEVICE void accumulate_bf16(Output& out, const Scores& w, const ColTile& b) {
    const int l = lane();
#pragma unroll
    for (int k = 0; k < kCols / 16; ++k) {
      const int j = 4 * k;
      const uint32_t x[4] = {detail::to_bf16_pair(w[0][j], w[0][j + 1]),
                             detail::to_bf16_pair(w[1][j], w[1][j + 1]),
                             detail::to_bf16_pair(w[0][j + 2], w[0][j + 3]),
                             detail::to_bf16_pair(w[1][j + 2], w[1][j + 3])};
#pragma unroll
      for (int c = 0; c < ColTile::kChunks; c += 2) {
        uint32_t y[4];
        detail::load_matrices<true>(y, b.chunk(16 * k + l % 16, c + l / 16));
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int n = 2 * (c + h);
          detail::mma<kRounding>(out[0][n], out[0][n + 1], out[1][n], out[1][n + 1], x, y[2 * h],
                                 y[2 * h + 1]);
        }
      }
    }
  }

  // Columns t and t + 4 of a factor are taken to be keys 2t and 2t + 1 of eight.
  static CENTROID_DEVICE void accumulate_tf32(Output& out, const Scores& w, const ColTile& b) {
    const int l = lane(), g = l / 4, t = l % 4;
#pragma unroll
    for (int k = 0; k < kCols / 8; ++k) {
      const int j = 2 * k;
      const uint32_t x[4] = {detail::to_tf32(w[0][j]), detail::to_tf32(w[1][j]),
                             detail::to_tf32(w[0][j + 1]), detail::to_tf32(w[1][j + 1])};
#pragma unroll
      for (int n = 0; n < W / 8; ++n) {
        const int c = 2 * n + g / 4;
        detail::mma<kRounding>(out[0][2 * n], out[0][2 * n + 1], out[1][2 * n], out[1][2 * n + 1],
                               x, b.chunk(8 * k + 2 * t, c)[g % 4],
                               b.chunk(8 * k + 2 * t + 1, c)[g % 4]);
      }
    }
  }

  /// As FmaTiles::keep. Lanes share what they compute: a Philox block decides about eight keys,
  /// which are eight columns of four lanes, or the rows of eight.
  template <bool kKeyRows>
  static CENTROID_DEVICE unsigned keep(const TileDropout& dropout, int64_t base, int row0,
                                       int col0) {
    const int l = lane(), g = l / 4, t = l % 4;
    unsigned mine = 0, kept = 0;
#pragma unroll 1
    for (int i = 0; i < 2; ++i) {
      // Lane (g, t) does either the warp's keys for column g of t's, or the t-th eight of columns.
      const int64_t query = base + (kKeyRows ? col0 + col(g) : row0 + row(i));
      const int key = kKeyRows ? row0 + warp_row() + 8 * i : col0 + 8 * t;
      mine |= kept_of_eight(dropout, query, key) << 8 * i;
    }
    if constexpr (kKeyRows) {
#pragma unroll
      for (int j = 0; j < kFragCols; ++j) {
        const unsigned bits = __shfl_sync(kFullMask, mine, j * 4 + t) >> g;
        kept |= (bits & 1u) << j | (bits >> 8 & 1u) << (kFragCols + j);
      }
    } else {
#pragma unroll
      for (int n = 0; n < kCols / 8; ++n) {
        const unsigned bits = __shfl_sync(kFullMask, mine, n, 4) >> 2 * t;
        kept |= (bits & 3u) << 2 * n | (bits >> 8 & 3u) << (kFragCols + 2 * n);
      }
    }
    return kept;
  }
};

}  // namespace centroid::cuda
