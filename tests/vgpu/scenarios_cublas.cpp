// Products of cuBLAS against sums in double precision.
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "cases.h"

namespace vgpu::test {
namespace {

uint16_t to_bf16(float x) {  // for finite values
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float from_bf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

template <typename T>
T rounded(double x) {
  if constexpr (sizeof(T) == 2) return to_bf16(static_cast<float>(x));
  return static_cast<T>(x);
}
template <typename T>
double value(T x) {
  if constexpr (sizeof(T) == 2) return from_bf16(x);
  return x;
}

template <typename T>
std::vector<T> random_values(size_t n) {
  static std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  std::vector<T> values(n);
  for (T& v : values) v = rounded<T>(normal(generator));
  return values;
}

// A product with padding around every matrix.
template <typename T, typename Out>
struct Product {
  cublasOperation_t ta, tb;
  int m, n, k, batch;
  int lda() const { return (ta == CUBLAS_OP_N ? m : k) + 3; }
  int ldb() const { return (tb == CUBLAS_OP_N ? k : n) + 1; }
  int ldc() const { return m + 2; }
  int64_t stride_a() const { return int64_t{lda()} * (ta == CUBLAS_OP_N ? k : m) + 5; }
  int64_t stride_b() const { return 0; }  // one B for all
  int64_t stride_c() const { return int64_t{ldc()} * n + 1; }
  std::vector<T> a = random_values<T>(static_cast<size_t>(stride_a() * batch));
  std::vector<T> b = random_values<T>(static_cast<size_t>(ldb() * std::max(k, n)));
  std::vector<Out> c = random_values<Out>(static_cast<size_t>(stride_c() * batch));

  double reference(int i, int j, int p, double alpha, double beta) const {
    double sum = 0;
    for (int l = 0; l < k; ++l) {
      const int64_t at = ta == CUBLAS_OP_N ? i + int64_t{l} * lda() : l + int64_t{i} * lda();
      const int64_t bt = tb == CUBLAS_OP_N ? l + int64_t{j} * ldb() : j + int64_t{l} * ldb();
      sum += value(a[static_cast<size_t>(p * stride_a() + at)]) * value(b[static_cast<size_t>(bt)]);
    }
    return alpha * sum + beta * value(c[index_c(i, j, p)]);
  }
  size_t index_c(int i, int j, int p) const {
    return static_cast<size_t>(p * stride_c() + i + int64_t{j} * ldc());
  }
  // Also checks that the padding of C keeps its values.
  void compare(const std::vector<Out>& got, double alpha, double beta, double tolerance) const {
    std::vector<bool> inside(got.size());
    for (int p = 0; p < batch; ++p) {
      for (int j = 0; j < n; ++j) {
        for (int i = 0; i < m; ++i) {
          const size_t at = index_c(i, j, p);
          inside[at] = true;
          const double want = reference(i, j, p, alpha, beta);
          require(std::fabs(value(got[at]) - want) <= tolerance * (1 + std::fabs(want)),
                  "an element");
        }
      }
    }
    for (size_t i = 0; i < got.size(); ++i) require(inside[i] || got[i] == c[i], "the padding");
  }
};

struct Blas {
  Blas() { require(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS, "cublasCreate"); }
  ~Blas() { cublasDestroy(handle); }
  cublasHandle_t handle;
};

constexpr cublasOperation_t kOperations[] = {CUBLAS_OP_N, CUBLAS_OP_T};

template <typename T, typename Out, typename Scalar, typename Call>
void check(double tolerance, Call call) {
  for (const cublasOperation_t ta : kOperations) {
    for (const cublasOperation_t tb : kOperations) {
      const Product<T, Out> p{ta, tb, 7, 5, 9, 3};
      const Buffer<T> a(p.a), b(p.b);
      for (const Scalar beta : {Scalar{0}, Scalar{0.5}}) {
        const Buffer<Out> c(p.c);
        const Scalar alpha = 2;
        require(call(p, &alpha, a.data(), b.data(), &beta, c.data()) == CUBLAS_STATUS_SUCCESS,
                "status");
        p.compare(c.download(), alpha, beta, tolerance);
      }
    }
  }
}

void single_precision() {
  const Blas blas;
  check<float, float, float>(
      1e-5, [&](const auto& p, auto alpha, auto a, auto b, auto beta, auto c) {
        return cublasSgemmStridedBatched(blas.handle, p.ta, p.tb, p.m, p.n, p.k, alpha, a, p.lda(),
                                         p.stride_a(), b, p.ldb(), p.stride_b(), beta, c, p.ldc(),
                                         p.stride_c(), p.batch);
      });
}

void double_precision() {
  const Blas blas;
  check<double, double, double>(
      1e-13, [&](const auto& p, auto alpha, auto a, auto b, auto beta, auto c) {
        return cublasDgemmStridedBatched(blas.handle, p.ta, p.tb, p.m, p.n, p.k, alpha, a, p.lda(),
                                         p.stride_a(), b, p.ldb(), p.stride_b(), beta, c, p.ldc(),
                                         p.stride_c(), p.batch);
      });
}

template <typename Out>
void bf16_to(cudaDataType_t type, double tolerance) {
  const Blas blas;
  check<uint16_t, Out, float>(
      tolerance, [&](const auto& p, auto alpha, auto a, auto b, auto beta, auto c) {
        return cublasGemmStridedBatchedEx(
            blas.handle, p.ta, p.tb, p.m, p.n, p.k, alpha, a, CUDA_R_16BF, p.lda(), p.stride_a(), b,
            CUDA_R_16BF, p.ldb(), p.stride_b(), beta, c, type, p.ldc(), p.stride_c(), p.batch,
            CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
      });
}

void bf16() {
  bf16_to<float>(CUDA_R_32F, 1e-5);
  bf16_to<uint16_t>(CUDA_R_16BF, 1e-2);
}

// One product of 1 + 2^-12, which TF32 rounds to 1.
float square_of_next(cublasMath_t mode) {
  const Blas blas;
  require(cublasSetMathMode(blas.handle, mode) == CUBLAS_STATUS_SUCCESS, "mode");
  const Buffer<float> a(std::vector<float>{1 + std::ldexp(1.f, -12)}), c(1);
  const float one = 1, zero = 0;
  cublasSgemm(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a.data(), 1, a.data(), 1, &zero,
              c.data(), 1);
  return c.download()[0];
}

void tf32() {
  require(square_of_next(CUBLAS_DEFAULT_MATH) > 1, "single precision");
  require(square_of_next(CUBLAS_TF32_TENSOR_OP_MATH) == 1, "TF32");
}

// Without terms to add C is scaled; with beta = 0 it is not read: it may hold anything.
void degenerate() {
  const Blas blas;
  const Buffer<float> c(std::vector<float>(4, 3.f)), fresh(4);
  const float one = 1, two = 2, zero = 0;
  const auto call = [&](int k, const float* beta, float* out) {
    return cublasSgemm(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, k, &one, c.data(), 2, c.data(),
                       std::max(k, 1), beta, out, 2);
  };
  require(call(0, &two, c.data()) == CUBLAS_STATUS_SUCCESS && c.download()[3] == 6, "k = 0");
  require(call(2, &zero, fresh.data()) == CUBLAS_STATUS_SUCCESS && fresh.download()[0] == 72,
          "beta = 0");
  require(cublasSgemm(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &one, c.data(), 1, c.data(),
                      2, &zero, c.data(), 2) == CUBLAS_STATUS_INVALID_VALUE,
          "a leading dimension that is too small");
  require(cublasSgemm(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 0, 2, 2, &one, nullptr, 1, nullptr, 2,
                      &zero, nullptr, 1) == CUBLAS_STATUS_SUCCESS,
          "an empty product");
}

// The scalars are read when the call is made; the product waits in the handle's stream.
void stream_of_handle() {
  const Blas blas;
  cudaStream_t stream, got = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cublasSetStream(blas.handle, stream);
  cublasGetStream(blas.handle, &got);
  require(got == stream, "the stream");
  float* pinned = nullptr;
  cudaMallocHost(&pinned, 4 * sizeof(float));
  const Buffer<float> a(std::vector<float>(4, 1.f)), c(4);
  float one = 1;
  const float zero = 0;
  cublasSgemm(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &one, a.data(), 2, a.data(), 2, &zero,
              c.data(), 2);
  one = 100;
  cudaMemcpyAsync(pinned, c.data(), 4 * sizeof(float), cudaMemcpyDeviceToHost, stream);
  require(pinned[0] != 2, "nothing has run");
  cudaStreamSynchronize(stream);
  require(pinned[0] == 2, "the product");
  cudaFreeHost(pinned);
}

void unserved() {
  const Blas blas;
  const float one = 1;
  const cublasStatus_t status = cublasGemmEx(
      blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, nullptr, CUDA_R_8I, 1, nullptr,
      CUDA_R_8I, 1, &one, nullptr, CUDA_R_32I, 1, CUBLAS_COMPUTE_32I, CUBLAS_GEMM_DEFAULT);
  require(status == CUBLAS_STATUS_NOT_SUPPORTED, "status");
  require(!std::strcmp(cublasGetStatusName(status), "CUBLAS_STATUS_NOT_SUPPORTED"), "its name");
}

}  // namespace

std::vector<Scenario> cublas_scenarios() {
  return {
      {"cuBLAS in single precision", single_precision},
      {"cuBLAS in double precision", double_precision},
      {"cuBLAS with bf16", bf16},
      {"cuBLAS with TF32", tf32},
      {"degenerate products", degenerate},
      {"stream of a cuBLAS handle", stream_of_handle},
      {"types that are not served", unserved, {}, 0, "are not implemented"},
  };
}

}  // namespace vgpu::test
