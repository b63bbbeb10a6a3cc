// Pointwise kernels.
#include "cuda/launch.cuh"

namespace centroid::cuda {
namespace {

template <typename T>
struct Count {
  T* to;
  CENTROID_DEVICE void operator()(int64_t i) const { to[i] = static_cast<T>(i); }
};

}  // namespace

void arange(const Tensor& y) {
  dispatch_numeric(y.dtype(), "arange", [&]<typename T>() {
    for_each(y.numel(), Count<T>{y.data<T>()});
  });
}

}  // namespace centroid::cuda
