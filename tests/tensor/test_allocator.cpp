#include <catch2/catch.hpp>
#include <cstdlib>
#include <thread>

#include "tensor/storage.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// A system with a limit, so that running out of memory can be watched.
size_t g_system_bytes = 0, g_system_limit = 0;
int g_system_calls = 0;

void* limited_allocate(size_t bytes) {
  ++g_system_calls;
  if (g_system_bytes + bytes > g_system_limit) return nullptr;
  g_system_bytes += bytes;
  return std::aligned_alloc(64, (bytes + 63) / 64 * 64);
}

// The limit counts blocks of one size only, which is what the test below uses.
size_t g_block = 0;
void limited_free(void* ptr) {
  g_system_bytes -= g_block;
  std::free(ptr);
}

bool caching() {
  CachingAllocator a(
      "probe", [](size_t n) { return std::malloc(n); }, std::free);
  void* p = a.allocate(64);
  a.release(p);
  return a.stats().cached > 0;
}

}  // namespace

TEST_CASE("size classes are multiples of 64 at most an eighth above the request") {
  CHECK(CachingAllocator::size_class(0) == 64);
  CHECK(CachingAllocator::size_class(1) == 64);
  CHECK(CachingAllocator::size_class(64) == 64);
  CHECK(CachingAllocator::size_class(65) == 128);
  for (size_t bytes = 1; bytes < (size_t{1} << 34); bytes += bytes / 7 + 1) {
    const size_t size = CachingAllocator::size_class(bytes);
    INFO(bytes);
    CHECK(size >= bytes);
    CHECK(size % 64 == 0);
    CHECK((bytes <= 512 || size - bytes <= bytes / 8));
    CHECK(CachingAllocator::size_class(size) == size);
  }
}

TEST_CASE("freed blocks are handed out again and counted") {
  if (!caching()) return;  // CENTROID_ALLOC=system and sanitizer builds keep nothing
  g_system_bytes = 0, g_system_limit = 1 << 20, g_system_calls = 0, g_block = 1024;
  CachingAllocator a("test", limited_allocate, limited_free);
  void* p = a.allocate(1000);
  CHECK(a.stats().active == 1024);
  CHECK(a.stats().peak == 1024);
  void* q = a.allocate(1024);
  CHECK(a.stats().peak == 2048);
  a.release(p);
  CHECK(a.stats().active == 1024);
  CHECK(a.stats().cached == 1024);
  CHECK(a.allocate(990) == p);
  CHECK(a.stats().reused == 1);
  CHECK(a.stats().allocations == 3);
  CHECK(a.stats().cached == 0);
  CHECK(g_system_calls == 2);
  a.release(p);
  CHECK(a.allocate(700) == p);  // a request of two thirds of a block takes it whole
  CHECK(a.stats().active == 2048);
  a.release(p);
  a.release(q);
  a.reset_peak();
  CHECK(a.stats().peak == 0);
  CHECK(g_system_bytes == 2048);
  a.empty_cache();
  CHECK(a.stats().cached == 0);
  CHECK(g_system_bytes == 0);
  a.release(nullptr);
}

TEST_CASE("an exhausted system first costs the cache, then is an error with numbers") {
  if (!caching()) return;
  g_system_bytes = 0, g_system_limit = 4096, g_system_calls = 0, g_block = 4096;
  CachingAllocator a("test", limited_allocate, limited_free);
  void* p = a.allocate(4096);
  a.release(p);  // cached: the system is full
  g_system_limit = 4096;
  void* q = a.allocate(2048);
  CHECK(a.stats().cached == 0);
  const std::string error = error_of([&] { a.allocate(4000); });
  CHECK_THAT(error, Catch::Contains("test memory: asked for 4000 bytes"));
  CHECK_THAT(error, Catch::Contains("2048 bytes are in use, 0 cached"));
  CHECK(a.stats().active == 2048);
  g_block = 2048;
  a.release(q);
}

TEST_CASE("absurd sizes are refused before any arithmetic wraps") {
  CachingAllocator& a = allocator({});
  const MemoryStats before = a.stats();
  for (size_t bytes : {size_t{1} << 60, ~size_t{0}, ~size_t{0} - 100, size_t{1} << 48}) {
    a.release(a.allocate(1000));  // a cache that could be emptied to make room
    CHECK_THAT(error_of([&] { a.allocate(bytes); }), Catch::Contains("cpu memory: asked for"));
  }
  CHECK(a.stats().active == before.active);
}

TEST_CASE("tensors return their memory, aligned to 64 bytes", "[host]") {
  CachingAllocator& a = allocator({});
  const uint64_t before = a.stats().active;
  {
    const Tensor x = empty({1000});
    CHECK(reinterpret_cast<uintptr_t>(x.bytes()) % 64 == 0);
    CHECK(a.stats().active >= before + 4000);
    const Tensor view = raw::slice(x, 0, 10, 20);
    const uint64_t with_view = a.stats().active;
    CHECK(with_view == a.stats().active);
  }
  CHECK(a.stats().active == before);
  CHECK_THAT(error_of([] { allocator({DeviceKind::cuda, 0}); }), Catch::Contains("no CUDA"));
}

TEST_CASE("the allocator may be used from several threads") {
  CachingAllocator& a = allocator({});
  const uint64_t before = a.stats().active;
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        const size_t bytes = 64 + (i * 37 + t) % 500;
        auto* p = static_cast<unsigned char*>(a.allocate(bytes));
        std::memset(p, t, bytes);
        for (size_t k = 0; k < bytes; ++k) wrong += p[k] != t;
        a.release(p);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(a.stats().active == before);
}
