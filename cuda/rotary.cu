// Rotary positions. A thread turns 16 bytes of a head (two pairs of f32) at one position of a
// sequence, in up to kBatch items of the batch, for one sine and cosine per pair; neighbouring
// threads have neighbouring memory: within a head, then the next head, then the next position.
#include "cuda/launch.cuh"

namespace centroid::cuda {
namespace {

constexpr int kBatch = 4;

CENTROID_DEVICE void sine_cosine(float x, float* sine, float* cosine) { sincosf(x, sine, cosine); }
CENTROID_DEVICE void sine_cosine(double x, double* sine, double* cosine) {
  sincos(x, sine, cosine);
}

// kPairs = 1: x of any strides; else x has its pairs next to each other, in aligned vectors.
template <typename T, int kPairs, typename Index>
struct Rotary {
  const T *x, *angles;
  T* y;
  int64_t batch_stride, time_stride, head_stride, step;
  Index batch, time, heads, columns;  // columns: pairs of a head / kPairs
  bool inverse;

  struct alignas(kPairs * 2 * sizeof(T)) Vector {
    T v[2 * kPairs];
  };

  CENTROID_DEVICE Vector load(const T* from) const {
    if constexpr (kPairs > 1) return *reinterpret_cast<const Vector*>(from);
    return {from[0], from[step]};
  }

  CENTROID_DEVICE void operator()(int64_t i) const {
    const Index all = static_cast<Index>(i), outer = all / columns, column = all - outer * columns;
    const Index rows = outer / heads, h = outer - rows * heads;
    const Index part = rows / time, l = rows - part * time;
    T sine[kPairs], cosine[kPairs];
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const T angle = angles[(int64_t{l} * columns + column) * kPairs + p];
      sine_cosine(inverse ? -angle : angle, &sine[p], &cosine[p]);
    }
    const T* from = x + l * time_stride + h * head_stride + int64_t{column} * 2 * kPairs * step;
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int64_t b = int64_t{part} * kBatch + j;
      if (b >= batch) break;
      const Vector read = load(from + b * batch_stride);
      Vector turned;
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        const T even = read.v[2 * p], odd = read.v[2 * p + 1];
        turned.v[2 * p] = even * cosine[p] - odd * sine[p];
        turned.v[2 * p + 1] = even * sine[p] + odd * cosine[p];
      }
      const int64_t to = ((b * time + l) * heads + h) * columns + column;
      *reinterpret_cast<Vector*>(y + to * 2 * kPairs) = turned;
    }
  }
};

template <int kPairs, typename Index, typename T>
void turn(const Tensor& x, const T* angles, bool inverse, T* y) {
  const int64_t batch = x.size(0), time = x.size(1), heads = x.size(2);
  const int64_t columns = x.size(3) / 2 / kPairs;
  const Strides& s = x.strides();
  for_each(
      div_up(batch, kBatch) * time * heads * columns,
      Rotary<T, kPairs, Index>{x.data<T>(), angles, y, s[0], s[1], s[2], s[3],
                               static_cast<Index>(batch), static_cast<Index>(time),
                               static_cast<Index>(heads), static_cast<Index>(columns), inverse});
}

bool aligned(const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; }

}  // namespace

void rotary(const Tensor& x, const Tensor& angles, bool inverse, const Tensor& y) {
  if (x.dtype() == DType::f64) {
    return turn<1, int64_t>(x, angles.data<double>(), inverse, y.data<double>());
  }
  const float* pa = angles.data<float>();
  float* py = y.data<float>();
  const Strides& s = x.strides();
  const bool wide = x.size(3) % 4 == 0 && s[3] == 1 && s[0] % 4 == 0 && s[1] % 4 == 0 &&
                    s[2] % 4 == 0 && aligned(x.data<float>()) && aligned(py);
  const bool narrow_index = x.numel() <= INT32_MAX;
  if (wide && narrow_index) {
    turn<2, uint32_t>(x, pa, inverse, py);
  } else if (narrow_index) {
    turn<1, uint32_t>(x, pa, inverse, py);
  } else {
    turn<1, int64_t>(x, pa, inverse, py);
  }
}

}  // namespace centroid::cuda
