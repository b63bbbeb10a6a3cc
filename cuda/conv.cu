// Convolution kernels: unfolding into columns, its transpose, and depthwise convolution.
//
// im2col: a thread owns one element (c, i, j) of the columns and walks over outputs; neighbours
// write neighbouring elements, and what they read of a channel's rows they read again from cache at
// the next outputs. col2im: a thread owns a pixel's place (c, w) and walks over rows; it gathers,
// so nothing is written twice.
//
// Depthwise convolution with stride and dilation 1 keeps a tile of a row in shared memory; a thread
// computes four neighbouring outputs from a sliding window of eight inputs, so that 16 products
// cost three reads of 16 bytes. The gradient of the input is the same with the kernel reversed.
#include "cuda/vectors.cuh"

namespace centroid::cuda {
namespace {

/// One image dimension of a convolution.
struct Axis {
  int size, out, kernel, stride, pad, dilation;

  /// The input position that output `o` reads with `tap`; may lie outside [0, size).
  CENTROID_DEVICE int source(int o, int tap) const { return o * stride - pad + tap * dilation; }
  CENTROID_DEVICE bool inside(int position) const { return position >= 0 && position < size; }
  /// The output that reads `position` with `tap`, or -1.
  CENTROID_DEVICE int reader(int position, int tap) const {
    const int t = position + pad - tap * dilation;
    if (t < 0) return -1;
    const int o = stride == 1 ? t : t / stride;
    return o < out && o * stride == t ? o : -1;
  }
};

Axis axis(int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
          int64_t dilation) {
  CENTROID_CHECK(std::max({size + 2 * pad, out * stride, kernel * dilation}) <= INT32_MAX / 2,
                 "conv: sizes up to 2^30 on CUDA, got ", size, " with padding ", pad);
  const auto narrow = [](int64_t x) { return static_cast<int>(x); };
  return {narrow(size), narrow(out), narrow(kernel), narrow(stride), narrow(pad), narrow(dilation)};
}

// ---- columns ----

constexpr int kOutputs = 16;  // per thread of im2col

/// Block ((b, oh, tile of outputs), part of the columns) of threads (columns, outputs).
template <typename T>
__global__ void __launch_bounds__(kThreads)
    im2col_kernel(const T* x, int channels, Axis h, Axis w, int tiles, T* columns) {
  const int taps = h.kernel * w.kernel;
  const int64_t width = int64_t{channels} * taps;
  const int64_t column = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const int tile = blockIdx.x % tiles, row = blockIdx.x / tiles, oh = row % h.out;
  const int64_t b = row / h.out, c = column / taps;
  const int tap = static_cast<int>(column - c * taps), i = tap / w.kernel, j = tap - i * w.kernel;
  const int ih = h.source(oh, i);
  const T* from = x + ((b * channels + c) * h.size + ih) * w.size;
  T* to = columns + int64_t{row} * w.out * width + column;
  const int first = tile * kOutputs * blockDim.y;
  const int end = ::min(w.out, first + kOutputs * static_cast<int>(blockDim.y));
#pragma unroll 4
  for (int ow = first + threadIdx.y; ow < end; ow += blockDim.y) {
    const int iw = w.source(ow, j);
    to[ow * width] = h.inside(ih) && w.inside(iw) ? from[iw] : T(0);
  }
}

constexpr int kFoldChannels = kThreads / kWarp, kFoldRows = 8;

/// Block (tile of the image, tile of channels, b) of threads (iw, channel).
template <typename T>
__global__ void __launch_bounds__(kThreads)
    col2im_kernel(const T* columns, int64_t batch, int channels, Axis h, Axis w, T* x) {
  const int tiles = (w.size + kWarp - 1) / kWarp;
  const int iw = blockIdx.x % tiles * kWarp + threadIdx.x;
  const int first = blockIdx.x / tiles * kFoldRows, end = ::min(first + kFoldRows, h.size);
  const int c = blockIdx.y * kFoldChannels + threadIdx.y;
  if (iw >= w.size || c >= channels) return;
  const int taps = h.kernel * w.kernel;
  const int64_t width = int64_t{channels} * taps;
  for (int64_t b = blockIdx.z; b < batch; b += gridDim.z) {
    const T* from = columns + b * h.out * w.out * width + int64_t{c} * taps;
    for (int ih = first; ih < end; ++ih) {
      T sum = 0;
      // The last taps belong to the first outputs.
      for (int i = h.kernel - 1; i >= 0; --i) {
        const int oh = h.reader(ih, i);
        if (oh < 0) continue;
        for (int j = w.kernel - 1; j >= 0; --j) {
          const int ow = w.reader(iw, j);
          if (ow >= 0) sum += from[(int64_t{oh} * w.out + ow) * width + i * w.kernel + j];
        }
      }
      x[((b * channels + c) * h.size + ih) * w.size + iw] = sum;
    }
  }
}

// ---- depthwise ----

constexpr int kPerThread = 4;      // outputs
constexpr int kLongKernel = 4096;  // beyond, the tiles would not fit
using Four = Vector<float, kPerThread>;

constexpr int padded(int taps) { return (taps + kPerThread - 1) / kPerThread * kPerThread; }
/// Elements of shared memory: the kernel, then the tile of inputs.
constexpr int tile_floats(int taps, int threads) { return 2 * padded(taps) + threads * kPerThread; }

/// Block (row, tile): y[o] = sum_t w[t] x[o - pad + t], w reversed if `reversed`.
__global__ void __launch_bounds__(kThreads)
    correlate_kernel(const float* x, const float* w, int channels, Axis t, int tiles,
                     int padded_taps, bool reversed, float* y) {
  float* weights = dynamic_shared<float>();
  float* inputs = weights + padded_taps;
  const int outputs = blockDim.x * kPerThread, tile = blockIdx.x % tiles, row = blockIdx.x / tiles;
  const float* kernel = w + int64_t{row % channels} * t.kernel;
  for (int i = threadIdx.x; i < padded_taps; i += blockDim.x) {
    weights[i] = i < t.kernel ? kernel[reversed ? t.kernel - 1 - i : i] : 0.0f;
  }
  const float* from = x + int64_t{row} * t.size;
  const int first = tile * outputs - t.pad;
  for (int i = threadIdx.x; i < outputs + padded_taps; i += blockDim.x) {
    inputs[i] = t.inside(first + i) ? from[first + i] : 0.0f;
  }
  __syncthreads();
  Four sum{};
  float window[2 * kPerThread];
  const Four* next = reinterpret_cast<const Four*>(inputs) + threadIdx.x;
  *reinterpret_cast<Four*>(window + kPerThread) = *next++;
  for (int tap = 0; tap < padded_taps; tap += kPerThread) {
    const Four taps = *reinterpret_cast<const Four*>(weights + tap), later = *next++;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      window[i] = window[kPerThread + i];
      window[kPerThread + i] = later.at[i];
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
      for (int o = 0; o < kPerThread; ++o) sum.at[o] += taps.at[i] * window[i + o];
    }
  }
  // Through shared memory once more, so that neighbours write neighbouring outputs.
  __syncthreads();
  reinterpret_cast<Four*>(inputs)[threadIdx.x] = sum;
  __syncthreads();
  float* to = y + int64_t{row} * t.out;
  for (int i = threadIdx.x; i < outputs && tile * outputs + i < t.out; i += blockDim.x) {
    to[tile * outputs + i] = inputs[i];
  }
}

void correlate(const float* x, const float* w, int64_t rows, int64_t channels, const Axis& t,
               bool reversed, float* y) {
  const int threads =
      static_cast<int>(std::min<int64_t>(kThreads, div_up(t.out, kWarp * kPerThread) * kWarp));
  if (threads == 0) return;
  const int tiles = static_cast<int>(div_up(t.out, threads * kPerThread));
  launch(correlate_kernel, static_cast<unsigned>(rows * tiles), threads,
         sizeof(float) * tile_floats(t.kernel, threads), x, w, static_cast<int>(channels), t, tiles,
         padded(t.kernel), reversed, y);
}

/// Any stride and dilation: an output per thread.
template <typename T>
struct Depthwise {
  const T *x, *w;
  int64_t channels;
  Axis t;
  T* y;
  CENTROID_DEVICE void operator()(int64_t at) const {
    const int64_t row = at / t.out;
    const int o = static_cast<int>(at - row * t.out);
    const T *from = x + row * t.size, *weights = w + row % channels * t.kernel;
    T sum = 0;
    for (int tap = 0; tap < t.kernel; ++tap) {
      const int i = t.source(o, tap);
      if (t.inside(i)) sum += weights[tap] * from[i];
    }
    y[at] = sum;
  }
};

/// dx[i] = sum over (o, tap) with o s - p + tap d = i of w[tap] dy[o]
template <typename T>
struct DepthwiseDx {
  const T *dy, *w;
  int64_t channels;
  Axis t;
  T* dx;
  CENTROID_DEVICE void operator()(int64_t at) const {
    const int64_t row = at / t.size;
    const int i = static_cast<int>(at - row * t.size);
    const T *from = dy + row * t.out, *weights = w + row % channels * t.kernel;
    T sum = 0;
    for (int tap = 0; tap < t.kernel; ++tap) {
      const int o = t.reader(i, tap);
      if (o >= 0) sum += weights[tap] * from[o];
    }
    dx[at] = sum;
  }
};

/// dw[c, tap] = sum_b sum_o dy[b, c, o] x[b, c, o s - p + tap d]. Block (channel, part of the taps)
/// of threads (tap, slice of the outputs): lanes read neighbouring inputs and the same dy.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    depthwise_dw_kernel(const T* x, const T* dy, int64_t batch, int channels, Axis t, T* dw) {
  __shared__ T partial[kThreads];
  const int slices = blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int tap = blockIdx.y * blockDim.x + threadIdx.x;
  T total = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t row = b * channels + blockIdx.x;
    const T *xs = x + row * t.size, *dys = dy + row * t.out;
    T sum = 0;
#pragma unroll 4
    for (int o = threadIdx.y; o < t.out; o += slices) {
      const int i = t.source(o, tap);
      if (t.inside(i)) sum += dys[o] * xs[i];
    }
    total += sum;
  }
  partial[thread] = total;
  __syncthreads();
  if (threadIdx.y > 0 || tap >= t.kernel) return;
  for (int s = 1; s < slices; ++s) total += partial[s * blockDim.x + threadIdx.x];
  dw[int64_t{blockIdx.x} * t.kernel + tap] = total;
}

/// Threads along a dimension of `n`: a power of two.
int threads_for(int64_t n, int most) {
  int threads = 1;
  while (threads < n && threads < most) threads *= 2;
  return threads;
}

bool tiled(const Axis& t) { return t.stride == 1 && t.dilation == 1 && t.kernel <= kLongKernel; }

}  // namespace

void im2col(const Tensor& x, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
            int64_t pad_h, int64_t pad_w, int64_t dilation_h, int64_t dilation_w,
            const Tensor& columns) {
  if (columns.numel() == 0) return;
  const Axis h = axis(x.size(2), columns.size(1), kernel_h, stride_h, pad_h, dilation_h);
  const Axis w = axis(x.size(3), columns.size(2), kernel_w, stride_w, pad_w, dilation_w);
  const int64_t width = columns.size(3);
  const int across = threads_for(width, kThreads), down = kThreads / across;
  const int tiles = static_cast<int>(div_up(w.out, kOutputs * down));
  const dim3 grid(static_cast<unsigned>(x.size(0) * h.out * tiles),
                  static_cast<unsigned>(div_up(width, across)));
  dispatch_float(x.dtype(), "im2col", [&]<typename T>() {
    launch(im2col_kernel<T>, grid, dim3(across, down), 0, static_cast<const T*>(x.data<T>()),
           static_cast<int>(x.size(1)), h, w, tiles, columns.data<T>());
  });
}

void col2im(const Tensor& columns, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
            int64_t stride_w, int64_t pad_h, int64_t pad_w, int64_t dilation_h, int64_t dilation_w,
            const Tensor& x) {
  if (x.numel() == 0) return;
  const Axis h = axis(x.size(2), columns.size(1), kernel_h, stride_h, pad_h, dilation_h);
  const Axis w = axis(x.size(3), columns.size(2), kernel_w, stride_w, pad_w, dilation_w);
  const int64_t tiles = div_up(w.size, kWarp) * div_up(h.size, kFoldRows);
  const dim3 grid(static_cast<unsigned>(tiles),
                  static_cast<unsigned>(div_up(x.size(1), kFoldChannels)), grid_for(x.size(0)));
  dispatch_float(x.dtype(), "col2im", [&]<typename T>() {
    launch(col2im_kernel<T>, grid, dim3(kWarp, kFoldChannels), 0,
           static_cast<const T*>(columns.data<T>()), x.size(0), static_cast<int>(x.size(1)), h, w,
           x.data<T>());
  });
}

void depthwise_conv1d(const Tensor& x, const Tensor& w, int64_t stride, int64_t pad,
                      int64_t dilation, const Tensor& y) {
  const Axis t = axis(x.size(2), y.size(2), w.size(1), stride, pad, dilation);
  const int64_t channels = x.size(1), rows = x.size(0) * channels;
  dispatch_float(x.dtype(), "depthwise_conv1d", [&]<typename T>() {
    if constexpr (std::is_same_v<T, float>) {
      if (tiled(t)) {
        return correlate(x.data<T>(), w.data<T>(), rows, channels, t, false, y.data<T>());
      }
    }
    for_each(y.numel(), Depthwise<T>{x.data<T>(), w.data<T>(), channels, t, y.data<T>()});
  });
}

void depthwise_conv1d_backward(const Tensor& x, const Tensor& w, const Tensor& dy, int64_t stride,
                               int64_t pad, int64_t dilation, const Tensor& dx, const Tensor& dw) {
  const Axis t = axis(x.size(2), dy.size(2), w.size(1), stride, pad, dilation);
  const int64_t channels = x.size(1), rows = x.size(0) * channels;
  const auto input_gradient = [&]<typename T>() {
    if constexpr (std::is_same_v<T, float>) {
      // dx[i] = sum_t w[k - 1 - t] dy[i - (k - 1 - p) + t]
      const Axis back{t.out, t.size, t.kernel, 1, t.kernel - 1 - t.pad, 1};
      if (tiled(t)) {
        return correlate(dy.data<T>(), w.data<T>(), rows, channels, back, true, dx.data<T>());
      }
    }
    for_each(dx.numel(), DepthwiseDx<T>{dy.data<T>(), w.data<T>(), channels, t, dx.data<T>()});
  };
  dispatch_float(x.dtype(), "depthwise_conv1d_backward", [&]<typename T>() {
    if (dx.defined()) input_gradient.template operator()<T>();
    if (!dw.defined()) return;
    const int across = threads_for(t.kernel, kWarp);
    const dim3 grid(static_cast<unsigned>(channels),
                    static_cast<unsigned>(div_up(t.kernel, across)));
    launch(depthwise_dw_kernel<T>, grid, dim3(across, kThreads / across), 0,
           static_cast<const T*>(x.data<T>()), static_cast<const T*>(dy.data<T>()), x.size(0),
           static_cast<int>(channels), t, dw.data<T>());
  });
}

}  // namespace centroid::cuda
