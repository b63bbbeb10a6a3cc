// Accesses to the same memory that something orders, in the ways that a race detector may miss:
// none of these is a race, and each has a known result.
#include <cuda_bf16.h>

#include "cases.h"

namespace vgpu::test {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

// Lanes read a word together; after __syncwarp one of them writes it.
__global__ void read_by_a_warp(float* y) {
  __shared__ float s[2];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane == 0) s[warp] = 1;
  __syncwarp();
  for (int round = 0; round < 3; ++round) {
    const float seen = s[warp];
    __syncwarp();
    if (lane == round) s[warp] = seen + 1;
    __syncwarp();
  }
  y[threadIdx.x] = s[warp];
}

void warp_broadcasts() {
  const Buffer<float> y(64);
  read_by_a_warp<<<1, 64>>>(y.data());
  require(y.download() == std::vector<float>(64, 4.f), "a word written by lanes in turn");
}

// All warps read a word, and after a barrier one thread writes it.
__global__ void read_by_a_block(float* y) {
  __shared__ float s;
  if (threadIdx.x == 0) s = 1;
  __syncthreads();
  for (int round = 0; round < 3; ++round) {
    const float seen = s;
    __syncthreads();
    if (threadIdx.x == 40 * round) s = seen + 1;
    __syncthreads();
  }
  y[threadIdx.x] = s;
}

void block_broadcasts() {
  const Buffer<float> y(128);
  read_by_a_block<<<1, 128>>>(y.data());
  require(y.download() == std::vector<float>(128, 4.f), "a word written by threads in turn");
}

// Neighbours in a word: two-byte elements of different lanes, warps and blocks.
__global__ void increment(__nv_bfloat16* x, int per_block) {
  const int i = blockIdx.x * per_block + threadIdx.x;
  if (threadIdx.x < per_block) x[i] = __float2bfloat16(__bfloat162float(x[i]) + 1);
}

__global__ void count_bytes(unsigned char* x) {
  __shared__ unsigned char s[96];
  s[threadIdx.x] = x[threadIdx.x];
  s[threadIdx.x] += 1;
  x[threadIdx.x] = s[threadIdx.x];
}

void parts_of_words() {
  const Buffer<__nv_bfloat16> x(std::vector<__nv_bfloat16>(5 * 33, __float2bfloat16(2)));
  increment<<<5, 64>>>(x.data(), 33);
  for (const __nv_bfloat16 v : x.download()) require(__bfloat162float(v) == 3, "two-byte elements");
  const Buffer<unsigned char> y(std::vector<unsigned char>(96, 4));
  count_bytes<<<1, 96>>>(y.data());
  require(y.download() == std::vector<unsigned char>(96, 5), "bytes");
}

// Every block leaves a partial sum; the last one, known by a counter, adds them.
__global__ void last_block_adds(const float* x, float* partial, unsigned* finished, float* sum) {
  __shared__ bool last;
  float v = x[blockIdx.x * 32 + threadIdx.x];
  for (int lane = 16; lane > 0; lane /= 2) v += __shfl_xor_sync(kAllLanes, v, lane);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = v;
    __threadfence();
    last = atomicAdd(finished, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (threadIdx.x == 0) {
    float total = 0;
    for (int b = 0; b < gridDim.x; ++b) total += partial[b];
    *sum = total;
  }
}

void last_block() {
  const Buffer<float> x(std::vector<float>(6 * 32, 0.5f)), partial(6), sum(1);
  const Buffer<unsigned> finished(std::vector<unsigned>{0});
  last_block_adds<<<6, 32>>>(x.data(), partial.data(), finished.data(), sum.data());
  require(sum.download()[0] == 96, "the sum over all blocks");
}

// Two launches write the same memory from different blocks.
__global__ void rotate(float* y, int by) { y[(blockIdx.x + by) % gridDim.x] += blockIdx.x; }

void launches() {
  const Buffer<float> y(std::vector<float>(4, 0.f));
  for (int by = 0; by < 4; ++by) rotate<<<4, 1>>>(y.data(), by);
  require(y.download() == std::vector<float>(4, 6.f), "launches one after another");
}

}  // namespace

std::vector<Workload> ordered_workloads() {
  return {
      {"words read by a warp", warp_broadcasts}, {"words read by a block", block_broadcasts},
      {"parts of words", parts_of_words},        {"last block adds", last_block},
      {"launches in order", launches},
  };
}

}  // namespace vgpu::test
