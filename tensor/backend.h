#pragma once
// What the layers above need of a CUDA device, without a CUDA header: cuda/runtime.cpp implements
// it, cuda/stub.cpp stands in where there is no CUDA.
#include <cstddef>
#include <string>

#include "tensor/device.h"
#include "tensor/storage.h"

namespace centroid {

/// How products of f32 matrices are computed on CUDA devices: in f32, or on tensor cores from
/// inputs rounded to TF32 (10 bits of mantissa) or bf16 (7 bits), with sums in f32. The CPU
/// computes in f32 always.
enum class MathMode { f32, tf32, bf16 };
MathMode math_mode();
void set_math_mode(MathMode mode);

}  // namespace centroid

namespace centroid::cuda {

/// Whether this build has the CUDA backend.
bool compiled();
/// Devices that can be used; `reason`, when given, receives why there are none.
int device_count(std::string* reason = nullptr);
/// Memory of a device. Blocks belong to the device's one stream: a freed block may be handed out
/// again at once, because what used it is ordered before what will.
CachingAllocator& allocator(int index);

/// Copies between the host and a device, or within or across devices, in the order of the device's
/// stream. The host may reuse or free `from` at once. Copies to the host wait for the stream and
/// report the faults of all earlier kernels.
void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
/// Waits for all work of a device and reports its faults.
void synchronize(int index);

/// Makes a device the calling thread's, before a kernel; `name` is used in errors.
void begin_kernel(int index, const char* name);
/// Reports a launch that failed, and with CENTROID_SYNC=1 waits for the kernel.
void end_kernel(int index);

}  // namespace centroid::cuda
