// Clustering of queries: sign hashing, k-means on the codes, counting sort, and sums over groups.
#include <algorithm>
#include <array>
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
  multiply<T>(rows, kBits, width, x.data, x.stride, 1, planes, kBits, projected, kBits, false);
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

// Byte j of entry x is bit j of x: one addition counts eight bits.
constexpr std::array<uint64_t, 256> spread_bits() {
  std::array<uint64_t, 256> table{};
  for (uint64_t x = 0; x < 256; ++x) {
    for (int j = 0; j < 8; ++j) table[x] |= (x >> j & 1) << (8 * j);
  }
  return table;
}

// Counts of ones per cluster and bit, in bytes that are emptied before they can overflow.
class BitCounts {
 public:
  // counts (clusters, 65): ones per bit, then members
  BitCounts(int64_t clusters, int32_t* counts)
      : bytes_(clusters * 8, 0), pending_(clusters, 0), counts_(counts) {
    std::fill_n(counts, clusters * (kBits + 1), 0);
  }
  void add(int64_t cluster, uint64_t code) {
    static constexpr auto kSpread = spread_bits();
    uint64_t* bytes = bytes_.data() + cluster * 8;
    for (int i = 0; i < 8; ++i) bytes[i] += kSpread[code >> (8 * i) & 255];
    if (++pending_[cluster] == 255) empty(cluster);
  }
  void finish() {
    for (size_t c = 0; c < pending_.size(); ++c) empty(static_cast<int64_t>(c));
  }

 private:
  void empty(int64_t cluster) {
    int32_t* counts = counts_ + cluster * (kBits + 1);
    uint64_t* bytes = bytes_.data() + cluster * 8;
    uint8_t ones[kBits];
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < 8; ++j) ones[8 * i + j] = static_cast<uint8_t>(bytes[i] >> (8 * j));
    }
    for (int64_t b = 0; b < kBits; ++b) counts[b] += ones[b];
    counts[kBits] += pending_[cluster];
    std::fill_n(bytes, 8, 0);
    pending_[cluster] = 0;
  }

  std::vector<uint64_t> bytes_;
  std::vector<int32_t> pending_;
  int32_t* counts_;
};

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

// The nearest of `clusters` centroids for each of n codes, four vectors of them at a time.
void nearest(const uint64_t* codes, int64_t n, const int64_t* centroids, int64_t clusters,
             int32_t* labels) {
  using Vec = simd::Vector<uint64_t>;
  constexpr int64_t kVectors = 4, kBlock = kVectors * kLanes<uint64_t>;
  for (int64_t i = 0; i < n; i += kBlock) {
    alignas(64) uint64_t block[kBlock] = {};
    std::memcpy(block, codes + i, std::min(kBlock, n - i) * sizeof(uint64_t));
    Vec x[kVectors], best[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      x[v] = simd::load(block + v * kLanes<uint64_t>);
      best[v] = Vec{} + ~uint64_t{0};
    }
    for (int64_t c = 0; c < clusters; ++c) {
      const Vec centroid = Vec{} + static_cast<uint64_t>(centroids[c]);
      for (int v = 0; v < kVectors; ++v) {
        const Vec key =
            simd::popcount(x[v] ^ centroid) << kDistanceShift | (Vec{} + static_cast<uint64_t>(c));
        best[v] = key < best[v] ? key : best[v];
      }
    }
    for (int v = 0; v < kVectors; ++v) simd::store(block + v * kLanes<uint64_t>, best[v]);
    for (int64_t j = 0; j < std::min(kBlock, n - i); ++j) {
      labels[i + j] = static_cast<int32_t>(block[j]);
    }
  }
}

struct KMeans {
  const Tensor &codes, &lengths, &clusters, &counts, &centroids, &labels;
  int64_t heads = codes.size(1), positions = codes.size(2), most = centroids.size(2);
  int64_t parts = counts.size(2), part_size = (positions + parts - 1) / parts;

  int64_t valid(int64_t bh) const { return lengths.data<int64_t>()[bh / heads]; }
  int64_t wanted(int64_t bh) const { return clusters.data<int64_t>()[bh / heads]; }
  const uint64_t* codes_of(int64_t bh) const {
    return reinterpret_cast<const uint64_t*>(codes.data<int64_t>()) + bh * positions;
  }
  int64_t* centroids_of(int64_t bh) const { return centroids.data<int64_t>() + bh * most; }
  int32_t* labels_of(int64_t bh) const { return labels.data<int32_t>() + bh * positions; }
  int32_t* counts_of(int64_t bh, int64_t part) const {
    return counts.data<int32_t>() + (bh * parts + part) * most * (kBits + 1);
  }

  bool start(int64_t bh) const;
  void assign(int64_t bh, int64_t part, bool count) const;
  bool update(int64_t bh) const;
  void refill(int64_t bh, const std::vector<int64_t>& empty) const;
};

// Evenly spaced codes as centroids, labels -1; false when there is nothing to iterate.
bool KMeans::start(int64_t bh) const {
  const int64_t n = valid(bh), k = std::min(wanted(bh), n);
  int32_t* label = labels_of(bh);
  for (int64_t c = 0; c < most; ++c) {
    centroids_of(bh)[c] = c < k ? static_cast<int64_t>(codes_of(bh)[c * n / k]) : 0;
  }
  const bool each_its_own = k == n;
  for (int64_t l = 0; l < positions; ++l) {
    label[l] = each_its_own && l < n ? static_cast<int32_t>(l) : -1;
  }
  return !each_its_own;
}

void KMeans::assign(int64_t bh, int64_t part, bool count) const {
  const int64_t k = wanted(bh), begin = part * part_size;
  const int64_t end = std::min(valid(bh), begin + part_size);
  int32_t* label = labels_of(bh);
  if (begin < end) nearest(codes_of(bh) + begin, end - begin, centroids_of(bh), k, label + begin);
  if (!count) return;
  BitCounts ones(k, counts_of(bh, part));
  for (int64_t l = begin; l < end; ++l) ones.add(label[l], codes_of(bh)[l]);
  ones.finish();
}

// Majority votes; whether any centroid has changed.
bool KMeans::update(int64_t bh) const {
  const int64_t k = wanted(bh);
  std::vector<int64_t> empty;
  bool changed = false;
  for (int64_t c = 0; c < k; ++c) {
    int32_t ones[kBits + 1] = {};
    for (int64_t p = 0; p < parts; ++p) {
      const int32_t* from = counts_of(bh, p) + c * (kBits + 1);
      for (int64_t b = 0; b <= kBits; ++b) ones[b] += from[b];
    }
    if (ones[kBits] == 0) {
      empty.push_back(c);
      continue;
    }
    const uint64_t code = majority(ones, ones[kBits]);
    int64_t& centroid = centroids_of(bh)[c];
    changed = changed || centroid != static_cast<int64_t>(code);
    centroid = static_cast<int64_t>(code);
  }
  if (!empty.empty()) refill(bh, empty);
  return changed || !empty.empty();
}

// Empty clusters move to the codes farthest from their own centroid, as long as there are any that
// differ from it.
void KMeans::refill(int64_t bh, const std::vector<int64_t>& empty) const {
  std::vector<std::pair<int, int64_t>> far;
  for (int64_t l = 0; l < valid(bh); ++l) {
    const uint64_t centroid = centroids_of(bh)[labels_of(bh)[l]];
    const int distance = __builtin_popcountll(codes_of(bh)[l] ^ centroid);
    if (distance > 0) far.emplace_back(-distance, l);
  }
  const size_t n = std::min(far.size(), empty.size());
  std::partial_sort(far.begin(), far.begin() + n, far.end());
  for (size_t i = 0; i < n; ++i) {
    centroids_of(bh)[empty[i]] = static_cast<int64_t>(codes_of(bh)[far[i].second]);
  }
}

// ---- clusters of the past -----------------------------------------------------------------------

// K-means over a growing prefix of one (item, head): block after block, the new codes are assigned
// and counted on top of all earlier ones, whose labels stay.
class GrowingKMeans {
 public:
  // What was learnt before, and is added to: centroids (K) and counts (K, kBits + 1).
  GrowingKMeans(int64_t clusters, int64_t* centroids, int32_t* counts)
      : clusters_(clusters), centroids_(centroids), ones_(counts) {}

  // The nearest cluster that has members; -1 for all while there is none.
  void assign(const uint64_t* codes, int64_t n, int32_t* labels) const {
    std::vector<int64_t> alive;
    std::vector<int64_t> code;
    for (int64_t c = 0; c < clusters_; ++c) {
      if (ones_[c * (kBits + 1) + kBits] == 0) continue;
      alive.push_back(c);
      code.push_back(centroids_[c]);
    }
    if (alive.empty()) return std::fill_n(labels, n, -1), void();
    nearest(codes, n, code.data(), static_cast<int64_t>(alive.size()), labels);
    for (int64_t l = 0; l < n; ++l) labels[l] = static_cast<int32_t>(alive[labels[l]]);
  }

  // Learns n more codes; `labels` receives the clusters they joined. Clusters without members start
  // from evenly spaced new codes; if there are more of them than codes, the others from code 0.
  void learn(const uint64_t* codes, int64_t n, int64_t iterations, int32_t* labels) {
    std::vector<int64_t> empty;
    for (int64_t c = 0; c < clusters_; ++c) {
      if (ones_[c * (kBits + 1) + kBits] == 0) empty.push_back(c);
    }
    const int64_t fresh = std::min<int64_t>(n, static_cast<int64_t>(empty.size()));
    for (int64_t i = 0; i < fresh; ++i) {
      centroids_[empty[i]] = static_cast<int64_t>(codes[i * n / fresh]);
    }
    std::vector<int32_t> counts(clusters_ * (kBits + 1));
    for (int64_t step = 1; step <= iterations; ++step) {
      nearest(codes, n, centroids_, clusters_, labels);
      BitCounts ones(clusters_, counts.data());
      for (int64_t l = 0; l < n; ++l) ones.add(labels[l], codes[l]);
      ones.finish();
      if (step < iterations) vote(counts);
    }
    for (size_t i = 0; i < counts.size(); ++i) ones_[i] += counts[i];
  }

 private:
  void vote(const std::vector<int32_t>& counts) {
    for (int64_t c = 0; c < clusters_; ++c) {
      int32_t ones[kBits + 1];
      const int64_t at = c * (kBits + 1);
      for (int64_t b = 0; b <= kBits; ++b) ones[b] = ones_[at + b] + counts[at + b];
      if (ones[kBits] > 0) centroids_[c] = static_cast<int64_t>(majority(ones, ones[kBits]));
    }
  }

  int64_t clusters_;
  int64_t* centroids_;
  int32_t* ones_;  // as the counts of BitCounts
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
  const KMeans means{codes, lengths, clusters, counts, centroids, labels};
  const int64_t items = codes.size(0) * means.heads, parts = means.parts;
  std::vector<uint8_t> moving(items), started(items);
  parallel_for(0, items, 1, [&](int64_t begin, int64_t end) {
    for (int64_t bh = begin; bh < end; ++bh) moving[bh] = started[bh] = means.start(bh);
  });
  const auto assign = [&](bool last) {
    parallel_for(0, items * parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t bh = i / parts;
        if (last ? started[bh] : moving[bh]) means.assign(bh, i % parts, !last);
      }
    });
  };
  for (int64_t step = 1; step < iterations; ++step) {
    assign(false);
    parallel_for(0, items, 1, [&](int64_t begin, int64_t end) {
      for (int64_t bh = begin; bh < end; ++bh) moving[bh] = moving[bh] && means.update(bh);
    });
  }
  assign(true);
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
  dispatch_float(x.dtype(), "group_sum", [&]<typename T>() {
    parallel_for(0, x.size(0) * x.size(1) * groups, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t bh = i / groups;
        const int32_t* offset = offsets.data<int32_t>() + bh * (groups + 1) + i % groups;
        T* __restrict to = y.data<T>() + i * width;
        std::fill_n(to, width, T(0));
        const int32_t* member = order.data<int32_t>() + bh * n;
        const Rows<const T> rows(x, bh);
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
  dispatch_float(x.dtype(), "group_broadcast", [&]<typename T>() {
    // Position by position through all heads: in the memory of a projection they lie together.
    parallel_for(0, batch * n, row_grain(heads * width), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * heads; i < end * heads; ++i) {
        const int64_t l = i / heads % n, bh = i / heads / n * heads + i % heads;
        const int64_t label = labels.data<int32_t>()[bh * n + l];
        T* __restrict to = Rows<T>(x, bh)[l];
        if (label < 0) {
          std::fill_n(to, width, T(0));
          continue;
        }
        const T* __restrict from = y.data<T>() + (bh * groups + label) * width;
        const int32_t* offset = offsets.data<int32_t>() + bh * (groups + 1) + label;
        const T scale = mean ? 1 / static_cast<T>(offset[1] - offset[0]) : T(1);
        for (int64_t e = 0; e < width; ++e) to[e] = from[e] * scale;
      }
    });
  });
}

}  // namespace centroid::cpu
