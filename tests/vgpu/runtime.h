#pragma once
// What the files of the runtime share: reports, memory, streams and the frame of every API call.
#include <memory>
#include <string>
#include <vector>

#include "vgpu.h"

namespace vgpu {

// ---- reports (report.cpp) -----------------------------------------------------------------------

/// Thrown by fault() inside stream work with VGPU_FAULT=error.
struct DeviceFault {};

/// Prints a report and goes on.
void note(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// An API call that is wrong whatever the device does: a fault; with VGPU_FAULT=error a report, and
/// the error code that hardware gives.
cudaError_t misuse(cudaError_t code, const char* format, ...) __attribute__((format(printf, 2, 3)));

// ---- errors and devices (devices.cpp) -----------------------------------------------------------

/// The device that the calling thread has selected.
int current_device();

/// The error a fault has left on a device, or success. It stays until the process ends.
cudaError_t device_error(int device);
void set_device_error(int device, cudaError_t error);

/// The compute capability the devices claim, as 80.
int device_arch();

/// The frame of an API call: takes the lock, returns the current device's pending fault if it has
/// one, otherwise runs `body` and stores its error.
template <typename F>
cudaError_t api(F&& body) {
  const std::lock_guard lock(device_mutex());
  if (const cudaError_t pending = device_error(current_device())) return record_error(pending);
  const cudaError_t error = body();
  if (const cudaError_t pending = device_error(current_device())) return record_error(pending);
  return record_error(error);
}

// ---- device memory (memory.cpp) -----------------------------------------------------------------

/// Memory of a device, poisoned and not initialised; null when its capacity is exceeded.
Allocation* allocate(size_t bytes, int device);
void release(Allocation& allocation);

/// The allocation at or below `p`, without the checks of find_allocation; null when there is none.
Allocation* lookup(const void* p);

/// Bytes of a device that are handed out now.
uint64_t used_memory(int device);
uint64_t peak_memory(int device);

/// Empty when [p, p + bytes) is live device memory, otherwise what is wrong with it.
std::string range_problem(const void* p, size_t bytes);

/// A rectangle of memory: `height` rows of `width` bytes, `pitch` apart.
struct Region {
  char* data = nullptr;
  size_t width = 0, pitch = 0, height = 1;
  /// From the first byte to behind the last one.
  size_t extent() const { return width && height ? (height - 1) * pitch + width : 0; }
  bool overlaps(const Region& other) const {
    return data < other.data + other.extent() && other.data < data + extent();
  }
};

/// Stream work on device memory other than a kernel's: faults unless every row is live, and, when
/// read, initialised; marks it as written, or checks it for races with other streams.
void use_device_memory(const char* what, const Region& region, bool write);

/// Closes device memory whatever the depth of device_access_begin: a fault has unwound past its
/// end.
void close_device_access();

// ---- pinned host memory (pinned.cpp) ------------------------------------------------------------

enum class HostMemory { pageable, pinned, straddling };
/// What kind of host memory a region is; `straddling` when only a part of it is pinned.
HostMemory host_memory(const Region& region);

void* allocate_pinned(size_t bytes);
/// False when `p` is not what allocate_pinned (or, registered, register_pinned) was given.
bool release_pinned(void* p);
bool register_pinned(void* p, size_t bytes);
bool unregister_pinned(void* p);

/// A copy between a stream and pinned host memory that has been enqueued and not yet run.
class Transfer {
 public:
  enum class Direction { from_host, to_host };
  Transfer(const Region& region, Direction direction);
  ~Transfer();
  Transfer(const Transfer&) = delete;
  /// Called when the stream reaches the copy: opens the memory, and faults when the host has
  /// changed the source since it was enqueued.
  void arrive(const std::string& what);

  const Region& region() const { return region_; }
  Direction direction() const { return direction_; }

 private:
  uint64_t checksum() const;
  Region region_;
  Direction direction_;
  bool checked_ = false;
  uint64_t checksum_ = 0;
};

/// Installs the handler that reports host access to closed memory, in front of the present one.
void watch_closed_memory();

}  // namespace vgpu
