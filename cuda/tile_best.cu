// The best keys of each query of tile_attention: an exact choice in the order of scores, ties by
// the lower key, from scores that are the CPU's bit by bit (a sum over e in order, by fma).
//
// A warp owns 4 queries, and its lanes the keys of a tile of 64: keys and queries come in pieces of
// 32 numbers through shared memory. Keys arrive in ascending order, so a key matters only if it
// scores above the worst of the list so far. Those that do are collected, in shared memory, until
// they fill a list; then they are sorted and merged with the list, by a bitonic network across the
// lanes. Lists have 32 or 128 places; more keys than that are chosen in rounds, each among the keys
// that come after the last one chosen so far.
#include "cuda/tile.cuh"
#include "cuda/tile_any.cuh"

namespace centroid::cuda {
namespace {

constexpr int kQueries = 4;           // per warp
constexpr int kTileKeys = 2 * kWarp;  // per tile
constexpr int kPiece = 32;            // numbers of a row at a time
constexpr int kNoKey = 0x7fffffff;

template <typename T>
struct BestProblem {
  Rows4<T> q, k;
  T* top_scores;
  int32_t* top_keys;
  TileMask mask;
  T unit;
  int heads, tiles, width, best;
};

template <typename T>
struct Entry {
  T score;
  int key;
  CENTROID_DEVICE bool before(const Entry& other) const {
    return score > other.score || (score == other.score && key < other.key);
  }
};

template <typename T, int kItems, int kWarps>
struct BestShared {
  static constexpr int kList = kItems * kWarp;
  static constexpr int kVector = 16 / sizeof(T);
  // Rows of keys are an odd number of 16-byte chunks long: eight lanes meet all banks.
  __align__(16) T keys[kTileKeys][kPiece + kVector];
  __align__(16) T queries[kWarps * kQueries][kPiece];
  T list_scores[kWarps * kQueries][kList], new_scores[kWarps * kQueries][kList + kWarp];
  int list_keys[kWarps * kQueries][kList], new_keys[kWarps * kQueries][kList + kWarp];
  T least[kWarps * kQueries];         // what a key has to beat
  int count[kWarps * kQueries];       // new ones
  Entry<T> after[kWarps * kQueries];  // the last one chosen in earlier rounds
};

// ---- sorting across a warp: entry n of kItems * 32 is x[n / 32] of lane n % 32 ------------------

template <typename T, int kItems>
CENTROID_DEVICE void compare_exchange(Entry<T> (&x)[kItems], int distance, int run) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int r = 0; r < kItems; ++r) {
    const int n = r * kWarp + lane;
    const bool descending = (n & run) == 0;
    if (distance >= kWarp) {
      const int other = r ^ (distance / kWarp);
      if (other > r && x[other].before(x[r]) == descending) {
        const Entry<T> kept = x[r];
        x[r] = x[other];
        x[other] = kept;
      }
    } else {
      const Entry<T> other{__shfl_xor_sync(kFullMask, x[r].score, distance),
                           __shfl_xor_sync(kFullMask, x[r].key, distance)};
      const bool first = (n & distance) == 0;
      if (other.before(x[r]) == (first == descending)) x[r] = other;
    }
  }
}

/// The best first, from a bitonic sequence.
template <typename T, int kItems>
CENTROID_DEVICE void merge(Entry<T> (&x)[kItems]) {
#pragma unroll
  for (int distance = kItems * kWarp / 2; distance > 0; distance /= 2) {
    compare_exchange(x, distance, kItems * kWarp);
  }
}
/// The best last.
template <typename T, int kItems>
CENTROID_DEVICE void sort_backwards(Entry<T> (&x)[kItems]) {
#pragma unroll
  for (int run = 2; run < kItems * kWarp; run *= 2) {
#pragma unroll
    for (int distance = run / 2; distance > 0; distance /= 2) compare_exchange(x, distance, run);
  }
#pragma unroll
  for (int distance = kItems * kWarp / 2; distance > 0; distance /= 2) {
    compare_exchange(x, distance, 0);
  }
  // The last stage left the best first; entry n is exchanged with entry kItems * 32 - 1 - n.
#pragma unroll
  for (int r = 0; r < (kItems + 1) / 2; ++r) {
    const int mirror = kItems - 1 - r;
    const Entry<T> low = x[r], high = x[mirror];
    x[mirror] = {__shfl_xor_sync(kFullMask, low.score, kWarp - 1),
                 __shfl_xor_sync(kFullMask, low.key, kWarp - 1)};
    x[r] = {__shfl_xor_sync(kFullMask, high.score, kWarp - 1),
            __shfl_xor_sync(kFullMask, high.key, kWarp - 1)};
  }
}

// ---- lists --------------------------------------------------------------------------------------

// Merges the first of a row's new keys, at most a list's length, into its list of `best`. The whole
// warp must call it.
template <typename T, int kItems, int kWarps>
CENTROID_DEVICE void take_in(BestShared<T, kItems, kWarps>& shared, int row, int best) {
  constexpr int kList = kItems * kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, count = shared.count[row];
  Entry<T> x[kItems];
#pragma unroll
  for (int r = 0; r < kItems; ++r) {
    const int n = r * kWarp + lane;
    x[r] = {-kInf<T>, kNoKey};
    if (n < count) x[r] = {shared.new_scores[row][n], shared.new_keys[row][n]};
  }
  sort_backwards(x);
  T least = 0;
#pragma unroll
  for (int r = 0; r < kItems; ++r) {
    // The better of the n-th best and the n-th worst: the best of both lists, a bitonic sequence.
    const int n = r * kWarp + lane;
    const Entry<T> listed{shared.list_scores[row][n], shared.list_keys[row][n]};
    if (listed.before(x[r])) x[r] = listed;
  }
  merge(x);
#pragma unroll
  for (int r = 0; r < kItems; ++r) {
    const int n = r * kWarp + lane;
    shared.list_scores[row][n] = x[r].score;
    shared.list_keys[row][n] = x[r].key;
    if (n == best - 1) least = x[r].score;
  }
  least = __shfl_sync(kFullMask, least, (best - 1) % kWarp);
  // What is left moves to the front; it is fewer than 32.
  const bool left = kList + lane < count;
  Entry<T> rest{};
  if (left) rest = {shared.new_scores[row][kList + lane], shared.new_keys[row][kList + lane]};
  __syncwarp();
  if (left) {
    shared.new_scores[row][lane] = rest.score;
    shared.new_keys[row][lane] = rest.key;
  }
  if (lane == 0) {
    shared.least[row] = least;
    shared.count[row] = max(0, count - kList);
  }
  __syncwarp();
}

// Empties the lists of the warp's queries.
template <typename T, int kItems, int kWarps>
CENTROID_DEVICE void clear(BestShared<T, kItems, kWarps>& shared, int first) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int i = 0; i < kQueries; ++i) {
    for (int n = lane; n < kItems * kWarp; n += kWarp) {
      shared.list_scores[first + i][n] = -kInf<T>;
      shared.list_keys[first + i][n] = kNoKey;
    }
  }
  if (lane < kQueries) {
    shared.least[first + lane] = -kInf<T>;
    shared.count[first + lane] = 0;
  }
  __syncwarp();
}

// Collects those of 32 keys, one per lane, that a row may want.
template <typename T, int kItems, int kWarps>
CENTROID_DEVICE void offer(BestShared<T, kItems, kWarps>& shared, int row, const Entry<T>& entry) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool wanted = entry.score > shared.least[row] && shared.after[row].before(entry);
  const unsigned hits = __ballot_sync(kFullMask, wanted);
  if (hits == 0) return;
  const int count = shared.count[row];
  if (wanted) {
    const int place = count + __popc(hits & ((1u << lane) - 1));
    shared.new_scores[row][place] = entry.score;
    shared.new_keys[row][place] = entry.key;
  }
  __syncwarp();
  if (lane == 0) shared.count[row] = count + __popc(hits);
  __syncwarp();
}

// ---- scores -------------------------------------------------------------------------------------

// Scores of the warp's queries and a tile's keys s0 + lane, s0 + 32 + lane. The whole block must
// call it.
template <typename T, int kItems, int kWarps>
CENTROID_DEVICE void score_tile(BestShared<T, kItems, kWarps>& shared, const BestProblem<T>& p,
                                int b, int h, int l0, int s0, T (&scores)[kQueries][2]) {
  using Vector = std::conditional_t<sizeof(T) == 4, float4, double2>;
  constexpr int kVector = 16 / sizeof(T), kRows = kWarps * kQueries;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first = static_cast<int>(threadIdx.x) / kWarp * kQueries;
#pragma unroll
  for (int i = 0; i < kQueries; ++i) scores[i][0] = scores[i][1] = 0;
  for (int e0 = 0; e0 < p.width; e0 += kPiece) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kTileKeys * kPiece; i += kWarps * kWarp) {
      const int r = i / kPiece, c = i % kPiece;
      const bool there = s0 + r < p.mask.keys && e0 + c < p.width;
      shared.keys[r][c] = there ? p.k.at(b, h, s0 + r)[e0 + c] : 0;
    }
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kPiece; i += kWarps * kWarp) {
      const int r = i / kPiece, c = i % kPiece;
      const bool there = l0 + r < p.mask.queries && e0 + c < p.width;
      shared.queries[r][c] = there ? p.q.at(b, h, l0 + r)[e0 + c] * p.unit : 0;
    }
    __syncthreads();
#pragma unroll 4
    for (int c = 0; c < kPiece; c += kVector) {
      T key[2][kVector];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        *reinterpret_cast<Vector*>(key[j]) =
            *reinterpret_cast<const Vector*>(&shared.keys[lane + j * kWarp][c]);
      }
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        T query[kVector];
        *reinterpret_cast<Vector*>(query) =
            *reinterpret_cast<const Vector*>(&shared.queries[first + i][c]);
#pragma unroll
        for (int n = 0; n < kVector; ++n) {
          scores[i][0] = fma(query[n], key[0][n], scores[i][0]);
          scores[i][1] = fma(query[n], key[1][n], scores[i][1]);
        }
      }
    }
  }
}

template <typename T, int kItems, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp, 1) best_kernel(const BestProblem<T> p) {
  auto& shared = *dynamic_shared<BestShared<T, kItems, kWarps>>();
  constexpr int kRows = kWarps * kQueries, kList = kItems * kWarp;
  const int bh = static_cast<int>(blockIdx.x / p.tiles), b = bh / p.heads, h = bh % p.heads;
  const int l0 = static_cast<int>(blockIdx.x % p.tiles) * kRows;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first = static_cast<int>(threadIdx.x) / kWarp * kQueries;
  const Span span = span_of(p.mask, b, l0, kRows);
  Range seen[kQueries];
#pragma unroll
  for (int i = 0; i < kQueries; ++i) seen[i] = visible_keys(p.mask, b, l0 + first + i);
  if (lane < kQueries) shared.after[first + lane] = {kInf<T>, -1};
  for (int done = 0; done < p.best; done += kList) {
    const int best = min(kList, p.best - done);
    clear(shared, first);
    for (int s0 = span.some.begin; s0 < span.some.end; s0 += kTileKeys) {
      T scores[kQueries][2];
      score_tile(shared, p, b, h, l0, s0, scores);
#pragma unroll 1
      for (int j = 0; j < 2; ++j) {
        const int s = s0 + j * kWarp + lane;
#pragma unroll
        for (int i = 0; i < kQueries; ++i) {
          // -0 and 0 are equal; what is hidden beats nothing.
          const T score = (j == 0 ? scores[i][0] : scores[i][1]) + T(0);
          offer(shared, first + i, {seen[i].has(s) ? score : -kInf<T>, s});
        }
#pragma unroll 1
        for (int i = 0; i < kQueries; ++i) {
          if (shared.count[first + i] >= kList) take_in(shared, first + i, best);
        }
      }
    }
#pragma unroll 1
    for (int i = 0; i < kQueries; ++i) {
      const int row = first + i, l = l0 + row;
      take_in(shared, row, best);
      if (lane == 0) {
        shared.after[row] = {shared.list_scores[row][best - 1], shared.list_keys[row][best - 1]};
      }
      const int64_t at = (int64_t{bh} * p.mask.queries + l) * p.best + done;
      for (int n = lane; n < best && l < p.mask.queries; n += kWarp) {
        const int key = shared.list_keys[row][n];
        p.top_scores[at + n] = shared.list_scores[row][n] * static_cast<T>(0.6931471805599453);
        p.top_keys[at + n] = key == kNoKey ? -1 : key;
      }
    }
    __syncwarp();
  }
}

template <typename T, int kItems, int kWarps>
void run(const Tensor& q, const Tensor& k, const KeyMask& mask, double scale,
         const Tensor& top_scores, const Tensor& top_keys) {
  const auto tiles = static_cast<int>(div_up(q.size(2), kWarps * kQueries));
  const BestProblem<T> p{rows4<T>(q),
                         rows4<T>(k),
                         top_scores.data<T>(),
                         top_keys.data<int32_t>(),
                         tile_mask(mask, q, k),
                         static_cast<T>(scale * 1.4426950408889634),
                         static_cast<int>(q.size(1)),
                         tiles,
                         static_cast<int>(q.size(3)),
                         static_cast<int>(top_keys.size(3))};
  launch(best_kernel<T, kItems, kWarps>, static_cast<unsigned>(q.size(0) * q.size(1) * tiles),
         kWarps * kWarp, sizeof(BestShared<T, kItems, kWarps>), p);
}

}  // namespace

void tile_best(const Tensor& q, const Tensor& k, const KeyMask& mask, double scale,
               const Tensor& top_scores, const Tensor& top_keys) {
  if (q.dtype() == DType::f64) return run<double, 1, 4>(q, k, mask, scale, top_scores, top_keys);
  if (top_keys.size(3) <= kWarp) return run<float, 1, 8>(q, k, mask, scale, top_scores, top_keys);
  run<float, 4, 4>(q, k, mask, scale, top_scores, top_keys);
}

}  // namespace centroid::cuda
