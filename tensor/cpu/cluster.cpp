// Clustering of queries: sign hashing, k-means on the codes, counting sort, and sums over groups.
#include <algorithm>
#include <numeric>
#include <vector>

#include "tensor/cpu/attention/visible.h"
#include "tensor/cpu/rows.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kBits = 64;
constexpr int64_t kHashRows = 96;  // per task
constexpr int64_t kAhead = 4;      // rows that are asked for in advance

// ---- hashing ------------------------------------------------------------------------------------

template <typename T>
void hash_rows(const Rows<const T>& x, int64_t rows, int64_t width, const T* planes, const T* bias,
               int64_t* codes) {
  alignas(64) T projected[kHashRows * kBits];
  multiply<T>(rows, kBits, width, x.data, x.stride, 1, planes, kBits, projected, kBits, false,
              x.ahead(detail::kRows, rows, width));
  for (int64_t r = 0; r < rows; ++r) {
    uint64_t code = 0;
    for (int64_t i = 0; i < kBits; i += kLanes<T>) {
      const auto above = simd::load(projected + r * kBits + i) > simd::load(bias + i);
      code |= simd::mask_bits(above) << i;
    }
    codes[r] = static_cast<int64_t>(code);
  }
}

// ---- k-means ------------------------------------------------------------------------------------

// Counts of ones per bit, then of members, change by `sign` for a code that comes or goes.
void count_code(uint64_t code, int32_t sign, int32_t* counts) {
  simd::Vector<int32_t> bit;
  for (int l = 0; l < kLanes<int32_t>; ++l) bit[l] = 1 << l;
  for (int64_t b = 0; b < kBits; b += kLanes<int32_t>) {
    const auto ones = (static_cast<int32_t>(code >> b) & bit) != 0;  // -1 where the bit is set
    simd::store(counts + b, simd::load(counts + b) - ones * sign);
  }
  counts[kBits] += sign;
}

// The code whose bits are set where more than half of the members have them.
uint64_t majority(const int32_t* ones, int32_t members) {
  uint64_t code = 0;
  for (int64_t b = 0; b < kBits; b += kLanes<int32_t>) {
    const auto above = simd::load(ones + b) * 2 > members;
    code |= simd::mask_bits(above) << b;
  }
  return code;
}

// Distance and cluster in one number: the least one is the nearest, ties to the lower cluster.
constexpr int kDistanceShift = 32;
uint64_t key_of(uint64_t code, uint64_t centroid, uint64_t cluster) {
  return static_cast<uint64_t>(__builtin_popcountll(code ^ centroid)) << kDistanceShift | cluster;
}

struct Centroids {
  std::vector<uint64_t> codes, clusters;
  void add(uint64_t code, int64_t cluster) {
    codes.push_back(code);
    clusters.push_back(static_cast<uint64_t>(cluster));
  }
};

// Those that have just moved, at first all, and the others.
struct Moves {
  Centroids moved, still;
  bool none() const { return moved.codes.empty(); }
  void find(const std::vector<uint64_t>& before, const uint64_t* now, int64_t clusters) {
    for (Centroids* c : {&moved, &still}) c->codes.clear(), c->clusters.clear();
    for (int64_t c = 0; c < clusters; ++c) {
      (!before.empty() && before[c] == now[c] ? still : moved).add(now[c], c);
    }
  }
};

// Lowers the keys of n codes to those of the nearest of some centroids, four vectors at a time.
void lower_keys(const uint64_t* codes, int64_t n, const Centroids& some, uint64_t* keys) {
  using Vec = simd::Vector<uint64_t>;
  constexpr int64_t kVectors = 4, kLane = kLanes<uint64_t>, kBlock = kVectors * kLane;
  if (some.codes.empty()) return;
  for (int64_t i = 0; i < n; i += kBlock) {
    alignas(64) uint64_t code[kBlock] = {}, key[kBlock] = {};
    const size_t bytes = std::min(kBlock, n - i) * sizeof(uint64_t);
    std::memcpy(code, codes + i, bytes);
    std::memcpy(key, keys + i, bytes);
    Vec x[kVectors], best[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      x[v] = simd::load(code + v * kLane);
      best[v] = simd::load(key + v * kLane);
    }
    for (size_t c = 0; c < some.codes.size(); ++c) {
      const Vec centroid = Vec{} + some.codes[c], cluster = Vec{} + some.clusters[c];
      for (int v = 0; v < kVectors; ++v) {
        const Vec next = simd::popcount(x[v] ^ centroid) << kDistanceShift | cluster;
        best[v] = next < best[v] ? next : best[v];
      }
    }
    for (int v = 0; v < kVectors; ++v) simd::store(key + v * kLane, best[v]);
    std::memcpy(keys + i, key, bytes);
  }
}

// Codes, the key of the nearest centroid of each (at first the largest number) and its cluster (at
// first -1), and what the members of each cluster count together: (clusters, kBits + 1).
struct Members {
  const uint64_t* codes;
  int64_t n;
  uint64_t* keys;
  int32_t *labels, *counts;

  // After moves of the `centroids`. A code that is no farther from its own than before need only
  // look at the moved ones: to the others it is still farther.
  void follow(const uint64_t* centroids, const Moves& moves) const {
    constexpr int64_t kStretch = 512;
    uint64_t code[kStretch], key[kStretch];
    int64_t farther[kStretch];
    for (int64_t begin = 0; begin < n; begin += kStretch) {
      const int64_t end = std::min(n, begin + kStretch);
      int64_t count = 0;
      for (int64_t i = begin; i < end; ++i) {
        if (labels[i] < 0) continue;
        const uint64_t own = key_of(codes[i], centroids[labels[i]], labels[i]);
        farther[count] = i;
        count += own > keys[i];
        keys[i] = own;
      }
      lower_keys(codes + begin, end - begin, moves.moved, keys + begin);
      for (int64_t j = 0; j < count; ++j) code[j] = codes[farther[j]], key[j] = keys[farther[j]];
      lower_keys(code, count, moves.still, key);
      for (int64_t j = 0; j < count; ++j) keys[farther[j]] = key[j];
      for (int64_t i = begin; i < end; ++i) join(i, static_cast<int32_t>(keys[i]));
    }
  }

 private:
  void join(int64_t i, int32_t label) const {
    if (label == labels[i]) return;
    if (labels[i] >= 0) count_code(codes[i], -1, counts + labels[i] * (kBits + 1));
    count_code(codes[i], 1, counts + label * (kBits + 1));
    labels[i] = label;
  }
};

struct KMeans {
  const Tensor &codes, &lengths, &clusters, &counts, &centroids, &labels;
  int64_t heads = codes.size(1), positions = codes.size(2), most = centroids.size(2);
  int64_t items = codes.size(0) * heads;
  int64_t parts = counts.size(2), part_size = (positions + parts - 1) / parts;
  Scratch<uint64_t> keys{items * positions};
  std::vector<Moves> moves = std::vector<Moves>(items);

  int64_t valid(int64_t bh) const { return lengths.data<int64_t>()[bh / heads]; }
  int64_t wanted(int64_t bh) const { return clusters.data<int64_t>()[bh / heads]; }
  const uint64_t* codes_of(int64_t bh) const {
    return reinterpret_cast<const uint64_t*>(codes.data<int64_t>()) + bh * positions;
  }
  uint64_t* centroids_of(int64_t bh) const {
    return reinterpret_cast<uint64_t*>(centroids.data<int64_t>()) + bh * most;
  }
  int32_t* labels_of(int64_t bh) const { return labels.data<int32_t>() + bh * positions; }
  int32_t* counts_of(int64_t bh, int64_t part) const {
    return counts.data<int32_t>() + (bh * parts + part) * most * (kBits + 1);
  }

  // Evenly spaced codes as centroids, labels -1; nothing moves where each code is a cluster.
  void start(int64_t bh) {
    const int64_t n = valid(bh), k = std::min(wanted(bh), n);
    int32_t* label = labels_of(bh);
    const bool each_its_own = k == n;
    for (int64_t c = 0; c < most; ++c) centroids_of(bh)[c] = c < k ? codes_of(bh)[c * n / k] : 0;
    if (!each_its_own) moves[bh].find({}, centroids_of(bh), k);
    for (int64_t l = 0; l < positions; ++l) {
      label[l] = each_its_own && l < n ? static_cast<int32_t>(l) : -1;
    }
    std::fill_n(counts_of(bh, 0), parts * most * (kBits + 1), 0);
    std::fill_n(keys + bh * positions, positions, ~uint64_t{0});
  }

  void assign(int64_t bh, int64_t part) {
    const int64_t begin = part * part_size, end = std::min(valid(bh), begin + part_size);
    if (moves[bh].none() || begin >= end) return;
    const Members members{codes_of(bh) + begin, end - begin, keys + bh * positions + begin,
                          labels_of(bh) + begin, counts_of(bh, part)};
    members.follow(centroids_of(bh), moves[bh]);
  }

  // Majority votes.
  void update(int64_t bh) {
    if (moves[bh].none()) return;
    const int64_t k = wanted(bh);
    uint64_t* centroid = centroids_of(bh);
    const std::vector<uint64_t> before(centroid, centroid + k);
    std::vector<int64_t> empty;
    for (int64_t c = 0; c < k; ++c) {
      int32_t ones[kBits + 1] = {};
      for (int64_t p = 0; p < parts; ++p) {
        const int32_t* from = counts_of(bh, p) + c * (kBits + 1);
        for (int64_t b = 0; b <= kBits; ++b) ones[b] += from[b];
      }
      if (ones[kBits] > 0) {
        centroid[c] = majority(ones, ones[kBits]);
      } else {
        empty.push_back(c);
      }
    }
    if (!empty.empty()) refill(bh, empty);
    moves[bh].find(before, centroid, k);
  }

  // Empty clusters move to the codes farthest from their own centroid, as long as there are any
  // that differ from it.
  void refill(int64_t bh, const std::vector<int64_t>& empty) const {
    std::vector<std::pair<int, int64_t>> far;
    for (int64_t l = 0; l < valid(bh); ++l) {
      const uint64_t centroid = centroids_of(bh)[labels_of(bh)[l]];
      const int distance = __builtin_popcountll(codes_of(bh)[l] ^ centroid);
      if (distance > 0) far.emplace_back(-distance, l);
    }
    const size_t n = std::min(far.size(), empty.size());
    std::partial_sort(far.begin(), far.begin() + n, far.end());
    for (size_t i = 0; i < n; ++i) {
      centroids_of(bh)[empty[i]] = codes_of(bh)[far[i].second];
    }
  }
};

// ---- clusters of the past -----------------------------------------------------------------------

// K-means over a growing prefix of one (item, head): block after block, the new codes are assigned
// and counted on top of all earlier ones, whose labels stay.
class GrowingKMeans {
 public:
  // What was learnt before, and is added to: centroids (K) and counts (K, kBits + 1).
  GrowingKMeans(int64_t clusters, int64_t* centroids, int32_t* counts)
      : clusters_(clusters), centroids_(reinterpret_cast<uint64_t*>(centroids)), ones_(counts) {}

  // The nearest cluster that has members; -1 for all while there is none.
  void assign(const uint64_t* codes, int64_t n, int32_t* labels) const {
    Centroids alive;
    for (int64_t c = 0; c < clusters_; ++c) {
      if (members(c) > 0) alive.add(centroids_[c], c);
    }
    std::vector<uint64_t> keys(n, ~uint64_t{0});
    lower_keys(codes, n, alive, keys.data());
    for (int64_t l = 0; l < n; ++l) labels[l] = static_cast<int32_t>(keys[l]);
  }

  // Learns n more codes; `labels` receives the clusters they joined. Clusters without members start
  // from evenly spaced new codes; if there are more of them than codes, the others from code 0.
  void learn(const uint64_t* codes, int64_t n, int64_t iterations, int32_t* labels) {
    std::vector<int64_t> empty;
    for (int64_t c = 0; c < clusters_; ++c) {
      if (members(c) == 0) empty.push_back(c);
    }
    const int64_t fresh = std::min<int64_t>(n, static_cast<int64_t>(empty.size()));
    for (int64_t i = 0; i < fresh; ++i) centroids_[empty[i]] = codes[i * n / fresh];
    std::vector<uint64_t> keys(n, ~uint64_t{0});
    std::vector<int32_t> counts(clusters_ * (kBits + 1));
    std::fill_n(labels, n, -1);
    const Members joining{codes, n, keys.data(), labels, counts.data()};
    Moves moves;
    moves.find({}, centroids_, clusters_);
    for (int64_t step = 1; step <= iterations && !moves.none(); ++step) {
      joining.follow(centroids_, moves);
      if (step < iterations) vote(counts, moves);
    }
    for (size_t i = 0; i < counts.size(); ++i) ones_[i] += counts[i];
  }

 private:
  int32_t members(int64_t c) const { return ones_[c * (kBits + 1) + kBits]; }

  void vote(const std::vector<int32_t>& counts, Moves& moves) {
    const std::vector<uint64_t> before(centroids_, centroids_ + clusters_);
    for (int64_t c = 0; c < clusters_; ++c) {
      int32_t ones[kBits + 1];
      const int64_t at = c * (kBits + 1);
      for (int64_t b = 0; b <= kBits; ++b) ones[b] = ones_[at + b] + counts[at + b];
      if (ones[kBits] > 0) centroids_[c] = majority(ones, ones[kBits]);
    }
    moves.find(before, centroids_, clusters_);
  }

  int64_t clusters_;
  uint64_t* centroids_;
  int32_t* ones_;  // as the counts of Members
};

}  // namespace

void hash_codes(const Tensor& x, const Tensor& planes, const Tensor& bias, const Tensor& lengths,
                const Tensor& codes) {
  const int64_t heads = x.size(1), n = x.size(2), width = x.size(3);
  const int64_t chunks = (n + kHashRows - 1) / kHashRows;
  dispatch_float(x.dtype(), "hash_codes", [&]<typename T>() {
    parallel_for(0, x.size(0) * heads * chunks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t bh = i / chunks, l0 = i % chunks * kHashRows;
        const int64_t valid = lengths.defined() ? lengths.data<int64_t>()[bh / heads] : n;
        const int64_t all = std::min(kHashRows, n - l0);
        const int64_t rows = std::clamp<int64_t>(valid - l0, 0, all);
        int64_t* to = codes.data<int64_t>() + bh * n + l0;
        Rows<const T> from(x, bh);
        from.data = from[l0];
        hash_rows<T>(from, rows, width, planes.data<T>(), bias.data<T>(), to);
        std::fill(to + rows, to + all, 0);
      }
    });
  });
}

void hamming_kmeans(const Tensor& codes, const Tensor& lengths, const Tensor& clusters,
                    int64_t iterations, const Tensor& counts, const Tensor& centroids,
                    const Tensor& labels) {
  KMeans means{codes, lengths, clusters, counts, centroids, labels};
  const auto each_item = [&](void (KMeans::*f)(int64_t)) {
    parallel_for(0, means.items, 1, [&](int64_t begin, int64_t end) {
      for (int64_t bh = begin; bh < end; ++bh) (means.*f)(bh);
    });
  };
  each_item(&KMeans::start);
  for (int64_t step = 1; step <= iterations; ++step) {
    parallel_for(0, means.items * means.parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) means.assign(i / means.parts, i % means.parts);
    });
    if (step < iterations) each_item(&KMeans::update);
  }
}

void hamming_kmeans_past(const Tensor& codes, const Tensor& lengths, int64_t block,
                         int64_t clusters, int64_t iterations, const Tensor& labels,
                         const Tensor& past_labels, const Tensor& centroids, const Tensor& counts) {
  const int64_t heads = codes.size(1), n = codes.size(2);
  parallel_for(0, codes.size(0) * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t bh = begin; bh < end; ++bh) {
      const int64_t valid = lengths.data<int64_t>()[bh / heads];
      const uint64_t* code = reinterpret_cast<const uint64_t*>(codes.data<int64_t>()) + bh * n;
      int32_t* joined = labels.data<int32_t>() + bh * n;
      int32_t* past = past_labels.data<int32_t>() + bh * n;
      GrowingKMeans means(clusters, centroids.data<int64_t>() + bh * clusters,
                          counts.data<int32_t>() + bh * clusters * (kBits + 1));
      for (int64_t l0 = 0, t = 0; l0 < valid; l0 += block, ++t) {
        const int64_t m = std::min(block, valid - l0);
        means.assign(code + l0, m, past + l0);
        for (int64_t l = l0; l < l0 + m && t > 0; ++l) {
          past[l] += static_cast<int32_t>((t - 1) * clusters);
        }
        if (iterations == 0) continue;
        means.learn(code + l0, m, iterations, joined + l0);
        for (int64_t l = l0; l < l0 + m; ++l) joined[l] += static_cast<int32_t>(t * clusters);
      }
      if (iterations > 0) std::fill(joined + valid, joined + n, -1);
      std::fill(past + valid, past + n, -1);
    }
  });
}

void group_by_label(const Tensor& labels, const Tensor& order, const Tensor& offsets) {
  const int64_t n = labels.size(2), groups = offsets.size(2) - 1;
  parallel_for(0, labels.size(0) * labels.size(1), 1, [&](int64_t begin, int64_t end) {
    for (int64_t bh = begin; bh < end; ++bh) {
      const int32_t* label = labels.data<int32_t>() + bh * n;
      int32_t* sorted = order.data<int32_t>() + bh * n;
      int32_t* offset = offsets.data<int32_t>() + bh * (groups + 1);
      std::vector<int32_t> next(groups + 2, 0);  // of label g at g + 1, those without at the end
      const auto slot = [&](int32_t g) { return g < 0 ? groups : g; };
      for (int64_t l = 0; l < n; ++l) ++next[slot(label[l]) + 1];
      std::partial_sum(next.begin(), next.end(), next.begin());
      std::copy_n(next.begin(), groups + 1, offset);
      for (int64_t l = 0; l < n; ++l) sorted[next[slot(label[l])]++] = static_cast<int32_t>(l);
    }
  });
}

void group_sum(const Tensor& x, const Tensor& order, const Tensor& offsets, bool mean,
               const Tensor& y) {
  const int64_t n = x.size(2), width = x.size(3), groups = offsets.size(2) - 1;
  const int64_t items = x.size(0) * x.size(1);
  const int32_t* all_offsets = offsets.data<int32_t>();
  const int32_t* members = order.data<int32_t>();
  dispatch_float(x.dtype(), "group_sum", [&]<typename T>() {
    const std::vector<Rows<const T>> rows_of = all_rows<const T>(x);
    T* sums = y.data<T>();
    parallel_for(0, items * groups, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t bh = i / groups;
        const int32_t* offset = all_offsets + bh * (groups + 1) + i % groups;
        T* __restrict to = sums + i * width;
        std::fill_n(to, width, T(0));
        const int32_t* member = members + bh * n;
        const Rows<const T> rows = rows_of[bh];
        for (int32_t j = offset[0]; j < offset[1]; ++j) {
          if (j + kAhead < n) prefetch_row(rows[member[j + kAhead]], width);
          const T* __restrict from = rows[member[j]];
          for (int64_t e = 0; e < width; ++e) to[e] += from[e];
        }
        const T scale = 1 / static_cast<T>(std::max(1, offset[1] - offset[0]));
        for (int64_t e = 0; mean && e < width; ++e) to[e] *= scale;
      }
    });
  });
}

void group_broadcast(const Tensor& y, const Tensor& labels, const Tensor& offsets, bool mean,
                     const Tensor& x) {
  const int64_t batch = x.size(0), heads = x.size(1), n = x.size(2), width = x.size(3);
  const int64_t groups = y.size(2);
  const int32_t* of = labels.data<int32_t>();
  const int32_t* offset = offsets.data<int32_t>();
  dispatch_float(x.dtype(), "group_broadcast", [&]<typename T>() {
    const std::vector<Rows<T>> rows = all_rows<T>(x);
    const T* group = y.data<T>();
    // Position by position through all heads: in the memory of a projection they lie together.
    parallel_for(0, batch * n, row_grain(heads * width), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * heads; i < end * heads; ++i) {
        const int64_t l = i / heads % n, bh = i / heads / n * heads + i % heads;
        const int64_t label = of[bh * n + l];
        T* __restrict to = rows[bh][l];
        if (label < 0) {
          std::fill_n(to, width, T(0));
          continue;
        }
        const T* __restrict from = group + (bh * groups + label) * width;
        const int32_t* ends = offset + bh * (groups + 1) + label;
        const T scale = mean ? 1 / static_cast<T>(ends[1] - ends[0]) : T(1);
        for (int64_t e = 0; e < width; ++e) to[e] = from[e] * scale;
      }
    });
  });
}

}  // namespace centroid::cpu
