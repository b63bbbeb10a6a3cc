// The cuBLAS functions the project calls, computed by OpenBLAS on one thread. Operands are checked:
// where they lie, that they are live, initialised, and not written by unordered work.
#include <cblas.h>
#include <cublas_v2.h>

#include <bit>
#include <cstring>
#include <set>

#include "streams.h"

using namespace vgpu;

namespace {

struct Handle {
  int device = 0;
  cudaStream_t stream = nullptr;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
  cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
};

std::set<Handle*>& handles() {
  static auto* all = new std::set<Handle*>;
  return *all;
}

Handle* find(cublasHandle_t handle) {
  auto* object = reinterpret_cast<Handle*>(handle);
  return handles().count(object) ? object : nullptr;
}

// The frame of a call with a handle.
template <typename F>
cublasStatus_t with_handle(cublasHandle_t handle, F&& body) {
  const std::lock_guard lock(device_mutex());
  Handle* h = find(handle);
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (device_error(h->device)) return CUBLAS_STATUS_EXECUTION_FAILED;
  return body(*h);
}

// ---- operands -----------------------------------------------------------------------------------

enum class Precision { full, tf32 };

size_t size_of(cudaDataType_t type) {
  return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : type == CUDA_R_16BF ? 2 : 0;
}

// Column-major matrices of a batch in device memory.
struct Operand {
  const char* name;
  char* data;
  cudaDataType_t type;
  int64_t rows, columns, leading, stride;

  char* matrix(int64_t batch) const {
    return data + batch * stride * static_cast<int64_t>(size_of(type));
  }
  // Columns as the rows of a Region.
  Region region(int64_t batch) const {
    const size_t size = size_of(type);
    return {matrix(batch), static_cast<size_t>(rows) * size, static_cast<size_t>(leading) * size,
            static_cast<size_t>(columns)};
  }
};

float round_to_tf32(float x) {
  constexpr uint32_t kDropped = 13;  // of 23 bits of the mantissa TF32 keeps 10
  uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  bits += (1u << (kDropped - 1)) - 1 + (bits >> kDropped & 1);
  return std::bit_cast<float>(bits & ~((1u << kDropped) - 1));
}

float from_bf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

uint16_t to_bf16(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  if (x != x) return static_cast<uint16_t>(bits >> 16 | 0x40);
  bits += 0x7fff + (bits >> 16 & 1);
  return static_cast<uint16_t>(bits >> 16);
}

template <typename T>
T load(const char* p, cudaDataType_t type) {
  if (type == CUDA_R_64F) return static_cast<T>(*reinterpret_cast<const double*>(p));
  if (type == CUDA_R_32F) return static_cast<T>(*reinterpret_cast<const float*>(p));
  return static_cast<T>(from_bf16(*reinterpret_cast<const uint16_t*>(p)));
}

template <typename T>
void store(char* p, cudaDataType_t type, T value) {
  if (type == CUDA_R_64F) {
    *reinterpret_cast<double*>(p) = static_cast<double>(value);
  } else if (type == CUDA_R_32F) {
    *reinterpret_cast<float*>(p) = static_cast<float>(value);
  } else {
    *reinterpret_cast<uint16_t*>(p) = to_bf16(static_cast<float>(value));
  }
}

// A matrix without gaps, converted to what is computed with.
template <typename T>
std::vector<T> packed(const Operand& x, int64_t batch, Precision precision) {
  std::vector<T> values(static_cast<size_t>(x.rows * x.columns));
  const auto size = static_cast<int64_t>(size_of(x.type));
  size_t i = 0;
  for (int64_t c = 0; c < x.columns; ++c) {
    for (int64_t r = 0; r < x.rows; ++r, ++i) {
      values[i] = load<T>(x.matrix(batch) + (c * x.leading + r) * size, x.type);
      if constexpr (sizeof(T) == 4) {
        if (precision == Precision::tf32) values[i] = round_to_tf32(values[i]);
      }
    }
  }
  return values;
}

// ---- the product --------------------------------------------------------------------------------

struct Gemm {
  const char* name;
  cublasOperation_t transpose_a, transpose_b;
  int64_t m, n, k, batch;
  Operand a, b, c;
  bool in_double;
  Precision precision;
  const void *alpha, *beta;
  cublasPointerMode_t pointers;
};

void multiply(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, float alpha,
              const float* a, int lda, const float* b, int ldb, float beta, float* c) {
  cblas_sgemm(CblasColMajor, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, m);
}

void multiply(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, double alpha,
              const double* a, int lda, const double* b, int ldb, double beta, double* c) {
  cblas_dgemm(CblasColMajor, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, m);
}

template <typename T>
T scalar(const Gemm& g, const void* p) {
  T value;
  if (g.pointers == CUBLAS_POINTER_MODE_DEVICE) {
    const Region region{static_cast<char*>(const_cast<void*>(p)), sizeof(T), sizeof(T), 1};
    use_device_memory(g.name, region, false);
  }
  std::memcpy(&value, p, sizeof value);
  return value;
}

CBLAS_TRANSPOSE blas_of(cublasOperation_t operation) {
  return operation == CUBLAS_OP_N ? CblasNoTrans : CblasTrans;
}

// Results do not depend on how many threads the host's own BLAS calls use.
class OneBlasThread {
 public:
  OneBlasThread() : threads_(openblas_get_num_threads()) { openblas_set_num_threads(1); }
  ~OneBlasThread() { openblas_set_num_threads(threads_); }
  OneBlasThread(const OneBlasThread&) = delete;

 private:
  int threads_;
};

template <typename T>
void run_batch(const Gemm& g, int64_t batch, T alpha, T beta) {
  std::vector<T> product(static_cast<size_t>(g.m * g.n), T{0});
  if (g.k > 0 && alpha != T{0}) {
    use_device_memory((std::string(g.name) + " operand A").c_str(), g.a.region(batch), false);
    use_device_memory((std::string(g.name) + " operand B").c_str(), g.b.region(batch), false);
    const auto a = packed<T>(g.a, batch, g.precision), b = packed<T>(g.b, batch, g.precision);
    multiply(blas_of(g.transpose_a), blas_of(g.transpose_b), static_cast<int>(g.m),
             static_cast<int>(g.n), static_cast<int>(g.k), alpha, a.data(),
             static_cast<int>(g.a.rows), b.data(), static_cast<int>(g.b.rows), T{0},
             product.data());
  }
  const std::string name_c = std::string(g.name) + " operand C";
  if (beta != T{0}) use_device_memory(name_c.c_str(), g.c.region(batch), false);
  use_device_memory(name_c.c_str(), g.c.region(batch), true);
  const auto size = static_cast<int64_t>(size_of(g.c.type));
  for (int64_t j = 0; j < g.n; ++j) {
    for (int64_t i = 0; i < g.m; ++i) {
      char* p = g.c.matrix(batch) + (j * g.c.leading + i) * size;
      T value = product[static_cast<size_t>(j * g.m + i)];
      if (beta != T{0}) value += beta * load<T>(p, g.c.type);
      store(p, g.c.type, value);
    }
  }
}

template <typename T>
void run_gemm(const Gemm& g, const void* alpha, const void* beta) {
  device_access_begin();
  {
    const OneBlasThread one_thread;
    const T scale = scalar<T>(g, alpha), keep = scalar<T>(g, beta);
    for (int64_t batch = 0; batch < g.batch; ++batch) run_batch<T>(g, batch, scale, keep);
  }
  device_access_end();
}

// What can be known of the operands when the call is made.
cublasStatus_t check_operands(const Gemm& g) {
  for (const Operand* x : {&g.a, &g.b, &g.c}) {
    const bool read = x != &g.c;
    if (read && g.k == 0) continue;
    for (const int64_t batch : {int64_t{0}, g.batch - 1}) {
      const Region region = x->region(batch);
      const std::string problem = range_problem(region.data, region.extent());
      if (!problem.empty()) {
        misuse(cudaErrorInvalidValue, "%s: operand %s: %s", g.name, x->name, problem.c_str());
        return CUBLAS_STATUS_INVALID_VALUE;
      }
    }
    if (reinterpret_cast<uintptr_t>(x->data) % size_of(x->type)) {
      misuse(cudaErrorInvalidValue, "%s: operand %s at %p is not aligned to its elements", g.name,
             x->name, static_cast<void*>(x->data));
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  }
  if (g.batch > 1 && g.c.stride < (g.n - 1) * g.c.leading + g.m) {
    misuse(cudaErrorInvalidValue, "%s: the matrices of the output overlap: stride %ld", g.name,
           static_cast<long>(g.c.stride));
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return CUBLAS_STATUS_SUCCESS;
}

bool bad_shape(const Gemm& g) {
  const auto low = [](const Operand& x) { return x.leading < std::max<int64_t>(1, x.rows); };
  return g.m < 0 || g.n < 0 || g.k < 0 || g.batch < 0 || low(g.a) || low(g.b) || low(g.c) ||
         !g.alpha || !g.beta;
}

cublasStatus_t submit_gemm(const Handle& h, Gemm g) {
  if (bad_shape(g)) return CUBLAS_STATUS_INVALID_VALUE;
  if (g.m == 0 || g.n == 0 || g.batch == 0) return CUBLAS_STATUS_SUCCESS;
  if (const cublasStatus_t status = check_operands(g)) return status;
  const auto stream = find_stream(h.stream);
  if (!stream || stream->device != h.device) {
    misuse(cudaErrorInvalidResourceHandle, "%s: the handle's stream does not exist on its device",
           g.name);
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
  // Scalars on the host are read now; those on the device when the stream gets there.
  const size_t size = g.in_double ? sizeof(double) : sizeof(float);
  const bool on_host = g.pointers == CUBLAS_POINTER_MODE_HOST;
  double alpha = 0, beta = 0;
  if (on_host) std::memcpy(&alpha, g.alpha, size), std::memcpy(&beta, g.beta, size);
  const auto run = [g, on_host, alpha, beta] {
    const void* a = on_host ? static_cast<const void*>(&alpha) : g.alpha;
    const void* b = on_host ? static_cast<const void*>(&beta) : g.beta;
    g.in_double ? run_gemm<double>(g, a, b) : run_gemm<float>(g, a, b);
  };
  const cudaError_t error = record_error(submit(stream, {.what = g.name, .run = run}));
  return error ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

struct Matrix {
  const void* data;
  cudaDataType_t type;
  int leading;
  long long stride;
};

Operand operand(const char* name, const Matrix& x, int64_t rows, int64_t columns) {
  return {name,    static_cast<char*>(const_cast<void*>(x.data)), x.type, rows, columns, x.leading,
          x.stride};
}

// All entry points end here.
cublasStatus_t gemm(const char* name, cublasHandle_t handle, cublasOperation_t ta,
                    cublasOperation_t tb, int m, int n, int k, const void* alpha, const Matrix& a,
                    const Matrix& b, const void* beta, const Matrix& c, int batch,
                    cublasComputeType_t compute) {
  return with_handle(handle, [&](Handle& h) -> cublasStatus_t {
    const bool in_double = compute == CUBLAS_COMPUTE_64F;
    const bool tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                      (compute == CUBLAS_COMPUTE_32F && h.math == CUBLAS_TF32_TENSOR_OP_MATH);
    const Operand left = operand("A", a, ta == CUBLAS_OP_N ? m : k, ta == CUBLAS_OP_N ? k : m);
    const Operand right = operand("B", b, tb == CUBLAS_OP_N ? k : n, tb == CUBLAS_OP_N ? n : k);
    return submit_gemm(h,
                       {name, ta, tb, m, n, k, batch, left, right, operand("C", c, m, n), in_double,
                        tf32 ? Precision::tf32 : Precision::full, alpha, beta, h.pointers});
  });
}

// Combinations of cublasGemmEx that are served; others are reported by name.
bool served(const char* name, cudaDataType_t a, cudaDataType_t b, cudaDataType_t c,
            cublasComputeType_t compute) {
  const bool single = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                      compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  if (a == b && single && a == CUDA_R_32F && c == CUDA_R_32F) return true;
  if (a == b && single && a == CUDA_R_16BF && (c == CUDA_R_32F || c == CUDA_R_16BF)) return true;
  if (a == b && compute == CUBLAS_COMPUTE_64F && a == CUDA_R_64F && c == CUDA_R_64F) return true;
  note("%s: types %d, %d, %d with compute type %d are not implemented", name, a, b, c, compute);
  return false;
}

}  // namespace

extern "C" {

// ---- handles ------------------------------------------------------------------------------------

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  const std::lock_guard lock(device_mutex());
  *handle = nullptr;
  if (device_error(current_device())) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (forbid_unless_relaxed("cublasCreate")) return CUBLAS_STATUS_ALLOC_FAILED;
  auto* made = new Handle;
  made->device = current_device();
  handles().insert(made);
  *handle = reinterpret_cast<cublasHandle_t>(made);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  const std::lock_guard lock(device_mutex());
  Handle* h = find(handle);
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  synchronize_device(h->device);
  handles().erase(h);
  delete h;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) {
  *version = CUBLAS_VERSION;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  return with_handle(handle, [&](Handle& h) { return h.stream = stream, CUBLAS_STATUS_SUCCESS; });
}

cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  return with_handle(handle, [&](Handle& h) { return *stream = h.stream, CUBLAS_STATUS_SUCCESS; });
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  return with_handle(handle, [&](Handle& h) {
    if (mode != CUBLAS_DEFAULT_MATH && mode != CUBLAS_TF32_TENSOR_OP_MATH &&
        mode != CUBLAS_PEDANTIC_MATH) {
      note("cublasSetMathMode: mode %d is not implemented", mode);
      return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    h.math = mode;
    return CUBLAS_STATUS_SUCCESS;
  });
}

cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
  return with_handle(handle, [&](Handle& h) { return *mode = h.math, CUBLAS_STATUS_SUCCESS; });
}

cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
  return with_handle(handle, [&](Handle& h) { return h.pointers = mode, CUBLAS_STATUS_SUCCESS; });
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  return with_handle(handle, [&](Handle&) {
    if (!workspace || bytes == 0) return CUBLAS_STATUS_SUCCESS;
    const std::string problem = range_problem(workspace, bytes);
    if (problem.empty()) return CUBLAS_STATUS_SUCCESS;
    misuse(cudaErrorInvalidValue, "cublasSetWorkspace: %s", problem.c_str());
    return CUBLAS_STATUS_INVALID_VALUE;
  });
}

// ---- products -----------------------------------------------------------------------------------

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                              int m, int n, int k, const float* alpha, const float* a, int lda,
                              const float* b, int ldb, const float* beta, float* c, int ldc) {
  return gemm("cublasSgemm", handle, ta, tb, m, n, k, alpha, {a, CUDA_R_32F, lda, 0},
              {b, CUDA_R_32F, ldb, 0}, beta, {c, CUDA_R_32F, ldc, 0}, 1, CUBLAS_COMPUTE_32F);
}

cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                              int m, int n, int k, const double* alpha, const double* a, int lda,
                              const double* b, int ldb, const double* beta, double* c, int ldc) {
  return gemm("cublasDgemm", handle, ta, tb, m, n, k, alpha, {a, CUDA_R_64F, lda, 0},
              {b, CUDA_R_64F, ldb, 0}, beta, {c, CUDA_R_64F, ldc, 0}, 1, CUBLAS_COMPUTE_64F);
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta,
                                         cublasOperation_t tb, int m, int n, int k,
                                         const float* alpha, const float* a, int lda,
                                         long long stride_a, const float* b, int ldb,
                                         long long stride_b, const float* beta, float* c, int ldc,
                                         long long stride_c, int batch) {
  return gemm("cublasSgemmStridedBatched", handle, ta, tb, m, n, k, alpha,
              {a, CUDA_R_32F, lda, stride_a}, {b, CUDA_R_32F, ldb, stride_b}, beta,
              {c, CUDA_R_32F, ldc, stride_c}, batch, CUBLAS_COMPUTE_32F);
}

cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta,
                                         cublasOperation_t tb, int m, int n, int k,
                                         const double* alpha, const double* a, int lda,
                                         long long stride_a, const double* b, int ldb,
                                         long long stride_b, const double* beta, double* c, int ldc,
                                         long long stride_c, int batch) {
  return gemm("cublasDgemmStridedBatched", handle, ta, tb, m, n, k, alpha,
              {a, CUDA_R_64F, lda, stride_a}, {b, CUDA_R_64F, ldb, stride_b}, beta,
              {c, CUDA_R_64F, ldc, stride_c}, batch, CUBLAS_COMPUTE_64F);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                            int m, int n, int k, const void* alpha, const void* a,
                            cudaDataType_t type_a, int lda, const void* b, cudaDataType_t type_b,
                            int ldb, const void* beta, void* c, cudaDataType_t type_c, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t) {
  if (!served("cublasGemmEx", type_a, type_b, type_c, compute)) return CUBLAS_STATUS_NOT_SUPPORTED;
  return gemm("cublasGemmEx", handle, ta, tb, m, n, k, alpha, {a, type_a, lda, 0},
              {b, type_b, ldb, 0}, beta, {c, type_c, ldc, 0}, 1, compute);
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta,
                                          cublasOperation_t tb, int m, int n, int k,
                                          const void* alpha, const void* a, cudaDataType_t type_a,
                                          int lda, long long stride_a, const void* b,
                                          cudaDataType_t type_b, int ldb, long long stride_b,
                                          const void* beta, void* c, cudaDataType_t type_c, int ldc,
                                          long long stride_c, int batch,
                                          cublasComputeType_t compute, cublasGemmAlgo_t) {
  if (!served("cublasGemmStridedBatchedEx", type_a, type_b, type_c, compute)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return gemm("cublasGemmStridedBatchedEx", handle, ta, tb, m, n, k, alpha,
              {a, type_a, lda, stride_a}, {b, type_b, ldb, stride_b}, beta,
              {c, type_c, ldc, stride_c}, batch, compute);
}

}  // extern "C"
