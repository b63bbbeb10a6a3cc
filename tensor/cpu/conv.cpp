// Convolution kernels: unfolding into columns, its transpose, and depthwise convolution. The
// products of columns with weights are matmuls (tensor/ops_conv.cpp).
#include <algorithm>
#include <type_traits>
#include <utility>

#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

// One image dimension of a convolution.
struct Axis {
  int64_t size, out, kernel, stride, pad, dilation;

  // The input position that output `o` reads with tap `tap`; may lie outside [0, size).
  int64_t source(int64_t o, int64_t tap) const { return o * stride - pad + tap * dilation; }
  bool inside(int64_t position) const { return position >= 0 && position < size; }
  // The outputs [first, last) for which `tap` reads inside the input.
  std::pair<int64_t, int64_t> valid(int64_t tap) const {
    const int64_t shift = pad - tap * dilation;  // source = o * stride - shift
    const int64_t first = shift <= 0 ? 0 : (shift + stride - 1) / stride;
    const int64_t end = size + shift;  // o * stride < end
    const int64_t last = end <= 0 ? 0 : (end + stride - 1) / stride;
    return {std::min(first, out), std::clamp(last, std::min(first, out), out)};
  }
};

// Calls f with the number of taps as a constant where it is a common one, else with 0: loops over a
// constant number of taps are unrolled, several times as fast.
template <typename F>
void with_taps(int64_t kernel, const F& f) {
  switch (kernel) {
    case 1: return f(std::integral_constant<int, 1>());
    case 3: return f(std::integral_constant<int, 3>());
    case 5: return f(std::integral_constant<int, 5>());
    default: return f(std::integral_constant<int, 0>());
  }
}

// Copies one channel row's taps into the columns of outputs [begin, end): `width` apart in `to`.
template <int kTaps, typename T>
void unfold_row(const Axis& w, const T* __restrict row, int64_t begin, int64_t end,
                T* __restrict to, int64_t width) {
  const int64_t taps = kTaps ? kTaps : w.kernel, dilation = w.dilation;
  const int64_t span = dilation * (taps - 1);
  int64_t first = w.source(begin, 0);
  for (int64_t o = begin; o < end; ++o, to += width, first += w.stride) {
    if (first >= 0 && first + span < w.size) {
      for (int64_t j = 0; j < taps; ++j) to[j] = row[first + j * dilation];
    } else {
      for (int64_t j = 0; j < taps; ++j) {
        const int64_t position = first + j * dilation;
        to[j] = w.inside(position) ? row[position] : T(0);
      }
    }
  }
}

// The transpose of unfold_row for one output: adds its taps back to the row.
template <int kTaps, typename T>
void fold_output(const Axis& w, const T* __restrict from, int64_t first, T* __restrict row) {
  const int64_t taps = kTaps ? kTaps : w.kernel, dilation = w.dilation;
  if (first >= 0 && first + dilation * (taps - 1) < w.size) {
    for (int64_t j = 0; j < taps; ++j) row[first + j * dilation] += from[j];
  } else {
    for (int64_t j = 0; j < taps; ++j) {
      const int64_t position = first + j * dilation;
      if (w.inside(position)) row[position] += from[j];
    }
  }
}

// Outputs of a row that are unfolded together, and channels that are folded together: enough for
// long runs of memory, few enough for the cache.
constexpr int64_t kUnfoldOutputs = 64, kFoldChannels = 32;

// The columns of outputs [begin, end) of row `oh` of one image x (channels, H, W).
template <int kTaps, typename T>
void unfold_block(const T* x, int64_t channels, const Axis& h, const Axis& w, int64_t oh,
                  int64_t begin, int64_t end, T* to) {
  const int64_t width = channels * h.kernel * w.kernel;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < h.kernel; ++i, to += w.kernel) {
      const int64_t ih = h.source(oh, i);
      if (h.inside(ih)) {
        unfold_row<kTaps>(w, x + (c * h.size + ih) * w.size, begin, end, to, width);
      } else {
        for (int64_t o = 0; o < end - begin; ++o) std::fill_n(to + o * width, w.kernel, T(0));
      }
    }
  }
}

template <typename T>
void im2col_of(const T* x, int64_t batch, int64_t channels, const Axis& h, const Axis& w,
               T* columns) {
  const int64_t width = channels * h.kernel * w.kernel;
  const int64_t blocks = (w.out + kUnfoldOutputs - 1) / kUnfoldOutputs;
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, kUnfoldOutputs * width));
  parallel_for(0, batch * h.out * blocks, grain, [&](int64_t begin, int64_t end) {
    with_taps(w.kernel, [&](auto taps) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t b = r / (h.out * blocks), oh = r / blocks % h.out,
                      ow = r % blocks * kUnfoldOutputs;
        unfold_block<taps>(x + b * channels * h.size * w.size, channels, h, w, oh, ow,
                           std::min(ow + kUnfoldOutputs, w.out),
                           columns + ((b * h.out + oh) * w.out + ow) * width);
      }
    });
  });
}

// Adds the columns of channels [c0, c1) of one image back to their pixels.
template <int kTaps, typename T>
void fold_channels(const T* columns, int64_t c0, int64_t c1, int64_t width, const Axis& h,
                   const Axis& w, T* x) {
  std::fill(x + c0 * h.size * w.size, x + c1 * h.size * w.size, T(0));
  for (int64_t oh = 0; oh < h.out; ++oh) {
    for (int64_t ow = 0; ow < w.out; ++ow) {
      const T* from = columns + (oh * w.out + ow) * width + c0 * h.kernel * w.kernel;
      for (int64_t c = c0; c < c1; ++c) {
        for (int64_t i = 0; i < h.kernel; ++i, from += w.kernel) {
          const int64_t ih = h.source(oh, i);
          if (!h.inside(ih)) continue;
          fold_output<kTaps>(w, from, w.source(ow, 0), x + (c * h.size + ih) * w.size);
        }
      }
    }
  }
}

// Blocks of channels write disjoint pixels, so the order of each pixel's sum is that of the
// outputs.
template <typename T>
void col2im_of(const T* columns, int64_t batch, int64_t channels, const Axis& h, const Axis& w,
               T* x) {
  const int64_t width = channels * h.kernel * w.kernel, pixels = h.size * w.size;
  const int64_t blocks = (channels + kFoldChannels - 1) / kFoldChannels;
  parallel_for(0, batch * blocks, 1, [&](int64_t begin, int64_t end) {
    with_taps(w.kernel, [&](auto taps) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t b = r / blocks, c0 = r % blocks * kFoldChannels;
        fold_channels<taps>(columns + b * h.out * w.out * width, c0,
                            std::min(c0 + kFoldChannels, channels), width, h, w,
                            x + b * channels * pixels);
      }
    });
  });
}

template <typename T>
void depthwise_row(const T* __restrict x, const T* w, const Axis& t, T* __restrict y) {
  std::fill_n(y, t.out, T(0));
  for (int64_t tap = 0; tap < t.kernel; ++tap) {
    const auto [first, last] = t.valid(tap);
    const T weight = w[tap];
    const int64_t shift = t.source(0, tap);
    if (t.stride == 1) {
      for (int64_t o = first; o < last; ++o) y[o] += weight * x[shift + o];
    } else {
      for (int64_t o = first; o < last; ++o) y[o] += weight * x[shift + o * t.stride];
    }
  }
}

template <typename T>
void depthwise_row_dx(const T* __restrict dy, const T* w, const Axis& t, T* __restrict dx) {
  std::fill_n(dx, t.size, T(0));
  for (int64_t tap = 0; tap < t.kernel; ++tap) {
    const auto [first, last] = t.valid(tap);
    const T weight = w[tap];
    const int64_t shift = t.source(0, tap);
    if (t.stride == 1) {
      for (int64_t o = first; o < last; ++o) dx[shift + o] += weight * dy[o];
    } else {
      for (int64_t o = first; o < last; ++o) dx[shift + o * t.stride] += weight * dy[o];
    }
  }
}

template <typename T>
T depthwise_tap_dw(const T* x, const T* dy, const Axis& t, int64_t tap) {
  const auto [first, last] = t.valid(tap);
  const int64_t shift = t.source(0, tap);
  T sum = 0;
  if (t.stride == 1) {
#pragma omp simd reduction(+ : sum)
    for (int64_t o = first; o < last; ++o) sum += dy[o] * x[shift + o];
  } else {
    for (int64_t o = first; o < last; ++o) sum += dy[o] * x[shift + o * t.stride];
  }
  return sum;
}

Axis time_axis(const Tensor& x, const Tensor& w, int64_t out, int64_t stride, int64_t pad,
               int64_t dilation) {
  return {x.size(2), out, w.size(1), stride, pad, dilation};
}

int64_t rows_per_chunk(const Axis& t) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, t.out * t.kernel));
}

}  // namespace

void im2col(const Tensor& x, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
            int64_t pad_h, int64_t pad_w, int64_t dilation_h, int64_t dilation_w,
            const Tensor& columns) {
  const Axis h{x.size(2), columns.size(1), kernel_h, stride_h, pad_h, dilation_h};
  const Axis w{x.size(3), columns.size(2), kernel_w, stride_w, pad_w, dilation_w};
  dispatch_float(x.dtype(), "im2col", [&]<typename T>() {
    im2col_of(x.data<T>(), x.size(0), x.size(1), h, w, columns.data<T>());
  });
}

void col2im(const Tensor& columns, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
            int64_t stride_w, int64_t pad_h, int64_t pad_w, int64_t dilation_h, int64_t dilation_w,
            const Tensor& x) {
  const Axis h{x.size(2), columns.size(1), kernel_h, stride_h, pad_h, dilation_h};
  const Axis w{x.size(3), columns.size(2), kernel_w, stride_w, pad_w, dilation_w};
  dispatch_float(x.dtype(), "col2im", [&]<typename T>() {
    col2im_of(columns.data<T>(), x.size(0), x.size(1), h, w, x.data<T>());
  });
}

void depthwise_conv1d(const Tensor& x, const Tensor& w, int64_t stride, int64_t pad,
                      int64_t dilation, const Tensor& y) {
  const Axis t = time_axis(x, w, y.size(2), stride, pad, dilation);
  const int64_t channels = x.size(1);
  dispatch_float(x.dtype(), "depthwise_conv1d", [&]<typename T>() {
    const T *px = x.data<T>(), *pw = w.data<T>();
    T* py = y.data<T>();
    parallel_for(0, x.size(0) * channels, rows_per_chunk(t), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        depthwise_row(px + r * t.size, pw + r % channels * t.kernel, t, py + r * t.out);
      }
    });
  });
}

// y[o] = sum_tap w[tap] x[o s - p + tap d], so
//   dx[i]   = sum over (o, tap) with o s - p + tap d = i of w[tap] dy[o]
//   dw[tap] = sum_b sum_o dy[o] x[o s - p + tap d], items of the batch in order.
void depthwise_conv1d_backward(const Tensor& x, const Tensor& w, const Tensor& dy, int64_t stride,
                               int64_t pad, int64_t dilation, const Tensor& dx, const Tensor& dw) {
  const Axis t = time_axis(x, w, dy.size(2), stride, pad, dilation);
  const int64_t batch = x.size(0), channels = x.size(1);
  dispatch_float(x.dtype(), "depthwise_conv1d_backward", [&]<typename T>() {
    const T *px = x.data<T>(), *pw = w.data<T>(), *pdy = dy.data<T>();
    T* pdx = dx.defined() ? dx.data<T>() : nullptr;
    T* pdw = dw.defined() ? dw.data<T>() : nullptr;
    parallel_for(0, channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        if (pdw) std::fill_n(pdw + c * t.kernel, t.kernel, T(0));
        for (int64_t b = 0; b < batch; ++b) {
          const int64_t r = b * channels + c;
          if (pdx) depthwise_row_dx(pdy + r * t.out, pw + c * t.kernel, t, pdx + r * t.size);
          if (!pdw) continue;
          for (int64_t tap = 0; tap < t.kernel; ++tap) {
            pdw[c * t.kernel + tap] += depthwise_tap_dw(px + r * t.size, pdy + r * t.out, t, tap);
          }
        }
      }
    });
  });
}

}  // namespace centroid::cpu
