#include "tensor/storage.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "tensor/error.h"

namespace centroid {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

void* host_allocate(size_t bytes) {
  const bool huge = bytes >= 2 * kHugePage;
  void* ptr = nullptr;
  if (posix_memalign(&ptr, huge ? kHugePage : kAlignment, bytes) != 0) return nullptr;
  if (huge) madvise(ptr, bytes, MADV_HUGEPAGE);
  return ptr;
}

bool caching_wanted() {
#if defined(CENTROID_SYSTEM_ALLOC)
  return false;
#else
  const char* choice = std::getenv("CENTROID_ALLOC");
  return !choice || std::strcmp(choice, "system") != 0;
#endif
}

}  // namespace

CachingAllocator::CachingAllocator(const char* name, SystemAllocate allocate, SystemFree free)
    : name_(name), system_allocate_(allocate), system_free_(free), caching_(caching_wanted()) {}

CachingAllocator::~CachingAllocator() { empty_cache(); }

size_t CachingAllocator::size_class(size_t bytes) {
  if (bytes <= 8 * kAlignment) return std::max(kAlignment, (bytes + 63) / 64 * 64);
  const size_t step = std::bit_floor(bytes - 1) / 8;
  return (bytes + step - 1) / step * step;
}

void* CachingAllocator::allocate(size_t bytes) {
  const size_t size = caching_ ? size_class(bytes) : std::max<size_t>(bytes, 1);
  std::lock_guard lock(mutex_);
  ++stats_.allocations;
  void* ptr = nullptr;
  if (auto it = free_.find(size); it != free_.end() && !it->second.empty()) {
    ptr = it->second.back();
    it->second.pop_back();
    stats_.cached -= size;
    ++stats_.reused;
  } else {
    // Reject sizes no machine has before the arithmetic of size classes or malloc can wrap.
    if (bytes < (size_t{1} << 48)) ptr = system_allocate_(size);
    if (!ptr && stats_.cached > 0) {
      empty_cache_locked();
      ptr = system_allocate_(size);
    }
    CENTROID_CHECK(ptr, name_, " memory: asked for ", bytes, " bytes, which the system refused; ",
                   stats_.active, " bytes are in use, ", stats_.cached,
                   " cached (a smaller batch or `recompute` needs less)");
  }
  stats_.active += size;
  stats_.peak = std::max(stats_.peak, stats_.active);
  return ptr;
}

void CachingAllocator::release(void* ptr, size_t bytes) noexcept {
  if (!ptr) return;
  const size_t size = caching_ ? size_class(bytes) : std::max<size_t>(bytes, 1);
  std::lock_guard lock(mutex_);
  stats_.active -= size;
  if (!caching_) return system_free_(ptr);
  try {
    free_[size].push_back(ptr);
    stats_.cached += size;
  } catch (...) {
    system_free_(ptr);
  }
}

MemoryStats CachingAllocator::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

void CachingAllocator::reset_peak() {
  std::lock_guard lock(mutex_);
  stats_.peak = stats_.active;
}

void CachingAllocator::empty_cache() {
  std::lock_guard lock(mutex_);
  empty_cache_locked();
}

void CachingAllocator::empty_cache_locked() {
  for (auto& [size, blocks] : free_) {
    for (void* ptr : blocks) system_free_(ptr);
  }
  free_.clear();
  stats_.cached = 0;
}

CachingAllocator& allocator(Device device) {
  require_device(device);
  // Never destroyed: tensors with static lifetime may outlive any order of destruction.
  static auto* cpu = new CachingAllocator("cpu", host_allocate, std::free);
  return *cpu;
}

Storage::Storage(size_t bytes, Device device)
    : ptr(allocator(device).allocate(bytes)), bytes(bytes), device(device) {}

Storage::~Storage() { allocator(device).release(ptr, bytes); }

}  // namespace centroid
