// Convolutions as products of unfolded inputs with weights; a 1-D convolution is a 2-D one of
// height
// 1. Unfolding is done for a few items at a time: the columns are kernel-size times the input.
#include <algorithm>

#include "tensor/check.h"
#include "tensor/ops.h"

namespace centroid::raw {
namespace {

// A convolution of x (B, C, H, W) with w (O, C, kernel_h, kernel_w) -> (B, O, out_h, out_w).
struct Window {
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t out_h, out_w;

  int64_t pixels() const { return out_h * out_w; }
  int64_t taps() const { return kernel_h * kernel_w; }
  // The columns of such a convolution are the input itself, transposed.
  bool is_pointwise() const {
    return taps() == 1 && stride_h == 1 && stride_w == 1 && pad_h == 0 && pad_w == 0;
  }
};

int64_t output_size(const char* op, int64_t size, int64_t kernel, const ConvOptions& o) {
  const int64_t span = o.dilation * (kernel - 1) + 1;
  CENTROID_CHECK(size + 2 * o.padding >= span, op, ": input of size ", size, " with padding ",
                 o.padding, ": expected at least ", span, " for kernel ", kernel, " with dilation ",
                 o.dilation, ", got ", size + 2 * o.padding);
  return (size + 2 * o.padding - span) / o.stride + 1;
}

// Checks everything but the options' groups; `dims` is 3 for conv1d and 4 for conv2d.
void check_conv(const char* op, int dims, const Tensor& x, const Tensor& w, const Tensor& bias,
                const ConvOptions& o) {
  detail::check_floats(op, {{"x", x}, {"w", w}, {"bias", bias}});
  CENTROID_CHECK(x.dim() == dims, op, ": x: expected ", dims, " dimensions (B, I, ",
                 dims == 3 ? "T" : "H, W", "), got ", x.shape());
  CENTROID_CHECK(w.defined() && w.dim() == dims, op, ": w: expected ", dims,
                 " dimensions (O, I / groups, ", dims == 3 ? "k" : "kh, kw", "), got ",
                 w.defined() ? to_string(w.shape()) : "no tensor");
  CENTROID_CHECK(o.stride >= 1 && o.dilation >= 1 && o.padding >= 0, op,
                 ": expected stride >= 1, dilation >= 1 and padding >= 0, got ", o.stride, ", ",
                 o.dilation, " and ", o.padding);
  for (int i = 2; i < dims; ++i) {
    CENTROID_CHECK(w.size(i) >= 1, op, ": w: expected a kernel of at least 1, got ", w.shape());
  }
  const int64_t channels = x.size(1), per_group = w.size(1);
  CENTROID_CHECK(o.groups == 1 || (dims == 3 && o.groups == channels), op, ": groups: expected 1",
                 dims == 3 ? concat(" or all ", channels, " channels") : "", ", got ", o.groups);
  CENTROID_CHECK(per_group * o.groups == channels, op, ": channels differ: x is ", x.shape(),
                 ", w is ", w.shape(), ", groups ", o.groups, ": ", channels, " vs ",
                 per_group * o.groups);
  CENTROID_CHECK(o.groups == 1 || w.size(0) == channels, op,
                 ": depthwise: expected one output per channel, ", channels, ", got ", w.size(0));
  if (bias.defined()) detail::check_shape(op, "bias", bias, {w.size(0)});
}

bool is_depthwise(const Tensor& x, const ConvOptions& o) { return o.groups > 1 && x.dim() == 3; }

Window window_of(const char* op, const Tensor& x, const Tensor& w, const ConvOptions& o) {
  if (x.dim() == 3) {
    return {1,         w.size(2), 1,          o.stride, 0,
            o.padding, 1,         o.dilation, 1,        output_size(op, x.size(2), w.size(2), o)};
  }
  return {w.size(2),
          w.size(3),
          o.stride,
          o.stride,
          o.padding,
          o.padding,
          o.dilation,
          o.dilation,
          output_size(op, x.size(2), w.size(2), o),
          output_size(op, x.size(3), w.size(3), o)};
}

// (B, C, T) -> (B, C, 1, T); contiguous.
Tensor as_image(const Tensor& x) {
  const Tensor dense = contiguous(x);
  return x.dim() == 3 ? unsqueeze(dense, 2) : dense;
}

// Items [begin, end) of a contiguous tensor's first dimension, as another shape.
Tensor items(const Tensor& x, int64_t begin, const Shape& shape) {
  const int64_t item = x.size(0) == 0 ? 0 : x.numel() / x.size(0);
  return view_of(x, x.impl().offset + begin * item, shape, contiguous_strides(shape));
}

// Calls f(begin, end) for runs of items whose columns take at most about 4 MiB in f32, so that they
// are still in cache when the product reads them.
template <typename F>
void for_items(int64_t batch, int64_t column_numel, const F& f) {
  constexpr int64_t kColumns = int64_t{1} << 20;
  const int64_t step = std::max<int64_t>(1, kColumns / std::max<int64_t>(1, column_numel));
  for (int64_t begin = 0; begin < batch; begin += step) f(begin, std::min(begin + step, batch));
}

// x (n, C, H, W) -> (n, H' W', C kh kw)
Tensor unfold(const Tensor& x, const Window& s) {
  const int64_t n = x.size(0), width = x.size(1) * s.taps();
  const Tensor columns = empty({n, s.out_h, s.out_w, width}, x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), im2col, x, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.pad_h,
                    s.pad_w, s.dilation_h, s.dilation_w, columns);
  return reshape(columns, {n, s.pixels(), width});
}

// A matrix (M, K) as n equal ones.
Tensor repeat(const Tensor& matrix, int64_t n) {
  return expand(matrix, {n, matrix.size(0), matrix.size(1)});
}

// y[b] (O, P) = W (O, C k) columns[b]^T
Tensor conv(const Tensor& x, const Tensor& w, const Window& s) {
  const int64_t batch = x.size(0), channels = x.size(1), out = w.size(0);
  const int64_t pixels = s.pixels(), width = channels * s.taps();
  const Tensor y = empty({batch, out, s.out_h, s.out_w}, x.dtype(), x.device());
  const Tensor matrix = reshape(contiguous(w), {out, width});
  for_items(batch, pixels * width, [&](int64_t begin, int64_t end) {
    const int64_t n = end - begin;
    const Tensor xs = items(x, begin, {n, channels, x.size(2), x.size(3)});
    const Tensor columns =
        s.is_pointwise() ? reshape(xs, {n, channels, pixels}) : transpose(unfold(xs, s), 1, 2);
    CENTROID_DISPATCH(x.device(), matmul, repeat(matrix, n), columns,
                      items(y, begin, {n, out, pixels}));
  });
  return y;
}

// dcolumns[b] (P, C k) = dy[b]^T W, added back to the pixels the columns came from.
Tensor conv_dx(const Tensor& x, const Tensor& w, const Tensor& dy, const Window& s) {
  const int64_t batch = x.size(0), channels = x.size(1), out = w.size(0);
  const int64_t pixels = s.pixels(), width = channels * s.taps();
  const Tensor dx = empty(x.shape(), x.dtype(), x.device());
  const Tensor matrix = reshape(contiguous(w), {out, width});
  for_items(batch, pixels * width, [&](int64_t begin, int64_t end) {
    const int64_t n = end - begin;
    const Tensor dys = items(dy, begin, {n, out, pixels});
    if (s.is_pointwise()) {
      CENTROID_DISPATCH(x.device(), matmul, repeat(transpose(matrix, 0, 1), n), dys,
                        items(dx, begin, {n, channels, pixels}));
      return;
    }
    const Tensor dcolumns = empty({n, pixels, width}, x.dtype(), x.device());
    CENTROID_DISPATCH(x.device(), matmul, transpose(dys, 1, 2), repeat(matrix, n), dcolumns);
    CENTROID_DISPATCH(x.device(), col2im, reshape(dcolumns, {n, s.out_h, s.out_w, width}),
                      s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.pad_h, s.pad_w,
                      s.dilation_h, s.dilation_w,
                      items(dx, begin, {n, channels, x.size(2), x.size(3)}));
  });
  return dx;
}

// dW = sum_b dy[b] (O, P) columns[b] (P, C k): one product over all pixels of a run of items, runs
// summed in order.
Tensor conv_dw(const Tensor& x, const Tensor& w, const Tensor& dy, const Window& s) {
  const int64_t batch = x.size(0), channels = x.size(1), out = w.size(0);
  const int64_t pixels = s.pixels(), width = channels * s.taps();
  Tensor dw;
  for_items(batch, pixels * width, [&](int64_t begin, int64_t end) {
    const int64_t n = end - begin;
    const Tensor columns = unfold(items(x, begin, {n, channels, x.size(2), x.size(3)}), s);
    const Tensor dys = contiguous(transpose(items(dy, begin, {n, out, pixels}), 0, 1));
    const Tensor part =
        matmul(reshape(dys, {out, n * pixels}), reshape(columns, {n * pixels, width}));
    if (dw.defined()) {
      add_(dw, part);
    } else {
      dw = part;
    }
  });
  return dw.defined() ? reshape(dw, w.shape()) : zeros(w.shape(), w.dtype(), w.device());
}

Tensor depthwise(const Tensor& x, const Tensor& w, const ConvOptions& o) {
  const int64_t out = output_size("conv1d", x.size(2), w.size(2), o);
  const Tensor y = empty({x.size(0), x.size(1), out}, x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), depthwise_conv1d, contiguous(x),
                    reshape(contiguous(w), {w.size(0), w.size(2)}), o.stride, o.padding, o.dilation,
                    y);
  return y;
}

void add_bias(const Tensor& y, const Tensor& bias) {
  if (!bias.defined()) return;
  Shape shape{bias.size(0)};
  while (shape.size() + 1 < y.dim()) shape.push_back(1);
  add_(y, reshape(bias, shape));
}

Tensor forward(const char* op, int dims, const Tensor& x, const Tensor& w, const Tensor& bias,
               const ConvOptions& o) {
  check_conv(op, dims, x, w, bias, o);
  Tensor y;
  if (is_depthwise(x, o)) {
    y = depthwise(x, w, o);
  } else {
    y = conv(as_image(x), w, window_of(op, x, w, o));
    if (dims == 3) y = squeeze(y, 2);
  }
  add_bias(y, bias);
  return y;
}

ConvGrads backward(const char* op, int dims, const Tensor& x, const Tensor& w, const Tensor& dy,
                   const ConvOptions& o, bool needs_dx, bool needs_dw, bool needs_dbias) {
  check_conv(op, dims, x, w, {}, o);
  const Window s = window_of(op, x, w, o);
  Shape expected{x.size(0), w.size(0)};
  if (dims == 4) expected.push_back(s.out_h);
  expected.push_back(s.out_w);
  detail::check_floats(op, {{"x", x}, {"dy", dy}});
  detail::check_shape(op, "dy", dy, expected);

  ConvGrads grads;
  if (needs_dbias) grads.dbias = sum(dy, dims == 3 ? Dims{0, 2} : Dims{0, 2, 3});
  if (is_depthwise(x, o)) {
    const Shape matrix{w.size(0), w.size(2)};
    const Tensor dw = needs_dw ? empty(matrix, w.dtype(), w.device()) : Tensor();
    if (needs_dx) grads.dx = empty(x.shape(), x.dtype(), x.device());
    if (needs_dw) grads.dw = reshape(dw, w.shape());
    if (needs_dx || needs_dw) {
      CENTROID_DISPATCH(x.device(), depthwise_conv1d_backward, contiguous(x),
                        reshape(contiguous(w), matrix), contiguous(dy), o.stride, o.padding,
                        o.dilation, grads.dx, dw);
    }
    return grads;
  }
  const Tensor image = as_image(x), dimage = as_image(dy);
  if (needs_dx) grads.dx = reshape(conv_dx(image, w, dimage, s), x.shape());
  if (needs_dw) grads.dw = conv_dw(image, w, dimage, s);
  return grads;
}

}  // namespace

Tensor conv1d(const Tensor& x, const Tensor& w, const Tensor& bias, ConvOptions options) {
  return forward("conv1d", 3, x, w, bias, options);
}

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, ConvOptions options) {
  return forward("conv2d", 4, x, w, bias, options);
}

ConvGrads conv1d_backward(const Tensor& x, const Tensor& w, const Tensor& dy, ConvOptions options,
                          bool needs_dx, bool needs_dw, bool needs_dbias) {
  return backward("conv1d_backward", 3, x, w, dy, options, needs_dx, needs_dw, needs_dbias);
}

ConvGrads conv2d_backward(const Tensor& x, const Tensor& w, const Tensor& dy, ConvOptions options,
                          bool needs_dx, bool needs_dw, bool needs_dbias) {
  return backward("conv2d_backward", 4, x, w, dy, options, needs_dx, needs_dw, needs_dbias);
}

}  // namespace centroid::raw
