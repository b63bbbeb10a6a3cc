#pragma once
// Memory: a block shared by the views of a tensor, and the caching allocator it comes from.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tensor/device.h"

namespace centroid {

/// What the allocator has handed out and kept, in bytes.
struct MemoryStats {
  uint64_t active = 0;       ///< in use now
  uint64_t peak = 0;         ///< highest `active` since the last `reset_peak`
  uint64_t cached = 0;       ///< freed by tensors, kept for reuse
  uint64_t allocations = 0;  ///< requests so far
  uint64_t reused = 0;       ///< requests served from the cache
};

/// Keeps freed blocks by size class and hands them out again, also for requests down to two thirds
/// of their size: batches differ in length, and fresh pages cost several times more than the
/// arithmetic on them. Thread-safe. Blocks are aligned to 64 bytes. With the environment variable
/// CENTROID_ALLOC=system (and in sanitizer builds) every request goes to the system, so that tools
/// see each block's true bounds.
class CachingAllocator {
 public:
  using SystemAllocate = std::function<void*(size_t bytes)>;  ///< null when there is no more
  using SystemFree = std::function<void(void*)>;
  using SystemState = std::function<std::string()>;  ///< what the system has left, for errors
  CachingAllocator(const char* name, SystemAllocate allocate, SystemFree free,
                   SystemState state = {});
  ~CachingAllocator();
  CachingAllocator(const CachingAllocator&) = delete;

  /// A block of at least `bytes`. When the system has no more, the cache is emptied and the request
  /// repeated once; then throws an Error that says how much was asked for, active and cached.
  void* allocate(size_t bytes);
  /// Returns a block that `allocate` gave.
  void release(void* ptr) noexcept;

  MemoryStats stats() const;
  void reset_peak();
  void empty_cache();

  /// The size a request is rounded up to: multiples of 64 bytes, at most 1/8 above the request.
  static size_t size_class(size_t bytes);

 private:
  void empty_cache_locked();
  void* take_cached(size_t& size);  // sets `size` to the block's; null when none fits

  const char* name_;
  SystemAllocate system_allocate_;
  SystemFree system_free_;
  SystemState system_state_;
  bool caching_;
  mutable std::mutex mutex_;
  MemoryStats stats_;
  std::map<size_t, std::vector<void*>> free_;  // by size; no empty lists
  std::unordered_map<void*, size_t> active_;   // size of each block in use
};

/// The allocator of a device; throws for a device this build or machine does not have.
CachingAllocator& allocator(Device device);

/// A block of memory, freed with its last owner. `version` counts in-place changes: autograd
/// refuses to use a value that was overwritten after it was saved.
struct Storage {
  Storage(size_t bytes, Device device);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* ptr;
  size_t bytes;
  Device device;
  uint64_t version = 0;
};

}  // namespace centroid
