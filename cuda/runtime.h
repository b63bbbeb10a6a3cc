#pragma once
// The CUDA runtime as kernels see it: the current device's stream, cuBLAS handle and fault record.
// For cuda/*.cu and cuda/*.cpp; what other layers need is in tensor/backend.h.
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "tensor/backend.h"
#include "tensor/error.h"

namespace centroid::cuda {

/// The stream that all work of the current device goes to, in order.
cudaStream_t stream();
/// The current device's cuBLAS handle: its stream and the math mode are set.
cublasHandle_t blas();

/// What the current device can do.
struct Limits {
  int multiprocessors, shared_bytes;  ///< shared memory that one block can have after opting in
  int major, minor;                   ///< compute capability
};
const Limits& limits();

/// An index that a kernel found out of range. Lives on the device; the first one found stays until
/// the host next waits for the device, and is thrown there as an Error. So a check costs no
/// synchronisation, and no error is lost.
struct Fault {
  unsigned long long op;  ///< address, on the host, of the name of the operation; 0: no fault
  long long index, position, bound;
};
/// The current device's record.
Fault* fault_record();

/// Throws, naming the kernel that runs, when a call of the CUDA runtime or of cuBLAS failed.
void check(cudaError_t status, const char* call);
void check(cublasStatus_t status, const char* call);
#define CENTROID_CUDA(call) ::centroid::cuda::check(call, #call)

}  // namespace centroid::cuda
