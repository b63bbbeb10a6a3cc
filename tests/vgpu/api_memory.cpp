// The API functions that allocate and free device and pinned memory.
#include <cstring>

#include "streams.h"

using namespace vgpu;

namespace {

// Under memory pressure the device first finishes what is enqueued, for the memory that it frees.
Allocation* allocate_or_wait(size_t bytes) {
  const int device = current_device();
  if (Allocation* allocation = allocate(bytes, device)) return allocation;
  synchronize_device(device);
  return allocate(bytes, device);
}

cudaError_t allocate_for(const char* name, void** p, size_t bytes, const Stream* stream) {
  if (!p) return cudaErrorInvalidValue;
  *p = nullptr;
  const cudaError_t forbidden =
      stream ? forbid_in_capture(name, stream) : forbid_unless_relaxed(name);
  if (forbidden) return forbidden;
  if (bytes == 0) return cudaSuccess;
  Allocation* allocation = allocate_or_wait(bytes);
  if (!allocation) return cudaErrorMemoryAllocation;
  *p = reinterpret_cast<void*>(allocation->begin);
  return cudaSuccess;
}

// Null, with the error set, unless `p` is the start of a live allocation.
Allocation* checked_allocation(const char* name, void* p, cudaError_t& error) {
  Allocation* allocation = lookup(p);
  if (!allocation || allocation->begin != reinterpret_cast<uintptr_t>(p)) {
    error = misuse(cudaErrorInvalidValue, "%s(%p): no allocation begins there", name, p);
    return nullptr;
  }
  if (!allocation->live) {
    error =
        misuse(cudaErrorInvalidValue, "%s(%p): buffer #%u is freed twice", name, p, allocation->id);
    return nullptr;
  }
  return allocation;
}

// The pool handle of a device: its number, from 1.
cudaMemPool_t pool_of(int device) {
  return reinterpret_cast<cudaMemPool_t>(static_cast<intptr_t>(device + 1));
}
bool device_of_pool(cudaMemPool_t pool, int& device) {
  device = static_cast<int>(reinterpret_cast<intptr_t>(pool)) - 1;
  return device >= 0 && device < options().devices;
}

}  // namespace

extern "C" {

// ---- device memory ------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** p, size_t bytes) {
  return api([&] { return allocate_for("cudaMalloc", p, bytes, nullptr); });
}

cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t handle) {
  return api([&]() -> cudaError_t {
    const auto stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    // Memory nodes of graphs are not implemented: a capture refuses them.
    return allocate_for("cudaMallocAsync", p, bytes, stream.get());
  });
}

cudaError_t cudaMallocFromPoolAsync(void** p, size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
  int device = 0;
  if (!device_of_pool(pool, device) || device != current_device()) {
    return record_error(cudaErrorInvalidValue);
  }
  return cudaMallocAsync(p, bytes, stream);
}

cudaError_t cudaFree(void* p) {
  return api([&]() -> cudaError_t {
    if (!p) return cudaSuccess;
    if (const cudaError_t error = forbid_unless_relaxed("cudaFree")) return error;
    cudaError_t error = cudaSuccess;
    if (!checked_allocation("cudaFree", p, error)) return error;
    const int device = lookup(p)->device;
    synchronize_device(device);
    if (const cudaError_t pending = device_error(device)) return pending;
    Allocation* allocation = checked_allocation("cudaFree", p, error);
    if (allocation) release(*allocation);
    return error;
  });
}

cudaError_t cudaFreeAsync(void* p, cudaStream_t handle) {
  return api([&]() -> cudaError_t {
    const auto stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (!p) return cudaSuccess;
    if (const cudaError_t error = forbid_in_capture("cudaFreeAsync", stream.get())) return error;
    cudaError_t error = cudaSuccess;
    if (!checked_allocation("cudaFreeAsync", p, error)) return error;
    const auto run = [p] {
      cudaError_t late = cudaSuccess;
      if (Allocation* allocation = checked_allocation("cudaFreeAsync", p, late))
        release(*allocation);
    };
    return submit(stream, {.what = "cudaFreeAsync", .run = run});
  });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return api([&] {
    *total = options().memory;
    *free = options().memory - used_memory(current_device());
    return cudaSuccess;
  });
}

// ---- pools: freed memory goes back at once, so that nothing is ever reserved beyond its use
// ------

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  *pool = pool_of(device);
  int checked = 0;
  return record_error(device_of_pool(*pool, checked) ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) {
  return cudaDeviceGetDefaultMemPool(pool, device);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return api([&]() -> cudaError_t {
    int device = 0;
    if (!device_of_pool(pool, device) || !value) return cudaErrorInvalidValue;
    switch (attribute) {
      case cudaMemPoolReuseFollowEventDependencies:
      case cudaMemPoolReuseAllowOpportunistic:
      case cudaMemPoolReuseAllowInternalDependencies:
      case cudaMemPoolAttrReleaseThreshold: return cudaSuccess;
      default: return cudaErrorInvalidValue;
    }
  });
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return api([&]() -> cudaError_t {
    int device = 0;
    if (!device_of_pool(pool, device) || !value) return cudaErrorInvalidValue;
    uint64_t bytes = 0;
    switch (attribute) {
      case cudaMemPoolAttrUsedMemCurrent:
      case cudaMemPoolAttrReservedMemCurrent: bytes = used_memory(device); break;
      case cudaMemPoolAttrUsedMemHigh:
      case cudaMemPoolAttrReservedMemHigh: bytes = peak_memory(device); break;
      case cudaMemPoolAttrReleaseThreshold: break;
      default: fault("cudaMemPoolGetAttribute: attribute %d is not implemented", attribute);
    }
    std::memcpy(value, &bytes, sizeof bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t) {
  int device = 0;
  return record_error(device_of_pool(pool, device) ? cudaSuccess : cudaErrorInvalidValue);
}

// ---- pinned memory ------------------------------------------------------------------------------

cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  return api([&]() -> cudaError_t {
    *p = nullptr;
    if (const cudaError_t error = forbid_unless_relaxed("cudaHostAlloc")) return error;
    if (bytes == 0) return cudaSuccess;
    *p = allocate_pinned(bytes);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
  });
}

cudaError_t cudaMallocHost(void** p, size_t bytes) {
  return cudaHostAlloc(p, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void* p) {
  return api([&]() -> cudaError_t {
    if (!p) return cudaSuccess;
    if (const cudaError_t error = forbid_unless_relaxed("cudaFreeHost")) return error;
    for (int device = 0; device < options().devices; ++device) synchronize_device(device);
    if (release_pinned(p)) return cudaSuccess;
    return misuse(cudaErrorInvalidValue, "cudaFreeHost(%p): not live pinned memory", p);
  });
}

cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned) {
  return api([&]() -> cudaError_t {
    if (!p || bytes == 0) return cudaErrorInvalidValue;
    return register_pinned(p, bytes) ? cudaSuccess : cudaErrorHostMemoryAlreadyRegistered;
  });
}

cudaError_t cudaHostUnregister(void* p) {
  return api([&]() -> cudaError_t {
    for (int device = 0; device < options().devices; ++device) synchronize_device(device);
    return unregister_pinned(p) ? cudaSuccess : cudaErrorHostMemoryNotRegistered;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
  return api([&] {
    *attributes = {};
    Region byte;
    byte.data = static_cast<char*>(const_cast<void*>(p)), byte.width = 1;
    const Allocation* allocation = lookup(p);
    if (allocation && range_problem(p, 1).empty()) {
      attributes->type = cudaMemoryTypeDevice;
      attributes->device = std::max(0, allocation->device);
      attributes->devicePointer = const_cast<void*>(p);
    } else if (host_memory(byte) == HostMemory::pinned) {
      attributes->type = cudaMemoryTypeHost;
      attributes->device = current_device();
      attributes->hostPointer = const_cast<void*>(p);
    } else {
      attributes->type = cudaMemoryTypeUnregistered;
      attributes->device = -1;
      attributes->hostPointer = const_cast<void*>(p);
    }
    return cudaSuccess;
  });
}

}  // extern "C"
