#include <atomic>
#include <catch2/catch.hpp>
#include <mutex>
#include <set>
#include <thread>

#include "tensor/parallel.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// Sets the number of threads for a scope.
class Threads {
 public:
  explicit Threads(int n) { set_num_threads(n); }
  ~Threads() { set_num_threads(0); }
};

}  // namespace

TEST_CASE("every element is visited once, in chunks of the grain") {
  for (int threads : {1, 2, 4}) {
    const Threads scope(threads);
    for (int64_t n : {0, 1, 9, 10, 11, 1003}) {
      std::vector<std::atomic<int>> visits(n);
      std::mutex mutex;
      std::set<std::pair<int64_t, int64_t>> chunks;
      parallel_for(5, 5 + n, 10, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++visits[i - 5];
        std::lock_guard lock(mutex);
        chunks.insert({begin, end});
      });
      INFO(threads << " threads, " << n << " elements");
      for (const auto& v : visits) REQUIRE(v == 1);
      CHECK(static_cast<int64_t>(chunks.size()) == (n + 9) / 10);
      for (const auto& [begin, end] : chunks) {
        CHECK((begin - 5) % 10 == 0);
        CHECK(end == std::min(begin + 10, 5 + n));
      }
    }
  }
}

TEST_CASE("a grain below 1 counts as 1 and an empty range calls nothing") {
  std::atomic<int> calls{0};
  parallel_for(0, 3, 0, [&](int64_t, int64_t) { ++calls; });
  CHECK(calls == 3);
  parallel_for(3, 3, 1, [&](int64_t, int64_t) { ++calls; });
  parallel_for(3, 1, 1, [&](int64_t, int64_t) { ++calls; });
  CHECK(calls == 3);
}

TEST_CASE("an exception in a chunk reaches the caller, and later loops work") {
  for (int threads : {1, 2, 4}) {
    const Threads scope(threads);
    const std::string error = error_of([] {
      parallel_for(0, 100, 1, [](int64_t i, int64_t) {
        if (i % 10 == 3) throw Error("chunk failed");
      });
    });
    CHECK(error == "chunk failed");
    std::atomic<int> sum{0};
    parallel_for(0, 100, 7,
                 [&](int64_t begin, int64_t end) { sum += static_cast<int>(end - begin); });
    CHECK(sum == 100);
  }
}

TEST_CASE("nested loops run serially inside a chunk") {
  const Threads scope(4);
  std::atomic<int> total{0}, foreign{0};
  parallel_for(0, 8, 1, [&](int64_t, int64_t) {
    const auto self = std::this_thread::get_id();
    parallel_for(0, 10, 1, [&](int64_t, int64_t) {
      foreign += std::this_thread::get_id() != self;
      ++total;
    });
  });
  CHECK(total == 80);
  CHECK(foreign == 0);
}

TEST_CASE("the number of threads can be set and reset") {
  const int all = num_threads();
  CHECK(all >= 1);
  set_num_threads(3);
  CHECK(num_threads() == 3);
  set_num_threads(-5);
  CHECK(num_threads() == all);
}
