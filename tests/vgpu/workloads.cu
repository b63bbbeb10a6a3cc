// Known-correct programs: what they compute on the device is compared with the standard library.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <mma.h>

#include <algorithm>
#include <cmath>
#include <cub/cub.cuh>
#include <numeric>
#include <random>

#include "cases.h"

namespace vgpu::test {
namespace {

namespace cg = cooperative_groups;

std::mt19937& generator() {
  static std::mt19937 source(7);
  return source;
}

std::vector<float> normals(size_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(generator());
  return values;
}

void require_close(double got, double want, double tolerance, const char* what) {
  require(std::fabs(got - want) <= tolerance * std::max(1.0, std::fabs(want)),
          std::string(what) + ": " + std::to_string(got) + " instead of " + std::to_string(want));
}

// ---- CUB ----------------------------------------------------------------------------------------

// Runs a CUB function twice: for the size of its workspace, and with that.
template <typename F>
void with_workspace(F&& f) {
  size_t bytes = 0;
  require_success(f(nullptr, bytes), "workspace");
  const Buffer<char> workspace(std::max<size_t>(bytes, 1));
  require_success(f(workspace.data(), bytes), "run");
  finish();
}

void sort_pairs() {
  constexpr int kN = 20000;
  std::vector<unsigned> keys(kN);
  std::vector<int> values(kN);
  for (unsigned& k : keys) k = generator()() % 5000;
  std::iota(values.begin(), values.end(), 0);
  const Buffer<unsigned> in(keys), out(kN);
  const Buffer<int> values_in(values), values_out(kN);
  with_workspace([&](void* workspace, size_t& bytes) {
    return cub::DeviceRadixSort::SortPairs(workspace, bytes, in.data(), out.data(),
                                           values_in.data(), values_out.data(), kN);
  });
  std::stable_sort(values.begin(), values.end(), [&](int a, int b) { return keys[a] < keys[b]; });
  std::sort(keys.begin(), keys.end());
  require(out.download() == keys && values_out.download() == values, "a stable sort");
}

void scan() {
  constexpr int kN = 30000;
  std::vector<int> values(kN), want(kN);
  for (int& v : values) v = static_cast<int>(generator()() % 100);
  const Buffer<int> in(values), out(kN);
  with_workspace([&](void* workspace, size_t& bytes) {
    return cub::DeviceScan::ExclusiveSum(workspace, bytes, in.data(), out.data(), kN);
  });
  std::exclusive_scan(values.begin(), values.end(), want.begin(), 0);
  require(out.download() == want, "prefix sums");
}

void reduce() {
  constexpr int kN = 30000;
  std::vector<int> values(kN);
  for (int& v : values) v = static_cast<int>(generator()() % 100);
  const Buffer<int> in(values), sum(1);
  with_workspace([&](void* workspace, size_t& bytes) {
    return cub::DeviceReduce::Sum(workspace, bytes, in.data(), sum.data(), kN);
  });
  require(sum.download()[0] == std::accumulate(values.begin(), values.end(), 0), "a sum");
}

void segmented_reduce() {
  const std::vector<int> offsets{0, 100, 100, 1700, 5000};
  const std::vector<float> values = normals(5000);
  const Buffer<float> in(values), out(4);
  const Buffer<int> bounds(offsets);
  with_workspace([&](void* workspace, size_t& bytes) {
    return cub::DeviceSegmentedReduce::Max(workspace, bytes, in.data(), out.data(), 4,
                                           bounds.data(), bounds.data() + 1);
  });
  const std::vector<float> got = out.download();
  for (const int s : {0, 2, 3}) {
    const float want =
        *std::max_element(values.begin() + offsets[s], values.begin() + offsets[s + 1]);
    require(got[s] == want, "the largest of a segment");
  }
}

__constant__ float c_scale[4];

__global__ void block_sums(const float* x, float* y) {
  using Reduce = cub::BlockReduce<float, 128>;
  __shared__ typename Reduce::TempStorage temporary;
  const float sum = Reduce(temporary).Sum(x[blockIdx.x * 128 + threadIdx.x]);
  if (threadIdx.x == 0) y[blockIdx.x] = sum * c_scale[1];
}

void block_reduce() {
  const std::vector<float> values = normals(512);
  const float scale[4] = {1, 2, 3, 4};
  require_success(cudaMemcpyToSymbol(c_scale, scale, sizeof scale), "constant memory");
  const Buffer<float> in(values), out(4);
  block_sums<<<4, 128>>>(in.data(), out.data());
  const std::vector<float> got = out.download();
  for (int b = 0; b < 4; ++b) {
    const double sum =
        std::accumulate(values.begin() + 128 * b, values.begin() + 128 * (b + 1), 0.0);
    require_close(got[b], 2 * sum, 1e-5, "the sum of a block");
  }
}

// ---- groups, votes, atomics ---------------------------------------------------------------------

__global__ void tile_sums(float* x) {
  const auto block = cg::this_thread_block();
  const auto tile = cg::tiled_partition<16>(block);
  const float sum = cg::reduce(tile, x[block.thread_rank()], cg::plus<float>());
  block.sync();
  x[block.thread_rank()] = sum;
}

void cooperative_groups_reduce() {
  const std::vector<float> values = normals(64);
  const Buffer<float> x(values);
  tile_sums<<<1, 64>>>(x.data());
  const std::vector<float> got = x.download();
  for (int i = 0; i < 64; ++i) {
    const auto first = values.begin() + i / 16 * 16;
    require_close(got[i], std::accumulate(first, first + 16, 0.0), 1e-5, "the sum of a tile");
  }
}

__global__ void votes(int* out) {
  const int i = threadIdx.x;
  out[i] = __syncthreads_count(i % 3 == 0) * 1000 + __popc(__ballot_sync(~0u, i & 1)) +
           (__all_sync(~0u, i >= 0) ? 1 : 0) + __shfl_xor_sync(~0u, i, 1);
}

void votes_and_shuffles() {
  const Buffer<int> out(64);
  votes<<<1, 64>>>(out.data());
  const std::vector<int> got = out.download();
  for (int i = 0; i < 64; ++i) require(got[i] == 22 * 1000 + 16 + 1 + (i ^ 1), "votes of a thread");
}

__global__ void histogram(const int* x, int n, int* counts) {
  __shared__ int local[16];
  if (threadIdx.x < 16) local[threadIdx.x] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    atomicAdd(&local[x[i]], 1);
  }
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(&counts[threadIdx.x], local[threadIdx.x]);
}

void atomics() {
  std::vector<int> values(5000), want(16);
  for (int& v : values) ++want[v = static_cast<int>(generator()() % 16)];
  const Buffer<int> in(values), counts(std::vector<int>(16));
  histogram<<<5, 96>>>(in.data(), 5000, counts.data());
  require(counts.download() == want, "a histogram");
}

// ---- arithmetic ---------------------------------------------------------------------------------

__global__ void small_floats(const __half* a, const __nv_bfloat16* b, float* c, __half2* d) {
  const int i = threadIdx.x;
  c[i] = __half2float(__hfma(a[i], a[i], __float2half(2.f))) + __bfloat162float(__hmul(b[i], b[i]));
  d[i] = __hadd2(__floats2half2_rn(i, 1.f), __floats2half2_rn(0.5f, 2.f));
}

void half_and_bf16() {
  std::vector<__half> a(32);
  std::vector<__nv_bfloat16> b(32);
  for (int i = 0; i < 32; ++i) a[i] = __float2half(i * 0.25f), b[i] = __float2bfloat16(i * 0.5f);
  const Buffer<__half> x(a);
  const Buffer<__nv_bfloat16> y(b);
  const Buffer<float> c(32);
  const Buffer<__half2> d(32);
  small_floats<<<1, 32>>>(x.data(), y.data(), c.data(), d.data());
  const std::vector<float> got = c.download();
  const std::vector<__half2> pairs = d.download();
  for (int i = 0; i < 32; ++i) {
    require_close(got[i], i * i / 16.0 + 2 + i * i / 4.0, 1e-2, "fma of halves and a bf16 product");
    require(__low2float(pairs[i]) == i + 0.5f && __high2float(pairs[i]) == 3, "pairs of halves");
  }
}

__global__ void functions(const float* x, float* y, double* z) {
  const int i = threadIdx.x;
  const float v = x[i], a = fabsf(v);
  y[i] = expf(v) + tanhf(v) + erff(v) + log1pf(a) + powf(a, 1.3f) + sqrtf(a) + rsqrtf(1 + v * v) +
         fmodf(v, 0.7f);
  z[i] = exp(static_cast<double>(v)) / 3.0;
}

void mathematics() {
  const std::vector<float> x = normals(64);
  const Buffer<float> in(x), out(64);
  const Buffer<double> wide(64);
  functions<<<1, 64>>>(in.data(), out.data(), wide.data());
  const std::vector<float> y = out.download();
  const std::vector<double> z = wide.download();
  for (int i = 0; i < 64; ++i) {
    const double v = x[i], a = std::fabs(v);
    require_close(y[i],
                  std::exp(v) + std::tanh(v) + std::erf(v) + std::log1p(a) + std::pow(a, 1.3) +
                      std::sqrt(a) + 1 / std::sqrt(1 + v * v) + std::fmod(x[i], 0.7f),
                  2e-6, "functions");
    require_close(z[i], std::exp(v) / 3, 1e-14, "functions in double precision");
  }
}

__global__ void softmax_rows(const float* x, float* y, int columns) {
  __shared__ float partial[4];
  const float* row = x + blockIdx.x * columns;
  const auto over_block = [&](float v, auto combine) {
    for (int lane = 16; lane > 0; lane /= 2) v = combine(v, __shfl_xor_sync(~0u, v, lane));
    __syncthreads();
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
    __syncthreads();
    return combine(combine(partial[0], partial[1]), combine(partial[2], partial[3]));
  };
  float largest = -INFINITY, sum = 0;
  for (int c = threadIdx.x; c < columns; c += 128) largest = fmaxf(largest, row[c]);
  largest = over_block(largest, [](float a, float b) { return fmaxf(a, b); });
  for (int c = threadIdx.x; c < columns; c += 128) sum += expf(row[c] - largest);
  sum = over_block(sum, [](float a, float b) { return a + b; });
  for (int c = threadIdx.x; c < columns; c += 128) {
    y[blockIdx.x * columns + c] = expf(row[c] - largest) / sum;
  }
}

void softmax() {
  constexpr int kRows = 5, kColumns = 333;
  const std::vector<float> x = normals(kRows * kColumns);
  const Buffer<float> in(x), out(x.size());
  softmax_rows<<<kRows, 128>>>(in.data(), out.data(), kColumns);
  const std::vector<float> y = out.download();
  for (int r = 0; r < kRows; ++r) {
    double sum = 0;
    for (int c = 0; c < kColumns; ++c) sum += std::exp(static_cast<double>(x[r * kColumns + c]));
    for (int c = 0; c < kColumns; ++c) {
      const int i = r * kColumns + c;
      require_close(y[i], std::exp(static_cast<double>(x[i])) / sum, 1e-6, "a probability");
    }
  }
}

// ---- matrix products ----------------------------------------------------------------------------

constexpr int kTile = 16;

// c (m, n) = a (m, k) b (k, n), row-major, a tile per block.
__global__ void tiled_product(const float* a, const float* b, float* c, int m, int n, int k) {
  __shared__ float left[kTile][kTile], right[kTile][kTile];
  const int row = blockIdx.y * kTile + threadIdx.y, column = blockIdx.x * kTile + threadIdx.x;
  float sum = 0;
  for (int start = 0; start < k; start += kTile) {
    const int ka = start + threadIdx.x, kb = start + threadIdx.y;
    left[threadIdx.y][threadIdx.x] = row < m && ka < k ? a[row * k + ka] : 0.f;
    right[threadIdx.y][threadIdx.x] = kb < k && column < n ? b[kb * n + column] : 0.f;
    __syncthreads();
    for (int i = 0; i < kTile; ++i) sum += left[threadIdx.y][i] * right[i][threadIdx.x];
    __syncthreads();
  }
  if (row < m && column < n) c[row * n + column] = sum;
}

void require_product(const std::vector<float>& got, const std::vector<float>& a,
                     const std::vector<float>& b, int m, int n, int k, double tolerance) {
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int l = 0; l < k; ++l) sum += static_cast<double>(a[i * k + l]) * b[l * n + j];
      require_close(got[i * n + j], sum, tolerance, "an element of the product");
    }
  }
}

void matrix_product() {
  constexpr int kM = 35, kN = 21, kK = 50;
  const std::vector<float> a = normals(kM * kK), b = normals(kK * kN);
  const Buffer<float> x(a), y(b), z(kM * kN);
  const dim3 grid((kN + kTile - 1) / kTile, (kM + kTile - 1) / kTile);
  tiled_product<<<grid, dim3(kTile, kTile)>>>(x.data(), y.data(), z.data(), kM, kN, kK);
  require_product(z.download(), a, b, kM, kN, kK, 1e-5);
}

__global__ void wmma_product(const __half* a, const __half* b, float* c) {
  using namespace nvcuda::wmma;
  fragment<matrix_a, 16, 16, 16, __half, row_major> left;
  fragment<matrix_b, 16, 16, 16, __half, row_major> right;
  fragment<accumulator, 16, 16, 16, float> sum;
  fill_fragment(sum, 0.f);
  load_matrix_sync(left, a, 16);
  load_matrix_sync(right, b, 16);
  mma_sync(sum, left, right, sum);
  store_matrix_sync(c, sum, 16, mem_row_major);
}

void wmma() {
  std::vector<float> a = normals(256), b = normals(256);
  std::vector<__half> ha(256), hb(256);
  for (int i = 0; i < 256; ++i) {
    ha[i] = __float2half(a[i]), hb[i] = __float2half(b[i]);
    a[i] = __half2float(ha[i]), b[i] = __half2float(hb[i]);
  }
  const Buffer<__half> x(ha), y(hb);
  const Buffer<float> z(256);
  wmma_product<<<1, 32>>>(x.data(), y.data(), z.data());
  require_product(z.download(), a, b, 16, 16, 16, 1e-5);
}

// c (16, 8) = a (16, 64) b^T (8, 64): a warp, asynchronous copies into two buffers, ldmatrix,
// mma.sync.
__global__ void __launch_bounds__(32)
    pipelined_product(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c) {
#if __CUDA_ARCH__ >= 800
  constexpr int kK = 64, kStep = 16,
                kPitch = 24;  // of shared memory, in elements: no bank conflicts
  __shared__ __align__(128) __nv_bfloat16 left[2][16][kPitch], right[2][8][kPitch];
  const int lane = threadIdx.x;
  const auto fetch = [&](int buffer, int start) {
    const int row = lane / 2, half = lane % 2 * 8;
    __pipeline_memcpy_async(&left[buffer][row][half], a + row * kK + start + half, 16);
    if (row < 8)
      __pipeline_memcpy_async(&right[buffer][row][half], b + row * kK + start + half, 16);
  };
  float sum[4] = {};
  fetch(0, 0);
  __pipeline_commit();
  for (int step = 0; step < kK / kStep; ++step) {
    if (step + 1 < kK / kStep) fetch((step + 1) % 2, (step + 1) * kStep);
    __pipeline_commit();
    __pipeline_wait_prior(1);
    __syncwarp();
    unsigned x[4], y[2];
    const auto address = [](const void* p) {
      return static_cast<unsigned>(__cvta_generic_to_shared(p));
    };
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(address(&left[step % 2][lane % 16][lane / 16 * 8])));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(y[0]), "=r"(y[1])
                 : "r"(address(&right[step % 2][lane % 8][lane / 8 % 2 * 8])));
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
    __syncwarp();
  }
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
#endif
}

void tensor_core_pipeline() {
  std::vector<float> a = normals(16 * 64), bt = normals(8 * 64), b(64 * 8);
  std::vector<__nv_bfloat16> x(a.size()), y(bt.size());
  for (size_t i = 0; i < a.size(); ++i) a[i] = __bfloat162float(x[i] = __float2bfloat16(a[i]));
  for (size_t i = 0; i < bt.size(); ++i) {
    b[i % 64 * 8 + i / 64] = __bfloat162float(y[i] = __float2bfloat16(bt[i]));
  }
  const Buffer<__nv_bfloat16> left(x), right(y);
  const Buffer<float> out(16 * 8);
  pipelined_product<<<1, 32>>>(left.data(), right.data(), out.data());
  require_product(out.download(), a, b, 16, 8, 64, 1e-5);
}

}  // namespace

std::vector<Workload> workloads() {
  return {
      {"radix sort", sort_pairs},
      {"scan", scan},
      {"reduce", reduce},
      {"segmented reduce", segmented_reduce},
      {"block reduce", block_reduce},
      {"cooperative groups", cooperative_groups_reduce},
      {"votes and shuffles", votes_and_shuffles},
      {"atomics", atomics},
      {"half and bf16", half_and_bf16},
      {"mathematics", mathematics},
      {"softmax", softmax},
      {"matrix product", matrix_product},
      {"wmma", wmma},
      {"tensor core pipeline", tensor_core_pipeline, 80},
  };
}

}  // namespace vgpu::test
