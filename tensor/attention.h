#pragma once
// Arguments that the fused attention kernels share.
#include "tensor/rng.h"
#include "tensor/tensor.h"

namespace centroid {

/// Which keys a query sees, without a matrix: query l of item b sees key s iff l < q_lengths[b],
/// s < k_lengths[b] and begin[l] <= s < end[l]. What is undefined does not restrict.
struct KeyMask {
  Tensor q_lengths, k_lengths;  ///< (B) i64
  Tensor begin, end;            ///< (L) i32; causal is end[l] = l + 1
};

/// Dropout of attention weights: weight (b, h, l, s) is kept iff `raw::dropout` with this state
/// would keep element (b, h, l, s) of a (B, H, L, S) tensor.
struct WeightDropout {
  double p = 0;
  RngState state{};
};

/// What attention returns.
struct Attended {
  Tensor out, lse;              ///< (B, H, L, D), (B, H, L)
  Tensor top_scores, top_keys;  ///< (B, H, L, best), if asked for: scaled scores, and keys as i32
  Tensor extra_out, extra_lse;  ///< of the groups' extra queries, (B, H, G, D), (B, H, G)
};

/// Lists of queries and keys: the queries order[b, h, offsets[b, h, g] .. offsets[b, h, g + 1])
/// form group g, and all of them attend to the keys keys[b, h, g, :] alone.
struct Groups {
  Tensor order;    ///< (B, H, L) i32
  Tensor offsets;  ///< (B, H, G + 1) i32
  Tensor keys;     ///< (B, H, G, M) i32, -1 where there is none
  int64_t count() const { return offsets.size(2) - 1; }
};

/// Which keys on its list a grouped query sees.
enum class KeyRule {
  all,         ///< sees all of them
  not_itself,  ///< not the key at its own position, unless there is no other
};

// ---- clusters -----------------------------------------------------------------------------------

struct ClusterOptions {
  double clusters = 100;    ///< per (item, head); below 1: a fraction of the item's length
  int64_t bits = 63;        ///< of the hash, 1 to 64
  int64_t iterations = 10;  ///< assignments of k-means, at least 1
  bool bias = true;         ///< planes off the origin: near in Euclidean distance, else in angle
};

/// Queries in clusters. Everything is on the queries' device.
struct Clusters {
  Tensor labels;          ///< (B, H, L) i32: the cluster of each query, -1 beyond the lengths
  Tensor order, offsets;  ///< as in Groups
  Tensor codes;           ///< (B, H, L) i64: hash codes; undefined when made from labels
  Tensor centroids;       ///< (B, H, K) i64: the clusters' codes; undefined when made from labels
  int64_t count() const { return offsets.size(2) - 1; }  ///< K, of the item with the most
  Tensor counts() const;                                 ///< (B, H, K) i32: members of each cluster
};

/// Clusters that know the past only, for blocks of `block` queries: `seen` groups the queries of
/// block t + 1 by the nearest of the clusters learnt from blocks 0..t, as group t K + cluster;
/// `joined` holds, as t K + cluster, the cluster that each query of block t joined. K is
/// options.clusters.
struct PastClusters {
  Clusters seen, joined;
};

/// What a k-means over a growing past has learnt of it, for going on block by block.
struct GrowingMeans {
  Tensor centroids;  ///< (B, H, K) i64, codes
  Tensor counts;     ///< (B, H, K, 65) i32: set bits; members last
};

}  // namespace centroid
