#pragma once
// The interface between the two halves of the virtual CUDA device: the engine, which executes PTX,
// and the runtime, which stands in for libcudart and libcublas.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

namespace vgpu {

/// Settings, read once from the environment. A variable VGPU_... that is not listed here stops the
/// program.
struct Options {
  bool poison = true;  ///< VGPU_POISON: fresh memory is filled with 0xff (NaN, -1)
  bool init = true;    ///< VGPU_INIT: reads of memory that nothing has written are faults
  bool race = true;    ///< VGPU_RACE: data races are faults
  bool guard = false;  ///< VGPU_GUARD: host access to device memory is a fault
  bool defer = true;   ///< VGPU_DEFER: stream work runs only when something waits for it
  std::string stats;   ///< VGPU_STATS=FILE: counters of every kernel are written there at exit
  bool leaks = false;  ///< VGPU_LEAKS: live device allocations are listed at exit
  bool fault_error = false;  ///< VGPU_FAULT=error: faults become error codes, as on hardware
  uint64_t seed = 0;         ///< VGPU_SEED: shuffles warps, blocks and streams; 0 runs in order
  uint64_t memory = 16ull << 30;  ///< VGPU_MEMORY: bytes of each device (suffixes K, M, G)
  int devices = 1;                ///< VGPU_DEVICES: how many there are
  int arch = 0;                   ///< VGPU_ARCH: compute capability, as 80; 0: that of the PTX
  int processors = 4;             ///< VGPU_PROCESSORS: multiprocessors each device claims to have
};
const Options& options();

/// xorshift64: the source of all scheduling decisions, seeded by Options::seed.
class Rng {
 public:
  explicit Rng(uint64_t state) : state_(state) {}
  uint32_t next() {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 16);
  }
  /// Uniform in [0, n).
  uint32_t below(uint32_t n) { return next() % n; }

 private:
  uint64_t state_;
};
Rng& rng();

// ---- reports ------------------------------------------------------------------------------------

/// Exit code of a program that a fault has ended.
constexpr int kFaultExit = 86;

/// Reports what the device was asked to do wrong and who was running, then ends the process with
/// exit code 86. With VGPU_FAULT=error a fault inside stream work instead ends that work (by an
/// exception that the runtime catches) and leaves cudaErrorIllegalAddress on the device.
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// Who is running, for reports (kernel, block, warp, source line); empty when nobody is.
void set_fault_context(std::function<std::string()> where);

/// Stores a CUDA error for cudaGetLastError and returns it; success stores nothing.
cudaError_t record_error(cudaError_t error);

// ---- device memory ------------------------------------------------------------------------------

/// A piece of device memory. Its record stays where it is, and its address is never used again,
/// after it is freed.
struct Allocation {
  uintptr_t begin;
  size_t size;
  bool live;
  unsigned id;
  /// One byte per byte of memory, 1 where something has been written; null when not tracked.
  uint8_t* valid;
  int device;  ///< that it belongs to; kAnyDevice for variables of modules
};
constexpr int kAnyDevice = -1;

/// The allocation at `p` or the nearest one below it, live or freed, for the caller to check
/// bounds; null when there is none. In a kernel, memory of another device is a fault.
Allocation* find_allocation(const void* p);

bool in_device_arena(const void* p);

/// Zeroed memory for a variable of a module: outside capacity and leak report, seen by all devices.
void* allocate_symbol(size_t bytes);

/// Between the two, device memory can be reached with VGPU_GUARD=1. They nest.
void device_access_begin();
void device_access_end();

// ---- launches -----------------------------------------------------------------------------------

/// Held by every call into the runtime and while stream work runs.
std::recursive_mutex& device_mutex();

/// What the current device refuses to launch, or its pending fault; stored for cudaGetLastError.
cudaError_t check_launch(const void* function, dim3 grid, dim3 block, size_t static_shared,
                         size_t dynamic_shared);

/// Appends a kernel to a stream of the current device, or to the graph being captured there; `name`
/// is for reports. The task may run later, and more than once. Errors are stored for
/// cudaGetLastError.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> task, std::string name = "kernel");

// ---- order of stream work -----------------------------------------------------------------------

/// The number of the task that runs now, counted from 1; 0 outside of stream work.
uint32_t running_task();

/// Whether an earlier task has ended before the one that runs now may start.
bool ordered_before_running(uint32_t task);

/// Whether more than one stream has ever been given work: without, all work is ordered.
bool streams_can_overlap();

// ---- provided by the engine ---------------------------------------------------------------------

/// What the compiler says about a kernel.
struct KernelInfo {
  std::string name;  ///< demangled
  size_t static_shared = 0, local_bytes = 0, const_bytes = 0;
  int max_threads = 1024;  ///< of a block, from __launch_bounds__
  int arch = 0;            ///< of its PTX, as 80
};
/// False when `function` is no kernel.
bool kernel_info(const void* function, KernelInfo& info);

/// Stream work other than a kernel reads or writes global memory: faults when that races with other
/// streams.
void race_check_range(const void* p, size_t bytes, bool write);

/// The highest architecture of any PTX in the program that options().arch allows, as 80; 0: none.
int ptx_arch();

}  // namespace vgpu
