// What the copy tasks draw.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "apps/copy_task.h"
#include "tests/support.h"

using namespace centroid;
using Catch::Matchers::Contains;

namespace {

struct Rows {
  std::vector<int64_t> inputs, targets;
  int64_t time;
  int64_t input(int64_t b, int64_t t) const { return inputs[b * time + t]; }
  int64_t target(int64_t b, int64_t t) const { return targets[b * time + t]; }
};

Rows rows(const copy::Batch& batch) {
  return {batch.inputs.to_vector<int64_t>(), batch.targets.to_vector<int64_t>(),
          batch.inputs.size(1)};
}

copy::TaskOptions task(const std::string& kind, int64_t length, bool fixed = false) {
  copy::TaskOptions o;
  o.task = kind;
  o.length = length;
  o.fixed = fixed;
  return o;
}

}  // namespace

TEST_CASE("causal sequences are 0 w 0 w and ask for the second w", "[copy]") {
  for (int64_t length : {5, 6, 7, 16, 33, 128}) {
    const bool even = length % 2 == 0;
    for (bool fixed : {false, true}) {
      if (fixed && !even) continue;
      const copy::TaskOptions o = task("causal", length, fixed);
      const copy::Batch batch = copy::make_batch(o, 50, Rng(3));
      const Rows r = rows(batch);
      std::set<int64_t> sizes;
      int64_t asked = 0;
      for (int64_t b = 0; b < 50; ++b) {
        const int64_t size = (batch.lengths[b] - 1) / 2;
        INFO("length " << length << " size " << size);
        sizes.insert(size);
        REQUIRE(batch.lengths[b] == 2 * size + 1);
        REQUIRE(2 * size + 2 <= length);
        if (fixed) REQUIRE(2 * size + 2 == length);
        if (!fixed) REQUIRE((size >= length / 4 && size < (length - 1) / 2));
        REQUIRE(r.input(b, 0) == 0);
        REQUIRE(r.input(b, size + 1) == 0);
        for (int64_t i = 1; i <= size; ++i) {
          REQUIRE((r.input(b, i) >= 1 && r.input(b, i) <= 10));
          if (i < size) REQUIRE(r.input(b, size + 1 + i) == r.input(b, i));
          REQUIRE(r.target(b, size + i) == r.input(b, i));
        }
        for (int64_t t = 0; t < r.time; ++t) {
          const bool wanted = t > size && t < batch.lengths[b];
          REQUIRE((r.target(b, t) != copy::kIgnore) == wanted);
          if (t >= batch.lengths[b]) REQUIRE(r.input(b, t) == 0);
        }
        asked += size;
      }
      CHECK(batch.asked == asked);
      CHECK(batch.lengths.max() == r.time);
      if (!fixed && length == 128) CHECK(sizes.size() > 15);
    }
  }
}

TEST_CASE("masked sequences hide disjoint parts of the two copies", "[copy]") {
  for (int64_t length : {6, 8, 64, 128}) {
    for (double share : {0.01, 0.2, 0.5}) {
      copy::TaskOptions o = task("masked", length);
      o.masked = share;
      const copy::Batch batch = copy::make_batch(o, 30, Rng(4));
      const Rows r = rows(batch);
      const int64_t size = (length - 2) / 2;
      const int64_t count = std::clamp<int64_t>(std::llround(share * size), 1, size / 2);
      REQUIRE(r.time == length);
      CHECK(batch.asked == 30 * 2 * count);
      std::set<int64_t> places;
      for (int64_t b = 0; b < 30; ++b) {
        REQUIRE(r.input(b, 0) == 0);
        REQUIRE(r.input(b, size + 1) == 0);
        REQUIRE(r.target(b, 0) == copy::kIgnore);
        REQUIRE(r.target(b, size + 1) == copy::kIgnore);
        int64_t masked[2] = {0, 0};
        for (int64_t i = 1; i <= size; ++i) {
          const int64_t at[2] = {i, size + 1 + i};
          const bool hidden[2] = {r.input(b, at[0]) == 11, r.input(b, at[1]) == 11};
          REQUIRE(!(hidden[0] && hidden[1]));
          for (int c : {0, 1}) {
            masked[c] += hidden[c];
            const int64_t twin = r.input(b, at[1 - c]);
            REQUIRE(r.target(b, at[c]) == (hidden[c] ? twin : copy::kIgnore));
            if (hidden[c]) places.insert(i);
            REQUIRE(r.input(b, at[c]) >= 1);
          }
          if (!hidden[0] && !hidden[1]) REQUIRE(r.input(b, at[0]) == r.input(b, at[1]));
        }
        REQUIRE(masked[0] == count);
        REQUIRE(masked[1] == count);
      }
      if (length == 64 && share == 0.5) CHECK(places.size() == 31);
    }
  }
}

TEST_CASE("batches depend on their stream alone, items on their number", "[copy]") {
  const copy::TaskOptions o = task("masked", 32);
  const auto values = [&](int64_t items, uint64_t seed) {
    return copy::make_batch(o, items, Rng(seed)).inputs.to_vector<int64_t>();
  };
  CHECK(values(4, 1) == values(4, 1));
  CHECK(values(4, 1) != values(4, 2));
  const auto two = values(2, 1), four = values(4, 1);
  CHECK(std::equal(two.begin(), two.end(), four.begin()));
  std::set<int64_t> symbols(four.begin(), four.end());
  CHECK(*symbols.rbegin() == 11);
}

TEST_CASE("tasks that cannot be drawn are refused by name", "[copy]") {
  const auto error = [](copy::TaskOptions o) {
    return test::error_of([&] { copy::make_batch(o, 1, Rng(1)); });
  };
  CHECK_THAT(error(task("copy", 16)), Contains("expected causal or masked, got 'copy'"));
  CHECK_THAT(error(task("masked", 7)), Contains("even length") && Contains("got 7"));
  CHECK_THAT(error(task("masked", 4)), Contains("at least 6"));
  CHECK_THAT(error(task("causal", 4)), Contains("at least 5, got 4"));
  CHECK_THAT(error(task("causal", 9, true)), Contains("even length"));
  copy::TaskOptions o = task("masked", 16);
  o.masked = 0.6;
  CHECK_THAT(error(o), Contains("masked") && Contains("0.6"));
  o = task("masked", 16);
  o.alphabet = 0;
  CHECK_THAT(error(o), Contains("alphabet"));
}
