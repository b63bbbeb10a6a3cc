#include "tensor/storage.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tensor/backend.h"
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

CachingAllocator::CachingAllocator(const char* name, SystemAllocate allocate, SystemFree free,
                                   SystemState state)
    : name_(name),
      system_allocate_(std::move(allocate)),
      system_free_(std::move(free)),
      system_state_(std::move(state)),
      caching_(caching_wanted()) {}

CachingAllocator::~CachingAllocator() { empty_cache(); }

size_t CachingAllocator::size_class(size_t bytes) {
  if (bytes <= 8 * kAlignment) return std::max(kAlignment, (bytes + 63) / 64 * 64);
  const size_t step = std::bit_floor(bytes - 1) / 8;
  return (bytes + step - 1) / step * step;
}

void* CachingAllocator::take_cached(size_t& size) {
  const auto it = free_.lower_bound(size);
  if (it == free_.end() || it->first > size + size / 2) return nullptr;
  size = it->first;
  void* ptr = it->second.back();
  it->second.pop_back();
  if (it->second.empty()) free_.erase(it);
  stats_.cached -= size;
  ++stats_.reused;
  return ptr;
}

void* CachingAllocator::allocate(size_t bytes) {
  // No machine has 2^48 bytes; beyond that, rounding up here or inside malloc could wrap.
  const bool possible = bytes < (size_t{1} << 48);
  size_t size = caching_ && possible ? size_class(bytes) : std::max<size_t>(bytes, 1);
  std::lock_guard lock(mutex_);
  ++stats_.allocations;
  void* ptr = possible ? take_cached(size) : nullptr;
  if (!ptr) {
    if (possible) ptr = system_allocate_(size);
    if (!ptr && possible && stats_.cached > 0) {
      empty_cache_locked();
      ptr = system_allocate_(size);
    }
    CENTROID_CHECK(ptr, name_, " memory: asked for ", bytes, " bytes, which the system refused; ",
                   stats_.active, " bytes are in use, ", stats_.cached, " cached",
                   system_state_ ? ", " + system_state_() : "",
                   " (a smaller batch or `recompute` needs less)");
  }
  active_[ptr] = size;
  stats_.active += size;
  stats_.peak = std::max(stats_.peak, stats_.active);
  return ptr;
}

void CachingAllocator::release(void* ptr) noexcept {
  std::lock_guard lock(mutex_);
  const auto it = active_.find(ptr);
  if (it == active_.end()) return;
  const size_t size = it->second;
  active_.erase(it);
  stats_.active -= size;
  if (!caching_) return system_free_(ptr);
  try {
    free_[size].push_back(ptr);
    stats_.cached += size;
  } catch (...) {  // no memory for the list itself
    if (const auto list = free_.find(size); list != free_.end() && list->second.empty()) {
      free_.erase(list);
    }
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
  if (device.kind == DeviceKind::cuda) return cuda::allocator(device.index);
  // Never destroyed: tensors with static lifetime may outlive any order of destruction.
  static auto* cpu = new CachingAllocator("cpu", host_allocate, std::free);
  return *cpu;
}

Storage::Storage(size_t bytes, Device device)
    : ptr(allocator(device).allocate(bytes)), bytes(bytes), device(device) {}

Storage::~Storage() { allocator(device).release(ptr); }

}  // namespace centroid
