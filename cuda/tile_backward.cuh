#pragma once
// Gradients of tile_attention of one tile of rows, for either arithmetic, by recomputing the
// weights tile by tile. With P the weights, M the dropout factors, O = (P M) V and a = scale:
//   dV = (P M)^T dO,   dP = M (dO V^T),   dS = P (dP - delta),   dQ = a dS K,   dK = a dS^T Q
// where delta_l = dO_l . O_l, less the gradient of lse_l.
//
// One kernel serves twice. With queries as rows a block owns a tile of dQ and walks over keys; with
// keys as rows it owns a tile of dK and dV - or one of them, where registers do not hold both - and
// walks over queries: no two blocks add to one number.
// The block's tiles of (Q, dO) or (K, V), and one tile each of the other two, are in shared memory.
// Products alternate between the walking two, so that one arrives while the other is in use.
#include "cuda/tile.cuh"

namespace centroid::cuda {

struct BackwardProblem {
  HeadRows q, k, v, dout;
  const float* log_sums;  // (B, H, L) in units of ln 2; +inf for queries without keys
  const float* deltas;    // (B, H, L)
  Rows4<float> dq, dk, dv;
  bool dq_aligned, dk_aligned, dv_aligned;
  TileMask mask;
  TileDropout dropout;
  float scale, unit;  // unit = scale in units of ln 2
  int heads, tiles;
};

namespace detail {

// What weights need to know of their query.
struct Query {
  float log_sum, delta;
  Range seen;
};
CENTROID_DEVICE Query query_of(const BackwardProblem& a, int b, int64_t base, int l) {
  // An infinite log-sum makes all weights of a row 0.
  if (l >= a.mask.queries) return {kInf<float>, 0, {}};
  return {a.log_sums[base + l], a.deltas[base + l], visible_keys(a.mask, b, l)};
}

}  // namespace detail

/// What a kernel computes.
enum class Gradients { q, k, v, kv };

template <typename P, bool kKeyRows>
constexpr size_t backward_shared_bytes() {
  return 2 * P::RowTile::kBytes + 2 * P::ColTile::kBytes +
         (kKeyRows ? P::kCols * sizeof(detail::Query) : 0);
}

namespace detail {

// The queries that see any key of [s0, s0 + n): nobody outside the range does. `shared` holds two
// integers per warp and is free after the next barrier.
template <int kBlock>
CENTROID_DEVICE Range queries_that_see(const TileMask& mask, int b, int s0, int n, int* shared) {
  Range some{mask.queries, 0};
  for (int l = static_cast<int>(threadIdx.x); l < mask.queries; l += kBlock) {
    const Range seen = visible_keys(mask, b, l);
    if (max(seen.begin, s0) >= min(seen.end, s0 + n)) continue;
    some = {min(some.begin, l), max(some.end, l + 1)};
  }
  const int begin = block_reduce<kBlock>(some.begin, Least{}, shared);
  return {begin, block_reduce<kBlock>(some.end, Greatest{}, shared + kBlock / kWarp)};
}

// scores = q k^T in units of ln 2, dweights = dO V^T  ->  weights = P M, dscores = dS, in place.
template <typename P, bool kKeyRows, typename QueryOf>
CENTROID_DEVICE void weigh(const TileDropout& dropout, int64_t base, int row0, int col0,
                           const QueryOf& query_at, typename P::Scores& scores,
                           typename P::Scores& dweights) {
  const unsigned kept = dropout.active ? P::template keep<kKeyRows>(dropout, base, row0, col0) : 0;
#pragma unroll
  for (int j = 0; j < P::kFragCols; ++j) {
#pragma unroll
    for (int i = 0; i < P::kFragRows; ++i) {
      const Query query = query_at(i, j);
      const int key = kKeyRows ? row0 + P::row(i) : col0 + P::col(j);
      const float weight = query.seen.has(key) ? power_of_two(scores[i][j] - query.log_sum) : 0;
      const float factor = !dropout.active                       ? 1
                           : kept >> (i * P::kFragCols + j) & 1u ? dropout.scale
                                                                 : 0;
      scores[i][j] = weight * factor;
      dweights[i][j] = weight * (dweights[i][j] * factor - query.delta);
    }
  }
}

template <typename P>
CENTROID_DEVICE void write_gradient(const Rows4<float>& to, bool aligned, int width, int b, int h,
                                    int first, int count, float factor,
                                    const typename P::Output& x) {
  if (!to.data) return;
#pragma unroll
  for (int i = 0; i < P::kFragRows; ++i) {
    if (first + P::row(i) >= count) continue;
    float* row = to.at(b, h, first + P::row(i));
#pragma unroll
    for (int j = 0; j < P::kOutCols; j += P::kOutGroup) {
      store_columns<P::kOutGroup>(row, P::out_col(j), width, aligned, &x[i][j], factor);
    }
  }
}

// The tiles of one block: a0 b0^T are scores, a1 b1^T gradients of weights.
template <typename P, bool kKeyRows>
struct BackwardTiles {
  using Element = std::remove_pointer_t<decltype(P::RowTile::data)>;
  typename P::RowTile a0, a1;
  typename P::Filler b0, b1;
  Query* queries;  // of the walking tile, where queries are columns

  CENTROID_DEVICE BackwardTiles(const BackwardProblem& a, int b, int h)
      : a0{part(0)},
        a1{part(P::RowTile::kBytes)},
        b0{{part(2 * P::RowTile::kBytes)}, kKeyRows ? a.q : a.k, b, h, kKeyRows ? a.unit : 1},
        b1{{part(2 * P::RowTile::kBytes + P::ColTile::kBytes)}, kKeyRows ? a.dout : a.v, b, h, 1},
        queries(reinterpret_cast<Query*>(part(2 * P::RowTile::kBytes + 2 * P::ColTile::kBytes))) {}
  static CENTROID_DEVICE Element* part(size_t offset) {
    return reinterpret_cast<Element*>(dynamic_shared<unsigned char>() + offset);
  }
};

template <typename P, Gradients kOf>
__global__ void __launch_bounds__(P::kThreads,
                                  kOf == Gradients::kv ? P::kMinBlocksTwo : P::kMinBlocks)
    backward_kernel(const BackwardProblem a) {
  constexpr bool kKeyRows = kOf != Gradients::q, kFirst = kOf != Gradients::v;
  constexpr bool kSecond = kOf == Gradients::v || kOf == Gradients::kv;
  if constexpr (!P::kAvailable) {
    __trap();
  } else {
    const int bh = static_cast<int>(blockIdx.x / a.tiles), b = bh / a.heads, h = bh % a.heads;
    const int tile = static_cast<int>(blockIdx.x % a.tiles);
    // First what sees the most under a causal mask: the last queries, or the first keys.
    const int row0 = (kKeyRows ? tile : a.tiles - 1 - tile) * P::kRows;
    const int64_t base = int64_t{bh} * a.mask.queries;
    BackwardTiles<P, kKeyRows> t(a, b, h);
    Range walk;
    Query mine[kKeyRows ? 1 : P::kFragRows];
    if constexpr (kKeyRows) {
      walk = queries_that_see<P::kThreads>(a.mask, b, row0, P::kRows,
                                           reinterpret_cast<int*>(t.a0.data));
      __syncthreads();
    } else {
      walk = span_of(a.mask, b, row0, P::kRows).some;
      walk.begin &= ~7;  // eights: see kept_of_eight
#pragma unroll
      for (int i = 0; i < P::kFragRows; ++i) mine[i] = query_of(a, b, base, row0 + P::row(i));
    }
    P::fill(t.a0, (kKeyRows ? a.k : a.q).head(b, h), row0, kKeyRows ? 1 : a.unit);
    P::fill(t.a1, (kKeyRows ? a.v : a.dout).head(b, h), row0, 1);

    typename P::Output out0{}, out1{};  // dQ, or dK and dV
    if (walk.begin < walk.end) t.b1.start(walk.begin);
    for (int col0 = walk.begin; col0 < walk.end; col0 += P::kCols) {
      t.b1.finish();
      if (kKeyRows && threadIdx.x < P::kCols) {
        t.queries[threadIdx.x] = query_of(a, b, base, col0 + static_cast<int>(threadIdx.x));
      }
      __syncthreads();  // b1 and the queries are there, b0 is free
      t.b0.start(col0);
      typename P::Scores scores, dweights{};
      if constexpr (kFirst) P::multiply(dweights, t.a1, t.b1.tile);
      t.b0.finish();
      __syncthreads();  // b0 is there
      P::multiply(scores, t.a0, t.b0.tile);
      weigh<P, kKeyRows>(
          a.dropout, base, row0, col0,
          [&](int i, int j) { return kKeyRows ? t.queries[P::col(j)] : mine[kKeyRows ? 0 : i]; },
          scores, dweights);
      if constexpr (kSecond) P::accumulate(out1, scores, t.b1.tile);
      if constexpr (kKeyRows) __syncthreads();  // b1 is free, and so are the queries
      if (col0 + P::kCols < walk.end) t.b1.start(col0 + P::kCols);
      if constexpr (kFirst) P::accumulate(out0, dweights, t.b0.tile);
    }
    if constexpr (kKeyRows) {
      // Q had been multiplied by scale / ln 2.
      if constexpr (kFirst)
        write_gradient<P>(a.dk, a.dk_aligned, a.k.width, b, h, row0, a.mask.keys, kLn2, out0);
      if constexpr (kSecond)
        write_gradient<P>(a.dv, a.dv_aligned, a.v.width, b, h, row0, a.mask.keys, 1, out1);
    } else {
      write_gradient<P>(a.dq, a.dq_aligned, a.q.width, b, h, row0, a.mask.queries, a.scale, out0);
    }
  }
}

}  // namespace detail

template <typename P, Gradients kOf>
void launch_backward(BackwardProblem a, int64_t heads) {
  constexpr bool kKeyRows = kOf != Gradients::q;
  a.tiles = static_cast<int>(div_up(kKeyRows ? a.mask.keys : a.mask.queries, P::kRows));
  launch(detail::backward_kernel<P, kOf>, static_cast<unsigned>(heads * a.tiles), P::kThreads,
         backward_shared_bytes<P, kKeyRows>(), a);
}
/// The kernels for the gradients that are wanted.
template <typename P>
void launch_backward(const BackwardProblem& a, int64_t heads) {
  if (a.dq.data) launch_backward<P, Gradients::q>(a, heads);
  if constexpr (P::kTwoResults) {
    if (a.dk.data || a.dv.data) launch_backward<P, Gradients::kv>(a, heads);
  } else {
    if (a.dk.data) launch_backward<P, Gradients::k>(a, heads);
    if (a.dv.data) launch_backward<P, Gradients::v>(a, heads);
  }
}

/// On tensor cores (tile_backward_mma.cu).
void tile_backward_mma(const BackwardProblem& a, int64_t heads, MathMode mode);

}  // namespace centroid::cuda
