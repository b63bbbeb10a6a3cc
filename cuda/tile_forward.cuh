#pragma once
// tile_attention of one block of queries, for either arithmetic. Grid: (item, head) x tiles of
// queries. A block walks over the tiles of keys that its queries see, with online softmax; the
// queries, one tile of keys and one of values are in shared memory. While the block multiplies by
// one of the two the other arrives: two barriers per tile.
#include "cuda/tile.cuh"

namespace centroid::cuda {

struct ForwardProblem {
  HeadRows q, k, v;
  Rows4<float> out;  // null: none is wanted
  bool out_aligned;
  float* lse;
  TileMask mask;
  TileDropout dropout;
  float unit;  // scale in units of ln 2
  int heads, tiles;
};

template <typename P>
constexpr size_t forward_shared_bytes() {
  return P::RowTile::kBytes + 2 * P::ColTile::kBytes;
}

namespace detail {

// Maxima and sums of the rows of a thread, in units of ln 2.
template <typename P>
struct OnlineSoftmax {
  float most[P::kFragRows], sum[P::kFragRows];  // sums: of the thread's own columns

  CENTROID_DEVICE OnlineSoftmax() {
#pragma unroll
    for (int i = 0; i < P::kFragRows; ++i) most[i] = -kInf<float>, sum[i] = 0;
  }

  /// Scores become weights 2^(score - most); `shrink` is what earlier weights are multiplied by.
  /// While a row has seen no key, `most` is -inf and its weights are 0.
  CENTROID_DEVICE void add(typename P::Scores& scores, float (&shrink)[P::kFragRows]) {
#pragma unroll
    for (int i = 0; i < P::kFragRows; ++i) {
      float top = scores[i][0];
#pragma unroll
      for (int j = 1; j < P::kFragCols; ++j) top = fmaxf(top, scores[i][j]);
#pragma unroll
      for (int step = P::kRowLanes / 2; step > 0; step /= 2) {
        top = fmaxf(top, __shfl_xor_sync(kFullMask, top, step));
      }
      top = fmaxf(top, most[i]);
      const float shift = top == -kInf<float> ? 0 : top;
      float total = 0;
#pragma unroll
      for (int j = 0; j < P::kFragCols; ++j) {
        scores[i][j] = power_of_two(scores[i][j] - shift);
        total += scores[i][j];
      }
      shrink[i] = power_of_two(most[i] - shift);
      most[i] = top;
      sum[i] = sum[i] * shrink[i] + total;
    }
  }

  /// The sums of whole rows.
  CENTROID_DEVICE void finish() {
#pragma unroll
    for (int i = 0; i < P::kFragRows; ++i) {
#pragma unroll
      for (int step = P::kRowLanes / 2; step > 0; step /= 2) {
        sum[i] += __shfl_xor_sync(kFullMask, sum[i], step);
      }
    }
  }
};

template <typename P>
CENTROID_DEVICE void drop_weights(const TileDropout& dropout, int64_t base, int l0, int s,
                                  typename P::Scores& weights) {
  const unsigned kept = P::template keep<false>(dropout, base, l0, s);
#pragma unroll
  for (int i = 0; i < P::kFragRows; ++i) {
#pragma unroll
    for (int j = 0; j < P::kFragCols; ++j) {
      weights[i][j] = kept >> (i * P::kFragCols + j) & 1u ? weights[i][j] * dropout.scale : 0;
    }
  }
}

// Divides by the sums; a query that saw no key has output 0 and log-sum-exp -inf.
template <typename P>
CENTROID_DEVICE void write_output(const ForwardProblem& a, int b, int h, int l0,
                                  const OnlineSoftmax<P>& softmax, const typename P::Output& out) {
#pragma unroll
  for (int i = 0; i < P::kFragRows; ++i) {
    const int l = l0 + P::row(i);
    if (l >= a.mask.queries) continue;
    const float sum = softmax.sum[i];
    if (threadIdx.x % P::kRowLanes == 0) {
      a.lse[(int64_t{b} * a.heads + h) * a.mask.queries + l] =
          sum == 0 ? -kInf<float> : softmax.most[i] * kLn2 + math::log(sum);
    }
    if (!a.out.data) continue;
    float* row = a.out.at(b, h, l);
#pragma unroll
    for (int j = 0; j < P::kOutCols; j += P::kOutGroup) {
      store_columns<P::kOutGroup>(row, P::out_col(j), a.v.width, a.out_aligned, &out[i][j],
                                  sum == 0 ? 0 : 1 / sum);
    }
  }
}

template <typename P>
__global__ void __launch_bounds__(P::kThreads, P::kMinBlocks)
    forward_kernel(const ForwardProblem a) {
  if constexpr (!P::kAvailable) {
    __trap();
  } else {
    const int bh = static_cast<int>(blockIdx.x / a.tiles), b = bh / a.heads, h = bh % a.heads;
    // The last queries first: of a causal mask they see the most.
    const int l0 = (a.tiles - 1 - static_cast<int>(blockIdx.x % a.tiles)) * P::kRows;
    const int64_t base = int64_t{bh} * a.mask.queries;
    auto* shared = dynamic_shared<unsigned char>();
    using Element = std::remove_pointer_t<decltype(P::RowTile::data)>;
    const typename P::RowTile q{reinterpret_cast<Element*>(shared)};
    typename P::Filler k{{reinterpret_cast<Element*>(shared + P::RowTile::kBytes)}, a.k, b, h, 1};
    typename P::Filler v{
        {reinterpret_cast<Element*>(shared + P::RowTile::kBytes + P::ColTile::kBytes)},
        a.v,
        b,
        h,
        1};
    P::fill(q, a.q.head(b, h), l0, a.unit);
    const Span span = span_of(a.mask, b, l0, P::kRows);
    Range seen[P::kFragRows];
#pragma unroll
    for (int i = 0; i < P::kFragRows; ++i) seen[i] = visible_keys(a.mask, b, l0 + P::row(i));

    OnlineSoftmax<P> softmax;
    typename P::Output out{};
    int s = span.some.begin & ~7;  // eights: see kept_of_eight
    if (s < span.some.end) k.start(s);
    for (; s < span.some.end; s += P::kCols) {
      k.finish();
      __syncthreads();  // the keys are there, and nobody needs the values any more
      if (a.out.data) v.start(s);
      typename P::Scores scores;
      P::multiply(scores, q, k.tile);
      if (!span.all_see(s, P::kCols)) {
#pragma unroll
        for (int i = 0; i < P::kFragRows; ++i) {
#pragma unroll
          for (int j = 0; j < P::kFragCols; ++j) {
            if (!seen[i].has(s + P::col(j))) scores[i][j] = -kInf<float>;
          }
        }
      }
      float shrink[P::kFragRows];
      softmax.add(scores, shrink);
      if (a.out.data) v.finish();
      __syncthreads();  // the values are there, and nobody needs the keys any more
      if (s + P::kCols < span.some.end) k.start(s + P::kCols);
      if (!a.out.data) continue;
      if (a.dropout.active) drop_weights<P>(a.dropout, base, l0, s, scores);
#pragma unroll
      for (int i = 0; i < P::kFragRows; ++i) {
#pragma unroll
        for (int j = 0; j < P::kOutCols; ++j) out[i][j] *= shrink[i];
      }
      P::accumulate(out, scores, v.tile);
    }
    softmax.finish();
    write_output<P>(a, b, h, l0, softmax, out);
  }
}

}  // namespace detail

template <typename P>
void launch_forward(ForwardProblem a, int64_t heads) {
  a.tiles = static_cast<int>(div_up(a.mask.queries, P::kRows));
  launch(detail::forward_kernel<P>, static_cast<unsigned>(heads * a.tiles), P::kThreads,
         forward_shared_bytes<P>(), a);
}

/// On tensor cores (tile_attention_mma.cu).
void tile_forward_mma(const ForwardProblem& a, int64_t heads, MathMode mode);

}  // namespace centroid::cuda
