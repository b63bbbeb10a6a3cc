// Planted bugs in kernels. Each kernel exists twice: with the mistake and without it, and the
// comment "bug: NAME" marks the lines that a report about it may name.
#include <cuda_pipeline_primitives.h>

#include "cases.h"

namespace vgpu::test {
namespace {

constexpr int kThreads = 64;
constexpr unsigned kAllLanes = 0xffffffffu;

std::vector<float> ones(size_t n) { return std::vector<float>(n, 1.f); }

// ---- barriers -----------------------------------------------------------------------------------

template <bool kBug>
__global__ void missing_barrier(float* y) {
  __shared__ float s[kThreads];
  s[threadIdx.x] = 0;
  __syncthreads();
  s[threadIdx.x] = y[threadIdx.x];  // bug: missing barrier
  if (!kBug) __syncthreads();
  y[threadIdx.x] = s[kThreads - 1 - threadIdx.x];  // bug: missing barrier
}

template <bool kBug>
__global__ void divergent_barrier(float* y) {
  __shared__ float s[kThreads];
  s[threadIdx.x] = y[threadIdx.x];
  if (!kBug || threadIdx.x % 32 < 16) {
    __syncthreads();  // bug: barrier in divergent code
  }
  y[threadIdx.x] = s[threadIdx.x] + 1;
}

template <bool kBug>
__global__ void exit_before_barrier(float* y, int n) {
  __shared__ float s[kThreads];
  if (kBug && threadIdx.x >= n) return;
  s[threadIdx.x] = y[threadIdx.x];
  // Of a warp that stays only in part, and of one that leaves as a whole.
  __syncthreads();  // bug: exit before a barrier, exit of a warp before a barrier
  y[threadIdx.x] = s[n - 1 - threadIdx.x % n];
}

// ---- addresses ----------------------------------------------------------------------------------

template <bool kBug>
__global__ void read_outside(const float* x, float* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i + (kBug ? 1 : 0)];  // bug: read out of bounds
}

template <bool kBug>
__global__ void write_outside(const float* x, float* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i + (kBug ? 1 : 0)] = x[i];  // bug: write out of bounds
}

template <bool kBug>
__global__ void shared_overflow(float* y) {
  __shared__ float a[32];
  __shared__ float b[32];
  if (threadIdx.x < 32) {
    b[threadIdx.x] = y[threadIdx.x];
    a[threadIdx.x + (kBug ? 1 : 0)] = 1;  // bug: shared overflow into the neighbour
  }
  __syncthreads();
  if (threadIdx.x < 31) y[threadIdx.x] = a[threadIdx.x + 1] + b[threadIdx.x];
}

template <bool kBug>
__global__ void misaligned_vector(const float* x, float* y) {
  const auto* vectors = reinterpret_cast<const float4*>(x + (kBug ? 1 : 0));
  const float4 v = vectors[threadIdx.x];  // bug: misaligned vector access
  y[threadIdx.x] = v.x + v.y + v.z + v.w;
}

template <bool kBug>
__global__ void short_dynamic_shared(float* y) {
  extern __shared__ float dynamic[];
  dynamic[threadIdx.x] = y[threadIdx.x];  // bug: too little dynamic shared memory
  __syncthreads();
  y[threadIdx.x] = dynamic[kThreads - 1 - threadIdx.x];
}

template <bool kBug>
__global__ void copy_freed(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];  // bug: use after free
}

template <bool kBug>
__global__ void copy_host(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];  // bug: host pointer in a kernel
}

// ---- initialisation -----------------------------------------------------------------------------

template <bool kBug>
__global__ void copy_unwritten(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];  // bug: uninitialised global memory
}

template <bool kBug>
__global__ void uninitialised_shared(float* y) {
  __shared__ float s[kThreads];
  if (!kBug || threadIdx.x % 2 == 0) s[threadIdx.x] = y[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];  // bug: uninitialised shared memory
}

template <bool kBug>
__global__ void unfinished_copy(const float* x, float* y) {
  __shared__ __align__(16) float s[4 * kThreads];
  __pipeline_memcpy_async(s + 4 * threadIdx.x, x + 4 * threadIdx.x, 16);
  __pipeline_commit();
  if (!kBug) __pipeline_wait_prior(0);
  __syncthreads();
  y[threadIdx.x] =
      s[4 * kThreads - 1 - threadIdx.x];  // bug: asynchronous copy read before its wait
}

// ---- races --------------------------------------------------------------------------------------

template <bool kBug>
__global__ void block_race(float* y) {
  if (threadIdx.x == 0) y[kBug ? 0 : blockIdx.x] = blockIdx.x;  // bug: race between blocks
}

template <bool kBug>
__global__ void plain_increment(int* counter) {
  if (kBug) {
    *counter += 1;  // bug: increment that is not atomic
  } else {
    atomicAdd(counter, 1);
  }
}

template <bool kBug>
__global__ void mixed_increment(int* counter) {
  if (kBug && blockIdx.x == 1 && threadIdx.x == 0) {
    *counter = 7;  // bug: plain store beside atomics
  } else {
    atomicAdd(counter, 1);  // bug: plain store beside atomics
  }
}

template <bool kBug>
__global__ void missing_syncwarp(float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = y[threadIdx.x];  // bug: missing __syncwarp
  if (!kBug) __syncwarp();
  y[threadIdx.x] = s[31 - threadIdx.x];  // bug: missing __syncwarp
}

// ---- warps --------------------------------------------------------------------------------------

template <bool kBug>
__global__ void wrong_mask(float* y) {
  y[threadIdx.x] =
      __shfl_sync(kBug ? 0xffffu : kAllLanes, y[threadIdx.x], 0);  // bug: wrong shuffle mask
}

template <bool kBug>
__global__ void divergent_shuffle(float* y) {
  float value = y[threadIdx.x];
  if (!kBug || threadIdx.x < 16) {
    value = __shfl_xor_sync(kAllLanes, value, 1);  // bug: shuffle in divergent code
  }
  y[threadIdx.x] = value;
}

// ---- how they are launched ----------------------------------------------------------------------

template <typename T>
using InPlace = void (*)(T*);
using Map = void (*)(const float*, float*);

template <InPlace<float> kWrong, InPlace<float> kRight, int kBlock = kThreads,
          int kShort = kThreads>
void in_place(bool buggy) {
  const Buffer<float> y(ones(kThreads));
  const size_t shared = (buggy ? kShort : kThreads) * sizeof(float);
  (buggy ? kWrong : kRight)<<<1, kBlock, shared>>>(y.data());
  finish();
}

template <InPlace<int> kWrong, InPlace<int> kRight>
void count(bool buggy) {
  const Buffer<int> counter(std::vector<int>{0});
  (buggy ? kWrong : kRight)<<<2, kThreads>>>(counter.data());
  finish();
}

// x has enough elements for float4 per thread and one more.
template <Map kWrong, Map kRight>
void map_long(bool buggy) {
  const Buffer<float> x(ones(4 * kThreads + 4)), y(kThreads);
  (buggy ? kWrong : kRight)<<<1, kThreads>>>(x.data(), y.data());
  finish();
}

template <Map kWrong, Map kRight>
void map_exact(bool buggy) {
  const Buffer<float> x(ones(2 * kThreads)), y(2 * kThreads);
  (buggy ? kWrong : kRight)<<<2, kThreads>>>(x.data(), y.data());
  finish();
}

template <int kStaying>
void run_exit(bool buggy) {
  const Buffer<float> y(ones(kThreads));
  const auto kernel = buggy ? exit_before_barrier<true> : exit_before_barrier<false>;
  kernel<<<1, kThreads>>>(y.data(), kStaying);
  finish();
}

void run_blocks(bool buggy) {
  const Buffer<float> y(4);
  (buggy ? block_race<true> : block_race<false>)<<<4, 32>>>(y.data());
  finish();
}

void run_freed(bool buggy) {
  float* x = nullptr;
  require_success(cudaMalloc(&x, kThreads * sizeof(float)), "cudaMalloc");
  require_success(cudaMemset(x, 0, kThreads * sizeof(float)), "cudaMemset");
  const Buffer<float> y(kThreads);
  if (buggy) cudaFree(x);
  (buggy ? copy_freed<true> : copy_freed<false>)<<<1, kThreads>>>(x, y.data());
  finish();
}

void run_host_pointer(bool buggy) {
  const std::vector<float> host = ones(kThreads);
  const Buffer<float> x(host), y(kThreads);
  (buggy ? copy_host<true> : copy_host<false>)<<<1, kThreads>>>(buggy ? host.data() : x.data(),
                                                                y.data());
  finish();
}

void run_unwritten(bool buggy) {
  const Buffer<float> x(kThreads), y(kThreads);
  const size_t written = (buggy ? kThreads - 1 : kThreads) * sizeof(float);
  require_success(cudaMemset(x.data(), 0, written), "cudaMemset");
  (buggy ? copy_unwritten<true> : copy_unwritten<false>)<<<1, kThreads>>>(x.data(), y.data());
  finish();
}

}  // namespace

std::vector<Bug> kernel_bugs() {
  return {
      {"missing barrier", "race", "missing_barrier",
       in_place<missing_barrier<true>, missing_barrier<false>>},
      {"barrier in divergent code", "barrier", "divergent_barrier",
       in_place<divergent_barrier<true>, divergent_barrier<false>>},
      {"exit before a barrier", "lanes that never come", "exit_before_barrier", run_exit<48>},
      {"exit of a warp before a barrier", "have exited", "exit_before_barrier", run_exit<32>},
      {"read out of bounds", "out of bounds", "read_outside",
       map_exact<read_outside<true>, read_outside<false>>},
      {"write out of bounds", "out of bounds", "write_outside",
       map_exact<write_outside<true>, write_outside<false>>},
      {"shared overflow into the neighbour", "shared", "shared_overflow",
       in_place<shared_overflow<true>, shared_overflow<false>>},
      {"misaligned vector access", "misaligned", "misaligned_vector",
       map_long<misaligned_vector<true>, misaligned_vector<false>>},
      {"too little dynamic shared memory", "shared", "short_dynamic_shared",
       in_place<short_dynamic_shared<true>, short_dynamic_shared<false>, kThreads, kThreads / 2>},
      {"use after free", "freed", "copy_freed", run_freed},
      {"host pointer in a kernel", "no device memory", "copy_host", run_host_pointer},
      {"uninitialised global memory", "uninitialised", "copy_unwritten", run_unwritten},
      {"uninitialised shared memory", "uninitialised", "uninitialised_shared",
       in_place<uninitialised_shared<true>, uninitialised_shared<false>>},
      {"asynchronous copy read before its wait", "uninitialised", "unfinished_copy",
       map_long<unfinished_copy<true>, unfinished_copy<false>>, nullptr, 80},
      {"race between blocks", "race", "block_race", run_blocks},
      {"increment that is not atomic", "race", "plain_increment",
       count<plain_increment<true>, plain_increment<false>>},
      {"plain store beside atomics", "race", "mixed_increment",
       count<mixed_increment<true>, mixed_increment<false>>},
      {"missing __syncwarp", "race", "missing_syncwarp",
       in_place<missing_syncwarp<true>, missing_syncwarp<false>, 32>},
      {"wrong shuffle mask", "mask", "wrong_mask",
       in_place<wrong_mask<true>, wrong_mask<false>, 32>},
      {"shuffle in divergent code", "lanes", "divergent_shuffle",
       in_place<divergent_shuffle<true>, divergent_shuffle<false>, 32>},
  };
}

}  // namespace vgpu::test
