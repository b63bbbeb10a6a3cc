// Batches of epochs, the endless sampler, prefetching.
#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <numeric>

#include "nn/data.h"

using namespace centroid;
using namespace centroid::nn;
using Catch::Matchers::Contains;

namespace {

std::vector<int64_t> random_lengths(int64_t n, uint64_t seed = 3) {
  Rng rng(seed);
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < n; ++i) lengths.push_back(1 + static_cast<int64_t>(rng.below(500)));
  return lengths;
}

int64_t longest(const Batch& batch, const std::vector<int64_t>& lengths) {
  int64_t frames = 0;
  for (int64_t i : batch) frames = std::max(frames, lengths[i]);
  return frames;
}

int64_t padded_frames(const std::vector<Batch>& batches, const std::vector<int64_t>& lengths) {
  int64_t frames = 0;
  for (const Batch& b : batches) frames += longest(b, lengths) * static_cast<int64_t>(b.size());
  return frames;
}

}  // namespace

TEST_CASE("every item is in exactly one batch of an epoch, within the limits", "[data]") {
  for (int64_t n : {0, 1, 2, 17, 101}) {
    const std::vector<int64_t> lengths = random_lengths(n);
    for (int64_t buckets : {1, 3, 10, 1000}) {
      for (int64_t max_frames : {0, 500, 1700}) {
        for (bool shuffle : {false, true}) {
          const BatchOptions o{4, max_frames, buckets, shuffle};
          INFO("n " << n << " buckets " << buckets << " frames " << max_frames);
          Batch seen;
          for (const Batch& batch : epoch_batches(lengths, o, 1, 5)) {
            REQUIRE(!batch.empty());
            REQUIRE(batch.size() <= 4);
            if (max_frames > 0) {
              REQUIRE(longest(batch, lengths) * static_cast<int64_t>(batch.size()) <= max_frames);
            }
            seen.insert(seen.end(), batch.begin(), batch.end());
          }
          std::sort(seen.begin(), seen.end());
          Batch all(n);
          std::iota(all.begin(), all.end(), 0);
          REQUIRE(seen == all);
        }
      }
    }
  }
}

TEST_CASE("an epoch depends on its number and the seed, and on nothing else", "[data]") {
  const std::vector<int64_t> lengths = random_lengths(50);
  const BatchOptions o;
  CHECK(epoch_batches(lengths, o, 1, 2) == epoch_batches(lengths, o, 1, 2));
  CHECK(epoch_batches(lengths, o, 1, 2) != epoch_batches(lengths, o, 1, 3));
  CHECK(epoch_batches(lengths, o, 1, 2) != epoch_batches(lengths, o, 2, 2));
}

TEST_CASE("buckets reduce padding", "[data]") {
  const std::vector<int64_t> lengths = random_lengths(400);
  const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  BatchOptions o{8, 0, 1, true};
  const int64_t plain = padded_frames(epoch_batches(lengths, o, 1, 0), lengths);
  o.buckets = 20;
  const int64_t bucketed = padded_frames(epoch_batches(lengths, o, 1, 0), lengths);
  CHECK(bucketed - total < (plain - total) / 4);
}

TEST_CASE("without shuffling, batches follow the items or the buckets", "[data]") {
  const std::vector<int64_t> lengths = {9, 1, 8, 2, 7, 3};
  CHECK(epoch_batches(lengths, {4, 0, 1, false}, 1, 0) == std::vector<Batch>{{0, 1, 2, 3}, {4, 5}});
  CHECK(epoch_batches(lengths, {3, 0, 2, false}, 1, 0) == std::vector<Batch>{{1, 3, 5}, {0, 2, 4}});
}

TEST_CASE("items that cannot be batched are named", "[data]") {
  CHECK_THROWS_WITH(epoch_batches({5, 11, 3}, {4, 10, 1, true}, 1, 0),
                    Contains("item 1") && Contains("11 frames") && Contains("10"));
  CHECK_THROWS_WITH(epoch_batches({5, 1, 0}, {4, 10, 1, true}, 1, 0), Contains("item 2"));
  CHECK_THROWS_WITH(epoch_batches({5}, {0, 10, 1, true}, 1, 0), Contains("max_items"));
  CHECK_THROWS_WITH(epoch_batches({5}, {1, -1, 1, true}, 1, 0), Contains("max_frames"));
  CHECK_THROWS_WITH(epoch_batches({5}, {1, 0, 0, true}, 1, 0), Contains("buckets"));
  CHECK_THROWS_WITH(BatchSampler({}, {}, 1), Contains("at least one item"));
  CHECK_THROWS_WITH(BatchSampler({1}, {}, 1).seek(-1), Contains("position"));
}

TEST_CASE("seeking equals walking", "[data]") {
  const std::vector<int64_t> lengths = random_lengths(23);
  for (int64_t max_frames : {0, 900}) {
    const BatchOptions o{4, max_frames, 3, true};
    BatchSampler walker(lengths, o, 7);
    std::vector<BatchSampler::Item> walked;
    for (int i = 0; i < 60; ++i) {
      CHECK(walker.position() == i);
      walked.push_back(walker.next());
    }
    CHECK(walked.back().epoch > 3);
    CHECK(walked[0].batch == epoch_batches(lengths, o, 7, 0)[0]);
    BatchSampler jumper(lengths, o, 7);
    for (int64_t position : {59, 0, 31, 30, 32, 5, 6, 58}) {
      jumper.seek(position);
      const BatchSampler::Item item = jumper.next();
      INFO("position " << position << " frames " << max_frames);
      CHECK(item.batch == walked[position].batch);
      CHECK(item.epoch == walked[position].epoch);
      CHECK(item.position == position);
    }
  }
}

TEST_CASE("the sampler's epochs are whole", "[data]") {
  const std::vector<int64_t> lengths = random_lengths(23);
  BatchSampler sampler(lengths, {4, 900, 3, true}, 7);
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    std::vector<Batch> batches;
    for (int64_t i = sampler.batches_in(epoch); i > 0; --i) {
      const BatchSampler::Item item = sampler.next();
      CHECK(item.epoch == epoch);
      batches.push_back(item.batch);
    }
    CHECK(batches == epoch_batches(lengths, {4, 900, 3, true}, 7, epoch));
  }
}

TEST_CASE("prefetch keeps the order and runs at most `depth` ahead", "[data]") {
  std::atomic<int> made{0};
  int taken = 0;
  std::atomic<bool> ahead{false};
  std::atomic<int> taken_shared{0};
  Prefetch<std::unique_ptr<int>> prefetch(
      [&] {
        // Between a handed-out result and its count, one more may be made.
        if (made - taken_shared > 3 + 1) ahead = true;
        return std::make_unique<int>(made++);
      },
      3);
  for (; taken < 200; ++taken) {
    CHECK(*prefetch.next() == taken);
    ++taken_shared;
  }
  CHECK(!ahead);
}

TEST_CASE("prefetch hands out what was made before an exception, then rethrows it", "[data]") {
  int count = 0;
  Prefetch<int> prefetch(
      [&] {
        if (count == 4) throw Error("item 4: broken");
        return count++;
      },
      2);
  for (int i = 0; i < 4; ++i) CHECK(prefetch.next() == i);
  CHECK_THROWS_WITH(prefetch.next(), Contains("item 4: broken"));
  CHECK_THROWS_WITH(prefetch.next(), Contains("item 4: broken"));
}

TEST_CASE("prefetch can be destroyed while it is full, and at once", "[data]") {
  for (int i = 0; i < 100; ++i) {
    std::atomic<int> made{0};
    {
      Prefetch<int> prefetch([&] { return made++; }, 2);
      if (i % 2) {
        prefetch.next();
        while (made < 3) std::this_thread::yield();
      }
    }
    CHECK(made <= 4);
  }
}
