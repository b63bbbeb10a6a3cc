// Stands in for the CUDA backend in a build without it: every kernel of kernels.def throws.
#include "tensor/kernels.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

namespace centroid::cuda {
#define CENTROID_KERNEL(name, parameters, meaning) \
  void name parameters { throw Error(#name ": this build has no CUDA (make CUDA=1)"); }
#include "tensor/kernels.def"
#undef CENTROID_KERNEL
}  // namespace centroid::cuda
