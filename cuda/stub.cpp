// Stands in for the CUDA backend in a build without it: every kernel of kernels.def throws.
#include "tensor/kernels.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

namespace centroid::cuda {
namespace {

[[noreturn]] void missing(const char* what) {
  throw Error(concat(what, ": this build has no CUDA (make CUDA=1)"));
}

}  // namespace

#define CENTROID_KERNEL(name, parameters, meaning) \
  void name parameters { missing(#name); }
#include "tensor/kernels.def"
#undef CENTROID_KERNEL

bool compiled() { return false; }
int device_count(std::string* reason) {
  if (reason) *reason = "this build has no CUDA (make CUDA=1)";
  return 0;
}
CachingAllocator& allocator(int index) { missing(("cuda:" + std::to_string(index)).c_str()); }
void copy_bytes(void*, Device, const void*, Device, size_t) { missing("copy"); }
void synchronize(int) {}
void begin_kernel(int, const char*) {}
void end_kernel(int) {}

}  // namespace centroid::cuda
