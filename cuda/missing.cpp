// While kernels are being written: those that are not there yet throw.
#include "tensor/kernels.h"
#pragma GCC diagnostic ignored "-Wunused-parameter"
namespace centroid::cuda {
#define CENTROID_KERNEL(name, parameters, meaning) \
  __attribute__((weak)) void name parameters { throw Error(#name ": not written yet"); }
#include "tensor/kernels.def"
#undef CENTROID_KERNEL
}  // namespace centroid::cuda
