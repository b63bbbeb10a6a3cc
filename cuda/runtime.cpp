// Devices: one stream, one cuBLAS handle, one allocator, one staging area and one fault record
// each, made on first use and never destroyed (tensors with static lifetime outlive everything).
#include "cuda/runtime.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>

namespace centroid::cuda {
namespace {

constexpr size_t kStagingBytes = size_t{1} << 20;
constexpr int kStagingBuffers = 4;
constexpr size_t kBlasWorkspaceBytes = size_t{4} << 20;

thread_local const char* t_kernel = nullptr;  // the kernel being launched, for errors
thread_local int t_current = -1;              // the device that the CUDA runtime was told last

bool wait_for_each_kernel() {
  static const bool wait = [] {
    const char* value = std::getenv("CENTROID_SYNC");
    return value && *value && std::strcmp(value, "0") != 0;
  }();
  return wait;
}

// Pinned memory that copies go through: the host's own may be freed or overwritten before the
// stream comes to the copy.
struct Staging {
  void* data = nullptr;
  cudaEvent_t free = nullptr;  // when the last copy out of it is done
};

struct DeviceState {
  int index = 0;
  cudaStream_t stream = nullptr;
  cublasHandle_t blas = nullptr;
  void* blas_workspace = nullptr;
  Limits limits{};
  Fault* fault = nullptr;
  CachingAllocator* memory = nullptr;
  Staging staging[kStagingBuffers];
  int next_staging = 0;
  std::mutex staging_mutex;
};

void activate(int index) {
  if (t_current == index) return;
  CENTROID_CUDA(cudaSetDevice(index));
  t_current = index;
}

// Memory is taken and given back in the order of the stream; null when the device has no more.
void* device_allocate(DeviceState& device, size_t bytes) {
  activate(device.index);
  void* ptr = nullptr;
  const cudaError_t status = cudaMallocAsync(&ptr, bytes, device.stream);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it would be reported again by the next launch
    return nullptr;
  }
  check(status, "cudaMallocAsync");
  return ptr;
}

std::string free_memory(DeviceState& device) {
  activate(device.index);
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return "free memory is unknown";
  return concat(free, " of the device's ", total, " free");
}

int attribute(cudaDeviceAttr which, int index) {
  int value = 0;
  CENTROID_CUDA(cudaDeviceGetAttribute(&value, which, index));
  return value;
}

DeviceState* open_device(int index) {
  activate(index);
  auto* device = new DeviceState;
  device->index = index;
  device->limits = {attribute(cudaDevAttrMultiProcessorCount, index),
                    attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index),
                    attribute(cudaDevAttrComputeCapabilityMajor, index),
                    attribute(cudaDevAttrComputeCapabilityMinor, index)};
  CENTROID_CUDA(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking));
  device->memory = new CachingAllocator(
      "CUDA", [device](size_t bytes) { return device_allocate(*device, bytes); },
      [device](void* ptr) { cudaFreeAsync(ptr, device->stream); },
      [device] { return free_memory(*device); });
  CENTROID_CUDA(cudaMalloc(reinterpret_cast<void**>(&device->fault), sizeof(Fault)));
  CENTROID_CUDA(cudaMemsetAsync(device->fault, 0, sizeof(Fault), device->stream));
  for (Staging& staging : device->staging) {
    CENTROID_CUDA(cudaMallocHost(&staging.data, kStagingBytes));
    CENTROID_CUDA(cudaEventCreateWithFlags(&staging.free, cudaEventDisableTiming));
  }
  CENTROID_CUDA(cublasCreate(&device->blas));
  CENTROID_CUDA(cublasSetStream(device->blas, device->stream));
  // A workspace of our own: cuBLAS would allocate one while a step is being captured.
  CENTROID_CUDA(cudaMalloc(&device->blas_workspace, kBlasWorkspaceBytes));
  CENTROID_CUDA(cublasSetWorkspace(device->blas, device->blas_workspace, kBlasWorkspaceBytes));
  return device;
}

DeviceState& state(int index) {
  static std::mutex mutex;
  static auto* devices = new std::deque<DeviceState*>;
  std::lock_guard lock(mutex);
  const int count = device_count();
  CENTROID_CHECK(index >= 0 && index < count, "cuda:", index, ": this machine has ", count,
                 " CUDA devices");
  if (devices->empty()) devices->resize(count);
  DeviceState*& device = (*devices)[index];
  if (!device) device = open_device(index);
  return *device;
}

DeviceState& current() {
  if (t_current < 0) activate(0);
  return state(t_current);
}

// Waits for the stream and throws the fault that a kernel has recorded since the last time.
void wait(DeviceState& device) {
  Fault* fault = static_cast<Fault*>(device.staging[0].data);
  CENTROID_CUDA(cudaEventSynchronize(device.staging[0].free));
  CENTROID_CUDA(
      cudaMemcpyAsync(fault, device.fault, sizeof(Fault), cudaMemcpyDeviceToHost, device.stream));
  CENTROID_CUDA(cudaStreamSynchronize(device.stream));
  if (fault->op == 0) return;
  const Fault found = *fault;
  CENTROID_CUDA(cudaMemsetAsync(device.fault, 0, sizeof(Fault), device.stream));
  throw Error(concat(reinterpret_cast<const char*>(found.op), ": index ", found.index,
                     " at position ", found.position, " of the indices, outside [0, ", found.bound,
                     ") (found on ", to_string(Device{DeviceKind::cuda, device.index}),
                     " when its results were asked for)"));
}

void copy_from_host(DeviceState& device, char* to, const char* from, size_t bytes) {
  std::lock_guard lock(device.staging_mutex);
  for (size_t done = 0, n; done < bytes; done += n) {
    n = std::min(kStagingBytes, bytes - done);
    Staging& staging = device.staging[device.next_staging++ % kStagingBuffers];
    CENTROID_CUDA(cudaEventSynchronize(staging.free));
    std::memcpy(staging.data, from + done, n);
    CENTROID_CUDA(
        cudaMemcpyAsync(to + done, staging.data, n, cudaMemcpyHostToDevice, device.stream));
    CENTROID_CUDA(cudaEventRecord(staging.free, device.stream));
  }
}

void copy_to_host(DeviceState& device, char* to, const char* from, size_t bytes) {
  std::lock_guard lock(device.staging_mutex);
  Staging& staging = device.staging[1];
  for (size_t done = 0, n; done < bytes; done += n) {
    n = std::min(kStagingBytes, bytes - done);
    CENTROID_CUDA(cudaEventSynchronize(staging.free));
    CENTROID_CUDA(
        cudaMemcpyAsync(staging.data, from + done, n, cudaMemcpyDeviceToHost, device.stream));
    wait(device);
    std::memcpy(to + done, staging.data, n);
  }
}

// The source's stream has to reach this point first, and may not free the memory before the copy.
void copy_across(DeviceState& to_device, void* to, DeviceState& from_device, const void* from,
                 size_t bytes) {
  cudaEvent_t reached = nullptr;
  const auto order = [&](DeviceState& first, DeviceState& second) {
    activate(first.index);
    CENTROID_CUDA(cudaEventCreateWithFlags(&reached, cudaEventDisableTiming));
    CENTROID_CUDA(cudaEventRecord(reached, first.stream));
    CENTROID_CUDA(cudaStreamWaitEvent(second.stream, reached, 0));
    CENTROID_CUDA(cudaEventDestroy(reached));
  };
  order(from_device, to_device);
  activate(to_device.index);
  CENTROID_CUDA(
      cudaMemcpyPeerAsync(to, to_device.index, from, from_device.index, bytes, to_device.stream));
  order(to_device, from_device);
}

}  // namespace

bool compiled() { return true; }

int device_count(std::string* reason) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return count;
  if (reason)
    *reason = status == cudaSuccess ? "the driver lists none" : cudaGetErrorString(status);
  if (status != cudaSuccess) cudaGetLastError();
  return 0;
}

CachingAllocator& allocator(int index) { return *state(index).memory; }

void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (bytes == 0) return;
  if (from_device.kind == DeviceKind::cpu) {
    DeviceState& device = state(to_device.index);
    activate(device.index);
    copy_from_host(device, static_cast<char*>(to), static_cast<const char*>(from), bytes);
  } else if (to_device.kind == DeviceKind::cpu) {
    DeviceState& device = state(from_device.index);
    activate(device.index);
    copy_to_host(device, static_cast<char*>(to), static_cast<const char*>(from), bytes);
  } else if (to_device == from_device) {
    DeviceState& device = state(to_device.index);
    activate(device.index);
    CENTROID_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, device.stream));
  } else {
    copy_across(state(to_device.index), to, state(from_device.index), from, bytes);
  }
}

void synchronize(int index) {
  DeviceState& device = state(index);
  activate(index);
  std::lock_guard lock(device.staging_mutex);
  wait(device);
}

void begin_kernel(int index, const char* name) {
  activate(index);
  t_kernel = name;
}

void end_kernel(int index) {
  if (wait_for_each_kernel()) synchronize(index);
  t_kernel = nullptr;
}

cudaStream_t stream() { return current().stream; }

cublasHandle_t blas() {
  DeviceState& device = current();
  CENTROID_CUDA(cublasSetMathMode(device.blas, math_mode() == MathMode::tf32
                                                   ? CUBLAS_TF32_TENSOR_OP_MATH
                                                   : CUBLAS_DEFAULT_MATH));
  return device.blas;
}

const Limits& limits() { return current().limits; }

Fault* fault_record() { return current().fault; }

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  const char* hint = wait_for_each_kernel() ? ""
                                            : " (an earlier kernel may be the cause: "
                                              "CENTROID_SYNC=1 waits for each and names it)";
  throw Error(
      concat(t_kernel ? t_kernel : "CUDA", ": ", cudaGetErrorString(status), " in ", call, hint));
}

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(concat(t_kernel ? t_kernel : "CUDA", ": cuBLAS error ", static_cast<int>(status),
                     " in ", call));
}

}  // namespace centroid::cuda
