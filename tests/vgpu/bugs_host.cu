// Planted bugs in host code: copies, synchronisation, lifetimes, captures, operands.
#include <cublas_v2.h>

#include "cases.h"

namespace vgpu::test {
namespace {

constexpr int kN = 256;
constexpr size_t kBytes = kN * sizeof(float);

__global__ void fill(float* y, float value) { y[threadIdx.x] = value; }
__global__ void add_one(float* y) { y[threadIdx.x] += 1; }

cudaStream_t new_stream() {
  cudaStream_t stream;
  require_success(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  return stream;
}

float* new_pinned() {
  float* p = nullptr;
  require_success(cudaMallocHost(&p, kBytes), "cudaMallocHost");
  return p;
}

void wait(cudaStream_t stream) { require_success(cudaStreamSynchronize(stream), "wait"); }

// ---- host and device memory ---------------------------------------------------------------------

void host_dereference(bool buggy) {
  const Buffer<float> x(std::vector<float>(kN, 2.f));
  const float value = buggy ? *static_cast<volatile float*>(x.data()) : x.download()[0];
  require(value == 2, "the value");
}

void copy_too_long(bool buggy) {
  const Buffer<float> x(kN);
  const std::vector<float> host(kN + 1, 1.f);
  cudaMemcpy(x.data(), host.data(), kBytes + (buggy ? 4 : 0), cudaMemcpyHostToDevice);
}

void copy_wrong_direction(bool buggy) {
  const Buffer<float> x(std::vector<float>(kN, 1.f));
  std::vector<float> host(kN);
  cudaMemcpy(host.data(), x.data(), kBytes,
             buggy ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost);
}

void copy_unwritten(bool buggy) {
  const Buffer<float> x(kN);
  fill<<<1, buggy ? kN / 2 : kN>>>(x.data(), 1.f);
  x.download();
}

void double_free(bool buggy) {
  float* p = nullptr;
  cudaMalloc(&p, kBytes);
  cudaFree(p);
  if (buggy) cudaFree(p);
}

void free_inside(bool buggy) {
  float* p = nullptr;
  cudaMalloc(&p, kBytes);
  cudaFree(buggy ? p + 4 : p);
}

void free_before_use(bool buggy) {
  float* p = nullptr;
  const cudaStream_t stream = new_stream();
  cudaMallocAsync(&p, kBytes, stream);
  if (buggy) cudaFreeAsync(p, stream);
  cudaMemsetAsync(p, 0, kBytes, stream);
  if (!buggy) cudaFreeAsync(p, stream);
  wait(stream);
}

// ---- waiting ------------------------------------------------------------------------------------

void read_before_end(bool buggy) {
  const Buffer<float> x(kN);
  float* pinned = new_pinned();
  const cudaStream_t stream = new_stream();
  fill<<<1, kN, 0, stream>>>(x.data(), 3.f);
  cudaMemcpyAsync(pinned, x.data(), kBytes, cudaMemcpyDeviceToHost, stream);
  if (!buggy) wait(stream);
  require(pinned[kN - 1] == 3, "the result");
  cudaFreeHost(pinned);
}

// A staging buffer that is filled again for the next copy.
void reuse_staging(bool buggy) {
  const Buffer<float> a(kN), b(kN);
  float* pinned = new_pinned();
  const cudaStream_t stream = new_stream();
  cudaEvent_t copied;
  cudaEventCreateWithFlags(&copied, cudaEventDisableTiming);
  for (float* target : {a.data(), b.data()}) {
    for (int i = 0; i < kN; ++i) pinned[i] = target == a.data() ? 1.f : 2.f;
    cudaMemcpyAsync(target, pinned, kBytes, cudaMemcpyHostToDevice, stream);
    cudaEventRecord(copied, stream);
    if (!buggy) cudaEventSynchronize(copied);
  }
  wait(stream);
  require(a.download()[0] == 1 && b.download()[0] == 2, "what was copied");
  cudaEventDestroy(copied);
  cudaFreeHost(pinned);
}

void streams_without_event(bool buggy) {
  const Buffer<float> x(std::vector<float>(kN, 2.f));
  const cudaStream_t first = new_stream(), second = new_stream();
  cudaEvent_t written;
  cudaEventCreate(&written);
  fill<<<1, kN, 0, first>>>(x.data(), 1.f);
  cudaEventRecord(written, first);
  if (!buggy) cudaStreamWaitEvent(second, written, 0);
  add_one<<<1, kN, 0, second>>>(x.data());
  wait(first), wait(second);
}

// ---- captures and cuBLAS ------------------------------------------------------------------------

template <typename F>
void captured(F&& body) {
  const Buffer<float> x(kN);
  const cudaStream_t stream = new_stream();
  cudaGraph_t graph;
  require_success(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "begin");
  fill<<<1, kN, 0, stream>>>(x.data(), 1.f);
  require_success(body(stream), "call during the capture");
  require_success(cudaStreamEndCapture(stream, &graph), "end");
  cudaGraphDestroy(graph);
}

void allocate_in_capture(bool buggy) {
  float* p = nullptr;
  captured([&](cudaStream_t) { return buggy ? cudaMalloc(&p, kBytes) : cudaSuccess; });
}

void wait_in_capture(bool buggy) {
  captured([&](cudaStream_t s) { return buggy ? cudaStreamSynchronize(s) : cudaSuccess; });
}

void gemm_outside(bool buggy) {
  const Buffer<float> a(std::vector<float>(16 * 16, 1.f)), b(std::vector<float>(16 * 16, 1.f));
  const Buffer<float> c(buggy ? 16 * 15 : 16 * 16);
  cublasHandle_t handle;
  cublasCreate(&handle);
  const float one = 1, zero = 0;
  cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 16, 16, 16, &one, a.data(), 16, b.data(), 16, &zero,
              c.data(), 16);
  require(c.download()[0] == 16, "the product");
  cublasDestroy(handle);
}

void gemm_unwritten(bool buggy) {
  const Buffer<float> a(16 * 16), b(std::vector<float>(16 * 16, 1.f)), c(16 * 16);
  if (!buggy) cudaMemset(a.data(), 0, 16 * 16 * sizeof(float));
  cublasHandle_t handle;
  cublasCreate(&handle);
  const float one = 1, zero = 0;
  cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_T, 16, 16, 16, &one, a.data(), 16, b.data(), 16, &zero,
              c.data(), 16);
  finish();
  cublasDestroy(handle);
}

}  // namespace

std::vector<Bug> host_bugs() {
  return {
      {"host dereference of a device pointer", "host code reads device memory", nullptr,
       host_dereference, "VGPU_GUARD=1"},
      {"copy out of range", "is outside of device buffer", nullptr, copy_too_long},
      {"copy in the wrong direction", "is host memory", nullptr, copy_wrong_direction},
      {"copy of unwritten memory", "reads uninitialised device memory", nullptr, copy_unwritten},
      {"double free", "is freed twice", nullptr, double_free},
      {"free of an inner pointer", "no allocation begins there", nullptr, free_inside},
      {"stream-ordered use after free", "is outside of freed device buffer", nullptr,
       free_before_use},
      {"result read before the stream's end", "host code reads pinned memory", nullptr,
       read_before_end, "VGPU_GUARD=1"},
      {"pinned buffer reused in flight", "was changed while the copy was in flight", nullptr,
       reuse_staging},
      {"pinned buffer written in flight", "host code writes pinned memory", nullptr, reuse_staging,
       "VGPU_GUARD=1"},
      {"streams without an event", "race", nullptr, streams_without_event},
      {"allocation during capture", "cudaMalloc is forbidden", nullptr, allocate_in_capture},
      {"synchronisation during capture", "cudaStreamSynchronize is forbidden", nullptr,
       wait_in_capture},
      {"cuBLAS operand out of range", "cublasSgemm: operand C", nullptr, gemm_outside},
      {"cuBLAS operand not initialised", "reads uninitialised device memory", nullptr,
       gemm_unwritten},
  };
}

}  // namespace vgpu::test
