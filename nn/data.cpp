#include "nn/data.h"

#include <algorithm>
#include <numeric>

namespace centroid::nn {
namespace {

void check(const std::vector<int64_t>& lengths, const BatchOptions& o) {
  CENTROID_CHECK(o.max_items >= 1, "batches: max_items: expected 1 or more, got ", o.max_items);
  CENTROID_CHECK(o.max_frames >= 0, "batches: max_frames: expected 0 or more, got ", o.max_frames);
  CENTROID_CHECK(o.buckets >= 1, "batches: buckets: expected 1 or more, got ", o.buckets);
  for (size_t i = 0; i < lengths.size(); ++i) {
    CENTROID_CHECK(lengths[i] >= 1, "batches: item ", i, ": expected 1 frame or more, got ",
                   lengths[i]);
    CENTROID_CHECK(o.max_frames == 0 || lengths[i] <= o.max_frames, "batches: item ", i, ": has ",
                   lengths[i], " frames, more than max_frames = ", o.max_frames, " of a batch");
  }
}

template <typename T>
void shuffle(std::vector<T>& items, Rng& rng, size_t begin, size_t end) {
  for (size_t i = end; i-- > begin + 1;) {
    std::swap(items[i], items[begin + rng.below(i - begin + 1)]);
  }
}

}  // namespace

std::vector<Batch> epoch_batches(const std::vector<int64_t>& lengths, const BatchOptions& options,
                                 uint64_t seed, int64_t epoch) {
  check(lengths, options);
  Rng rng = Rng(seed, "batches").fork(static_cast<uint64_t>(epoch));
  const size_t n = lengths.size();
  const size_t buckets = std::clamp<size_t>(static_cast<size_t>(options.buckets), 1, n ? n : 1);

  // Equal shares of the items sorted by length, each shuffled (or left in the order of the items).
  Batch order(n);
  std::iota(order.begin(), order.end(), 0);
  if (buckets > 1) {
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return lengths[a] < lengths[b]; });
  }
  for (size_t b = 0; b < buckets; ++b) {
    const size_t begin = n * b / buckets, end = n * (b + 1) / buckets;
    if (options.shuffle) {
      shuffle(order, rng, begin, end);
    } else {
      std::sort(order.begin() + static_cast<int64_t>(begin),
                order.begin() + static_cast<int64_t>(end));
    }
  }

  // Batches may span two buckets: no bucket leaves a small one behind.
  std::vector<Batch> batches;
  int64_t longest = 0;
  for (int64_t item : order) {
    const int64_t size = batches.empty() ? 0 : static_cast<int64_t>(batches.back().size());
    const int64_t padded = std::max(longest, lengths[item]);
    // By division, because the product may not fit into 64 bits.
    const bool too_long = options.max_frames > 0 && size + 1 > options.max_frames / padded;
    if (size == 0 || size == options.max_items || too_long) {
      batches.push_back({item});
      longest = lengths[item];
    } else {
      batches.back().push_back(item);
      longest = padded;
    }
  }
  if (options.shuffle) shuffle(batches, rng, 0, batches.size());
  return batches;
}

BatchSampler::BatchSampler(std::vector<int64_t> lengths, const BatchOptions& options, uint64_t seed)
    : lengths_(std::move(lengths)), options_(options), seed_(seed) {
  CENTROID_CHECK(!lengths_.empty(), "batches: expected at least one item, got none");
  enter(0, 0);
}

BatchSampler::Item BatchSampler::next() {
  const int64_t end = epoch_begin_ + static_cast<int64_t>(batches_.size());
  if (position_ == end) enter(epoch_ + 1, end);
  Item item{batches_[static_cast<size_t>(position_ - epoch_begin_)], epoch_, position_};
  ++position_;
  return item;
}

void BatchSampler::seek(int64_t position) {
  CENTROID_CHECK(position >= 0, "batches: position: expected 0 or more, got ", position);
  if (position < epoch_begin_) enter(0, 0);
  if (options_.max_frames == 0) {  // all epochs have the same number of batches
    const int64_t count = static_cast<int64_t>(batches_.size());
    const int64_t epoch = position / count;
    if (epoch != epoch_) enter(epoch, epoch * count);
  }
  while (position >= epoch_begin_ + static_cast<int64_t>(batches_.size())) {
    enter(epoch_ + 1, epoch_begin_ + static_cast<int64_t>(batches_.size()));
  }
  position_ = position;
}

int64_t BatchSampler::batches_in(int64_t epoch) const {
  if (epoch == epoch_) return static_cast<int64_t>(batches_.size());
  return static_cast<int64_t>(epoch_batches(lengths_, options_, seed_, epoch).size());
}

void BatchSampler::enter(int64_t epoch, int64_t begin) {
  batches_ = epoch_batches(lengths_, options_, seed_, epoch);
  epoch_ = epoch;
  epoch_begin_ = begin;
}

}  // namespace centroid::nn
