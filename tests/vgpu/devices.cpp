// Devices: the selected one, their errors and properties, what kernels may be launched on them, and
// the API functions about these.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "streams.h"

namespace vgpu {
namespace {

thread_local int selected_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

std::vector<cudaError_t>& device_errors() {
  static std::vector<cudaError_t> errors(static_cast<size_t>(std::max(1, options().devices)));
  return errors;
}

// From the table of technical specifications per compute capability in the CUDA programming guide.
struct Limits {
  int arch;
  int threads_per_processor, blocks_per_processor;
  size_t shared_per_processor, shared_per_block;
};
constexpr size_t kKilo = 1024;
constexpr Limits kLimits[] = {
    {75, 1024, 16, 64 * kKilo, 64 * kKilo},    {80, 2048, 32, 164 * kKilo, 163 * kKilo},
    {86, 1536, 16, 100 * kKilo, 99 * kKilo},   {87, 1536, 16, 164 * kKilo, 163 * kKilo},
    {89, 1536, 24, 100 * kKilo, 99 * kKilo},   {90, 2048, 32, 228 * kKilo, 227 * kKilo},
    {100, 2048, 32, 228 * kKilo, 227 * kKilo}, {103, 2048, 32, 228 * kKilo, 227 * kKilo},
    {110, 1536, 24, 228 * kKilo, 227 * kKilo}, {120, 1536, 24, 100 * kKilo, 99 * kKilo},
    {121, 1536, 24, 100 * kKilo, 99 * kKilo}};
constexpr size_t kDefaultShared = 48 * kKilo, kReservedShared = 1 * kKilo;
constexpr int kMaxThreads = 1024, kMaxBlockZ = 64, kMaxGridYZ = 65535, kWarp = 32;
constexpr int kMaxGridX = 2147483647;

const Limits& limits() {
  for (const Limits& l : kLimits) {
    if (l.arch == device_arch()) return l;
  }
  fault("the limits of compute capability %d.%d are not known", device_arch() / 10,
        device_arch() % 10);
}

size_t reserved_shared() { return device_arch() >= 80 ? kReservedShared : 0; }

// Dynamic shared memory that a function has been allowed by cudaFuncSetAttribute.
std::map<const void*, size_t>& allowed_shared() {
  static std::map<const void*, size_t> allowed;
  return allowed;
}

std::string kernel_name(const void* function) {
  KernelInfo info;
  return kernel_info(function, info) ? info.name : "an unknown function";
}

cudaError_t refuse(cudaError_t error, const void* function, const std::string& why) {
  note("launch of %s refused: %s", kernel_name(function).c_str(), why.c_str());
  return error;
}

std::string text_of(dim3 d) {
  return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z);
}

cudaError_t check_shape(const void* function, dim3 grid, dim3 block) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > kMaxBlockZ) {
    return refuse(cudaErrorInvalidConfiguration, function, "a block of " + text_of(block));
  }
  if (!grid.x || !grid.y || !grid.z || grid.x > kMaxGridX || grid.y > kMaxGridYZ ||
      grid.z > kMaxGridYZ) {
    return refuse(cudaErrorInvalidConfiguration, function, "a grid of " + text_of(grid));
  }
  return cudaSuccess;
}

// Blocks of a kernel that fit on a multiprocessor. Registers are ptxas's affair and do not count.
int resident_blocks(size_t static_shared, int threads, size_t dynamic_shared) {
  const Limits& l = limits();
  const int warps = (threads + kWarp - 1) / kWarp;
  const size_t shared = static_shared + dynamic_shared + reserved_shared();
  int blocks = std::min(l.blocks_per_processor, l.threads_per_processor / (warps * kWarp));
  if (shared) blocks = std::min(blocks, static_cast<int>(l.shared_per_processor / shared));
  return blocks;
}

}  // namespace

int current_device() { return selected_device; }

cudaError_t device_error(int device) {
  return options().devices < 1 ? cudaErrorNoDevice : device_errors()[static_cast<size_t>(device)];
}
void set_device_error(int device, cudaError_t error) {
  device_errors()[static_cast<size_t>(device)] = error;
}

cudaError_t record_error(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

std::recursive_mutex& device_mutex() {
  static auto* mutex = new std::recursive_mutex;
  return *mutex;
}

int device_arch() {
  constexpr int kDefaultArch = 80;
  if (options().arch) return options().arch;
  return ptx_arch() ? ptx_arch() : kDefaultArch;
}

cudaError_t check_launch(const void* function, dim3 grid, dim3 block, size_t static_shared,
                         size_t dynamic_shared) {
  return api([&]() -> cudaError_t {
    if (const cudaError_t error = check_shape(function, grid, block)) return error;
    const auto allowed = allowed_shared().find(function);
    const size_t dynamic_limit = allowed != allowed_shared().end() ? allowed->second : 0;
    if (static_shared + dynamic_shared > kDefaultShared && dynamic_shared > dynamic_limit) {
      return refuse(cudaErrorInvalidValue, function,
                    std::to_string(dynamic_shared) + " bytes of dynamic and " +
                        std::to_string(static_shared) +
                        " of static shared memory (cudaFuncSetAttribute allows more than 48 K)");
    }
    return cudaSuccess;
  });
}

}  // namespace vgpu

using namespace vgpu;

namespace {

cudaDeviceProp properties_of(int device) {
  const Limits& l = limits();
  cudaDeviceProp p{};
  std::snprintf(p.name, sizeof p.name, "virtual device (sm_%d)", device_arch());
  p.uuid.bytes[0] = static_cast<char>(device + 1);
  p.totalGlobalMem = options().memory;
  p.major = device_arch() / 10, p.minor = device_arch() % 10;
  p.multiProcessorCount = options().processors;
  p.sharedMemPerBlock = kDefaultShared, p.sharedMemPerBlockOptin = l.shared_per_block;
  p.sharedMemPerMultiprocessor = l.shared_per_processor;
  p.reservedSharedMemPerBlock = reserved_shared();
  p.regsPerBlock = p.regsPerMultiprocessor = 65536;
  p.warpSize = kWarp, p.maxThreadsPerBlock = kMaxThreads;
  p.maxThreadsPerMultiProcessor = l.threads_per_processor;
  p.maxBlocksPerMultiProcessor = l.blocks_per_processor;
  p.maxThreadsDim[0] = p.maxThreadsDim[1] = kMaxThreads, p.maxThreadsDim[2] = kMaxBlockZ;
  p.maxGridSize[0] = kMaxGridX, p.maxGridSize[1] = p.maxGridSize[2] = kMaxGridYZ;
  p.totalConstMem = 64 * kKilo, p.memPitch = kMaxGridX;
  p.l2CacheSize = 4 * 1024 * 1024, p.memoryBusWidth = 256;
  p.concurrentKernels = p.unifiedAddressing = p.asyncEngineCount = p.memoryPoolsSupported = 1;
  p.hostRegisterSupported = p.streamPrioritiesSupported = p.computePreemptionSupported = 1;
  p.pciDeviceID = device;
  return p;
}

bool is_device(int device) { return device >= 0 && device < options().devices; }

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = options().devices;
  return record_error(options().devices ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  if (!is_device(device)) return record_error(cudaErrorInvalidDevice);
  selected_device = device;
  return record_error(device_error(device));
}

cudaError_t cudaGetDevice(int* device) {
  *device = selected_device;
  return record_error(options().devices ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!is_device(device)) return record_error(cudaErrorInvalidDevice);
  *properties = properties_of(device);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!is_device(device)) return record_error(cudaErrorInvalidDevice);
  const cudaDeviceProp p = properties_of(device);
  const std::pair<cudaDeviceAttr, size_t> values[] = {
      {cudaDevAttrMultiProcessorCount, static_cast<size_t>(p.multiProcessorCount)},
      {cudaDevAttrComputeCapabilityMajor, static_cast<size_t>(p.major)},
      {cudaDevAttrComputeCapabilityMinor, static_cast<size_t>(p.minor)},
      {cudaDevAttrMaxSharedMemoryPerBlock, p.sharedMemPerBlock},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, p.sharedMemPerBlockOptin},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, p.sharedMemPerMultiprocessor},
      {cudaDevAttrReservedSharedMemoryPerBlock, p.reservedSharedMemPerBlock},
      {cudaDevAttrMaxThreadsPerBlock, kMaxThreads},
      {cudaDevAttrMaxThreadsPerMultiProcessor, static_cast<size_t>(p.maxThreadsPerMultiProcessor)},
      {cudaDevAttrMaxBlocksPerMultiprocessor, static_cast<size_t>(p.maxBlocksPerMultiProcessor)},
      {cudaDevAttrMaxRegistersPerBlock, static_cast<size_t>(p.regsPerBlock)},
      {cudaDevAttrMaxRegistersPerMultiprocessor, static_cast<size_t>(p.regsPerMultiprocessor)},
      {cudaDevAttrWarpSize, kWarp},
      {cudaDevAttrMaxBlockDimX, kMaxThreads},
      {cudaDevAttrMaxBlockDimY, kMaxThreads},
      {cudaDevAttrMaxBlockDimZ, kMaxBlockZ},
      {cudaDevAttrMaxGridDimX, kMaxGridX},
      {cudaDevAttrMaxGridDimY, kMaxGridYZ},
      {cudaDevAttrMaxGridDimZ, kMaxGridYZ},
      {cudaDevAttrTotalConstantMemory, p.totalConstMem},
      {cudaDevAttrL2CacheSize, static_cast<size_t>(p.l2CacheSize)},
      {cudaDevAttrGlobalMemoryBusWidth, static_cast<size_t>(p.memoryBusWidth)},
      {cudaDevAttrAsyncEngineCount, 1},
      {cudaDevAttrConcurrentKernels, 1},
      {cudaDevAttrUnifiedAddressing, 1},
      {cudaDevAttrMemoryPoolsSupported, 1},
      {cudaDevAttrHostRegisterSupported, 1},
      {cudaDevAttrCooperativeLaunch, 0},
      {cudaDevAttrClusterLaunch, 0},
      {cudaDevAttrManagedMemory, 0},
      {cudaDevAttrIntegrated, 0}};
  for (const auto& [known, number] : values) {
    if (known != attribute) continue;
    *value = static_cast<int>(number);
    return cudaSuccess;
  }
  fault("cudaDeviceGetAttribute: attribute %d is not implemented", static_cast<int>(attribute));
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  if (!is_device(device) || !is_device(peer)) return record_error(cudaErrorInvalidDevice);
  *can = 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }

// A fault stays; any other error is told once.
cudaError_t cudaGetLastError() {
  const cudaError_t pending = device_error(current_device());
  const cudaError_t error = pending ? pending : last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() {
  const cudaError_t pending = device_error(current_device());
  return pending ? pending : last_error;
}

// ---- kernels ------------------------------------------------------------------------------------

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return api([&]() -> cudaError_t {
    KernelInfo info;
    if (!kernel_info(function, info)) return cudaErrorInvalidDeviceFunction;
    *attributes = {};
    attributes->sharedSizeBytes = info.static_shared;
    attributes->constSizeBytes = info.const_bytes;
    attributes->localSizeBytes = info.local_bytes;
    attributes->maxThreadsPerBlock = info.max_threads;
    attributes->ptxVersion = info.arch, attributes->binaryVersion = device_arch();
    const auto allowed = allowed_shared().find(function);
    attributes->maxDynamicSharedSizeBytes = static_cast<int>(
        allowed != allowed_shared().end() ? allowed->second : kDefaultShared - info.static_shared);
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  return api([&]() -> cudaError_t {
    KernelInfo info;
    if (!kernel_info(function, info)) return cudaErrorInvalidDeviceFunction;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) {
      return value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue;
    }
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
      fault("cudaFuncSetAttribute: attribute %d is not implemented", static_cast<int>(attribute));
    }
    if (value < 0 || static_cast<size_t>(value) + info.static_shared > limits().shared_per_block) {
      return cudaErrorInvalidValue;
    }
    allowed_shared()[function] = static_cast<size_t>(value);
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetCacheConfig(const void* function, cudaFuncCache) {
  return api([&]() -> cudaError_t {
    KernelInfo info;
    return kernel_info(function, info) ? cudaSuccess : cudaErrorInvalidDeviceFunction;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, const void* function, int threads, size_t dynamic_shared, unsigned) {
  return api([&]() -> cudaError_t {
    KernelInfo info;
    if (!kernel_info(function, info)) return cudaErrorInvalidDeviceFunction;
    if (threads < 1) return cudaErrorInvalidValue;
    *blocks = threads > info.max_threads
                  ? 0
                  : resident_blocks(info.static_shared, threads, dynamic_shared);
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function,
                                                          int threads, size_t dynamic_shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads,
                                                                dynamic_shared, 0);
}

}  // extern "C"
