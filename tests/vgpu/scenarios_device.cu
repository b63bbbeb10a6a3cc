// What the runtime answers about devices, memory, launches and errors.
#include <algorithm>
#include <cstring>

#include "cases.h"

namespace vgpu::test {
namespace {

constexpr size_t kKilo = 1024;

__global__ void fill(float* y, int n, float value) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = value;
}
__global__ void __launch_bounds__(128) bounded(float* y) { y[threadIdx.x] = 1; }
__global__ void with_dynamic(float* y) {
  extern __shared__ float dynamic[];
  dynamic[threadIdx.x] = 2;
  __syncthreads();
  y[threadIdx.x] = dynamic[threadIdx.x];
}

void expect(cudaError_t got, cudaError_t wanted, const char* what) {
  require(got == wanted, std::string(what) + ": " + cudaGetErrorName(got) + " instead of " +
                             cudaGetErrorName(wanted));
}

// ---- memory -------------------------------------------------------------------------------------

void capacity() {  // VGPU_MEMORY=1M
  size_t free = 0, total = 0;
  void *a = nullptr, *b = nullptr;
  expect(cudaMalloc(&a, 600 * kKilo), cudaSuccess, "first allocation");
  expect(cudaMemGetInfo(&free, &total), cudaSuccess, "info");
  require(total == 1024 * kKilo && free == 424 * kKilo, "what is free");
  expect(cudaMalloc(&b, 600 * kKilo), cudaErrorMemoryAllocation, "too much");
  require(b == nullptr, "no memory");
  expect(cudaPeekAtLastError(), cudaErrorMemoryAllocation, "peek");
  expect(cudaGetLastError(), cudaErrorMemoryAllocation, "last error");
  expect(cudaGetLastError(), cudaSuccess, "told once");
  expect(cudaMallocAsync(&b, 600 * kKilo, nullptr), cudaErrorMemoryAllocation, "too much");
  cudaGetLastError();
  expect(cudaFreeAsync(a, nullptr), cudaSuccess, "free");
  expect(cudaMallocAsync(&b, 600 * kKilo, nullptr), cudaSuccess, "memory that a stream is to free");
  expect(cudaFree(b), cudaSuccess, "free");
  expect(cudaMemGetInfo(&free, &total), cudaSuccess, "info");
  require(free == total, "all is free");
}

void pools() {
  cudaMemPool_t pool;
  expect(cudaDeviceGetDefaultMemPool(&pool, 0), cudaSuccess, "pool");
  uint64_t threshold = UINT64_MAX, used = 1;
  expect(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold), cudaSuccess,
         "threshold");
  void* p = nullptr;
  expect(cudaMallocAsync(&p, 1000, nullptr), cudaSuccess, "allocation");
  expect(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used), cudaSuccess, "used");
  require(used == 1000, "what is used");
  expect(cudaFreeAsync(p, nullptr), cudaSuccess, "free");
  finish();
  expect(cudaMemPoolTrimTo(pool, 0), cudaSuccess, "trim");
  expect(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used), cudaSuccess, "used");
  require(used == 0, "nothing is used");
}

void fresh_memory() {
  const Buffer<float> x(100);
  require(reinterpret_cast<uintptr_t>(x.data()) % 256 == 0, "alignment of device memory");
  void* again = nullptr;
  expect(cudaMalloc(&again, 400), cudaSuccess, "allocation");
  expect(cudaFree(again), cudaSuccess, "free");
  void* next = nullptr;
  expect(cudaMalloc(&next, 400), cudaSuccess, "allocation");
  require(next != again, "addresses are not used again");
  expect(cudaFree(next), cudaSuccess, "free");
  expect(cudaFree(nullptr), cudaSuccess, "free of null");
  void* empty = next;
  expect(cudaMalloc(&empty, 0), cudaSuccess, "nothing");
  require(empty == nullptr, "nothing is null");
}

void pointers() {
  const Buffer<float> x(10);
  std::vector<float> pageable(10);
  float* pinned = nullptr;
  expect(cudaHostAlloc(&pinned, 40, cudaHostAllocDefault), cudaSuccess, "pinned");
  const auto type = [](const void* p) {
    cudaPointerAttributes attributes;
    require_success(cudaPointerGetAttributes(&attributes, p), "attributes");
    return attributes.type;
  };
  require(type(x.data()) == cudaMemoryTypeDevice, "device");
  require(type(pinned + 9) == cudaMemoryTypeHost, "pinned");
  require(type(pageable.data()) == cudaMemoryTypeUnregistered, "pageable");
  expect(cudaHostRegister(pageable.data(), 40, 0), cudaSuccess, "register");
  require(type(pageable.data()) == cudaMemoryTypeHost, "registered");
  expect(cudaHostRegister(pageable.data() + 1, 4, 0), cudaErrorHostMemoryAlreadyRegistered,
         "twice");
  expect(cudaHostUnregister(pageable.data()), cudaSuccess, "unregister");
  expect(cudaHostUnregister(pageable.data()), cudaErrorHostMemoryNotRegistered, "unregister twice");
  expect(cudaFreeHost(pinned), cudaSuccess, "free");
}

void leaks() {  // VGPU_LEAKS=1
  void* p = nullptr;
  cudaMalloc(&p, 1234);
}

// ---- copies -------------------------------------------------------------------------------------

void rectangles() {
  constexpr size_t kRows = 3, kWidth = 5, kPitch = 8;
  std::vector<unsigned char> host(kRows * kWidth), back(kRows * kWidth);
  for (size_t i = 0; i < host.size(); ++i) host[i] = static_cast<unsigned char>(i);
  const Buffer<unsigned char> x((kRows - 1) * kPitch + kWidth);
  expect(cudaMemset(x.data(), 0xcc, x.size()), cudaSuccess, "fill");
  expect(cudaMemcpy2DAsync(x.data(), kPitch, host.data(), kWidth, kWidth, kRows,
                           cudaMemcpyHostToDevice, nullptr),
         cudaSuccess, "upload");
  expect(cudaMemset2DAsync(x.data() + kPitch, kPitch, 7, 2, 2, nullptr), cudaSuccess, "fill");
  expect(cudaMemcpy2D(back.data(), kWidth, x.data(), kPitch, kWidth, kRows, cudaMemcpyDefault),
         cudaSuccess, "download");
  for (const size_t i : {5, 6, 10, 11}) host[i] = 7;
  require(back == host, "rows");
  require(x.download()[kWidth] == 0xcc, "bytes between the rows");
  expect(cudaMemcpy2D(back.data(), 1, x.data(), kPitch, kWidth, kRows, cudaMemcpyDefault),
         cudaErrorInvalidPitchValue, "rows that overlap");
}

// A pageable source is read by the call, a copy to pageable memory ends in it; pinned memory is
// used when the stream gets there.
void host_sides() {
  cudaStream_t stream;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  std::vector<int> pageable(4, 1);
  const Buffer<int> x(4);
  cudaMemcpyAsync(x.data(), pageable.data(), 16, cudaMemcpyHostToDevice, stream);
  std::fill(pageable.begin(), pageable.end(), 2);
  int* pinned = nullptr;
  cudaMallocHost(&pinned, 16);
  std::fill(pinned, pinned + 4, 5);
  cudaMemcpyAsync(pinned, x.data(), 16, cudaMemcpyDeviceToHost, stream);
  require(pinned[0] == -1, "the result of a copy that has not run is poisoned");
  cudaMemcpyAsync(pageable.data(), x.data(), 16, cudaMemcpyDeviceToHost, stream);
  require(pageable == std::vector<int>(4, 1) && pinned[3] == 1, "what was copied");
  cudaFreeHost(pinned);
  cudaStreamDestroy(stream);
}

// What a stream copies into a pinned buffer may be copied on from there without the host's help.
void pinned_round_trip() {
  const Buffer<int> x(std::vector<int>(4, 6)), y(4);
  int* pinned = nullptr;
  cudaMallocHost(&pinned, 16);
  std::fill(pinned, pinned + 4, 1);
  cudaStream_t stream;
  cudaStreamCreate(&stream);
  cudaMemcpyAsync(y.data(), pinned, 16, cudaMemcpyHostToDevice, stream);
  cudaMemcpyAsync(pinned, x.data(), 16, cudaMemcpyDeviceToHost, stream);
  cudaMemcpyAsync(y.data(), pinned, 16, cudaMemcpyHostToDevice, stream);
  finish();
  require(y.download()[0] == 6, "the value that went through");
  cudaFreeHost(pinned);
}

// ---- devices and launches -----------------------------------------------------------------------

void two_devices() {  // VGPU_DEVICES=2, VGPU_FAULT=error
  int count = 0, device = -1, peer = -1;
  expect(cudaGetDeviceCount(&count), cudaSuccess, "count");
  require(count == 2, "two devices");
  expect(cudaSetDevice(2), cudaErrorInvalidDevice, "a third");
  cudaGetLastError();
  expect(cudaDeviceCanAccessPeer(&peer, 0, 1), cudaSuccess, "peers");
  require(peer == 0, "no peer access");
  const Buffer<float> x(std::vector<float>(32, 1.f));
  cudaStream_t first;
  cudaStreamCreate(&first);
  expect(cudaSetDevice(1), cudaSuccess, "the second");
  expect(cudaGetDevice(&device), cudaSuccess, "which");
  require(device == 1, "the second is selected");
  Buffer<float> y(32);
  fill<<<1, 32, 0, first>>>(y.data(), 32, 1);
  expect(cudaGetLastError(), cudaErrorInvalidResourceHandle, "a stream of the other device");
  expect(cudaMemcpyPeerAsync(y.data(), 1, x.data(), 0, 128, nullptr), cudaSuccess, "peer copy");
  require(y.download()[31] == 1, "what was copied");
  fill<<<1, 32>>>(x.data(), 32, 1);
  expect(cudaDeviceSynchronize(), cudaErrorIllegalAddress, "memory of the other device");
  expect(cudaSetDevice(0), cudaSuccess, "the first one is well");
  require(x.download()[0] == 1, "its memory too");
}

void no_device() {  // VGPU_DEVICES=0
  int count = -1;
  expect(cudaGetDeviceCount(&count), cudaErrorNoDevice, "count");
  require(count == 0, "no device");
  void* p = nullptr;
  expect(cudaMalloc(&p, 4), cudaErrorNoDevice, "allocation");
}

void properties() {  // VGPU_ARCH=75
  cudaDeviceProp p;
  int value = 0;
  expect(cudaGetDeviceProperties(&p, 0), cudaSuccess, "properties");
  require(p.major == 7 && p.minor == 5 && p.warpSize == 32, "sm_75");
  require(p.sharedMemPerBlockOptin == 64 * kKilo, "shared memory");
  expect(cudaDeviceGetAttribute(&value, cudaDevAttrMaxThreadsPerMultiProcessor, 0), cudaSuccess,
         "");
  require(value == 1024, "threads");
  expect(cudaGetDeviceProperties(&p, 1), cudaErrorInvalidDevice, "no second device");
}

void launch_limits() {
  const Buffer<float> y(1024);
  const auto launch = [&](dim3 grid, dim3 block, size_t shared) {
    with_dynamic<<<grid, block, shared>>>(y.data());
    return cudaGetLastError();
  };
  expect(launch(1, 1025, 8000), cudaErrorInvalidConfiguration, "1025 threads");
  expect(launch(1, 0, 0), cudaErrorInvalidConfiguration, "no threads");
  expect(launch(0, 32, 0), cudaErrorInvalidConfiguration, "no blocks");
  expect(launch(dim3(1, 65536), 32, 0), cudaErrorInvalidConfiguration, "65536 rows of blocks");
  expect(launch(1, dim3(1, 1, 65), 0), cudaErrorInvalidConfiguration, "65 deep");
  expect(launch(1, 32, 60 * kKilo), cudaErrorInvalidValue, "60 K of shared memory");
  const auto allow = [](size_t bytes) {
    return cudaFuncSetAttribute(with_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                static_cast<int>(bytes));
  };
  expect(allow(60 * kKilo), cudaSuccess, "allowed");
  expect(launch(1, 32, 60 * kKilo), cudaSuccess, "60 K of shared memory, allowed");
  expect(launch(1, 32, 61 * kKilo), cudaErrorInvalidValue, "61 K");
  expect(allow(300 * kKilo), cudaErrorInvalidValue, "more than there is");
  bounded<<<1, 256>>>(y.data());
  require(cudaGetLastError() != cudaSuccess, "more threads than the launch bounds");
  finish();
}

void occupancy() {  // VGPU_ARCH=80
  int blocks = 0;
  const auto blocks_of = [&](auto* kernel, int threads, size_t shared) {
    expect(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared),
           cudaSuccess, "occupancy");
    return blocks;
  };
  require(blocks_of(fill, 256, 0) == 8, "2048 threads");
  require(blocks_of(fill, 32, 0) == 32, "32 blocks");
  require(blocks_of(with_dynamic, 128, 40 * kKilo) == 4,
          "164 K of shared memory, 1 K reserved each");
  require(blocks_of(bounded, 256, 0) == 0, "beyond the launch bounds");
  cudaFuncAttributes attributes;
  expect(cudaFuncGetAttributes(&attributes, bounded), cudaSuccess, "attributes");
  require(attributes.maxThreadsPerBlock == 128, "launch bounds");
  int grid = 0, block = 0;
  expect(cudaOccupancyMaxPotentialBlockSize(&grid, &block, bounded), cudaSuccess, "block size");
  require(block == 128 && grid > 0, "the best block size");
}

// ---- errors -------------------------------------------------------------------------------------

void lasting_fault() {  // VGPU_FAULT=error
  const Buffer<float> y(32);
  fill<<<1, 64>>>(y.data(), 64, 1);
  expect(cudaGetLastError(), cudaSuccess, "the launch");
  expect(cudaDeviceSynchronize(), cudaErrorIllegalAddress, "waiting");
  void* p = nullptr;
  expect(cudaMalloc(&p, 4), cudaErrorIllegalAddress, "later calls");
  fill<<<1, 32>>>(y.data(), 32, 1);
  expect(cudaGetLastError(), cudaErrorIllegalAddress, "later launches");
  expect(cudaGetLastError(), cudaErrorIllegalAddress, "it stays");
  cudaStream_t stream;
  expect(cudaStreamCreate(&stream), cudaErrorIllegalAddress, "streams");
}

void misuse_as_errors() {  // VGPU_FAULT=error
  float* p = nullptr;
  std::vector<float> host(64);
  expect(cudaMalloc(&p, 128), cudaSuccess, "allocation");
  expect(cudaMemcpy(p, host.data(), 256, cudaMemcpyHostToDevice), cudaErrorInvalidValue,
         "too long");
  expect(cudaMemset(p, 0, 129), cudaErrorInvalidValue, "too long");
  expect(cudaFree(p), cudaSuccess, "free");
  expect(cudaFree(p), cudaErrorInvalidValue, "free twice");
  expect(cudaGetLastError(), cudaErrorInvalidValue, "told");
  expect(cudaDeviceSynchronize(), cudaSuccess, "the device is well");
  expect(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(p)), cudaErrorInvalidResourceHandle,
         "no stream");
}

void texts() {
  require(!std::strcmp(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation"),
          "");
  require(!std::strcmp(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory"), "text");
  require(
      !std::strcmp(cudaGetErrorString(static_cast<cudaError_t>(12345)), "unrecognized error code"),
      "no such error");
}

void do_nothing() { cudaFree(nullptr); }

}  // namespace

std::vector<Scenario> device_scenarios() {
  return {
      {"capacity", capacity, {"VGPU_MEMORY=1M"}},
      {"memory pools", pools},
      {"fresh memory", fresh_memory},
      {"kinds of pointers", pointers},
      {"leak report", leaks, {"VGPU_LEAKS=1"}, 0, "of 1234 bytes"},
      {"rectangular copies", rectangles},
      {"pageable and pinned sides of copies", host_sides},
      {"pinned memory written and read by a stream", pinned_round_trip},
      {"two devices",
       two_devices,
       {"VGPU_DEVICES=2", "VGPU_FAULT=error"},
       0,
       "is memory of device 0"},
      {"no device", no_device, {"VGPU_DEVICES=0"}},
      {"properties", properties, {"VGPU_ARCH=75"}},
      {"launch limits", launch_limits, {"VGPU_ARCH=80"}, 0, "refused: a block of 1025 x 1 x 1"},
      {"occupancy", occupancy, {"VGPU_ARCH=80"}},
      {"a fault stays", lasting_fault, {"VGPU_FAULT=error"}, 0, "out of bounds"},
      {"misuse as error codes", misuse_as_errors, {"VGPU_FAULT=error"}, 0, "is freed twice"},
      {"texts of errors", texts},
      {"unknown setting", do_nothing, {"VGPU_SEEED=1"}, 86, "there is no such setting"},
      {"bad number", do_nothing, {"VGPU_MEMORY=1X"}, 86, "expected a number"},
  };
}

}  // namespace vgpu::test
