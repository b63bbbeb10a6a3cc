#include "tests/tensor/reference.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// Calls f(position in x, position in w, position in y) for every product of a convolution of
// x (B, I, H, W) with w (O, I / groups, kh, kw); a 1-D one has H = kh = 1 and no padding there.
template <typename F>
void for_products(const Shape& x, const Shape& w, const Shape& y, const raw::ConvOptions& o,
                  bool one_dimensional, const F& f) {
  const int64_t per_group = w[1], outs_per_group = w[0] / o.groups;
  const int64_t stride_h = one_dimensional ? 1 : o.stride, pad_h = one_dimensional ? 0 : o.padding;
  const int64_t dilation_h = one_dimensional ? 1 : o.dilation;
  int64_t iy = 0;
  for (int64_t b = 0; b < x[0]; ++b) {
    for (int64_t out = 0; out < w[0]; ++out) {
      for (int64_t oh = 0; oh < y[2]; ++oh) {
        for (int64_t ow = 0; ow < y[3]; ++ow, ++iy) {
          for (int64_t c = 0; c < per_group; ++c) {
            const int64_t channel = out / outs_per_group * per_group + c;
            for (int64_t i = 0; i < w[2]; ++i) {
              for (int64_t j = 0; j < w[3]; ++j) {
                const int64_t h = oh * stride_h - pad_h + i * dilation_h;
                const int64_t v = ow * o.stride - o.padding + j * o.dilation;
                if (h < 0 || h >= x[2] || v < 0 || v >= x[3]) continue;
                f(((b * x[1] + channel) * x[2] + h) * x[3] + v,
                  ((out * w[1] + c) * w[2] + i) * w[3] + j, iy);
              }
            }
          }
        }
      }
    }
  }
}

Shape image(const Shape& shape) {
  Shape result = shape;
  if (shape.size() == 3) result.insert(2, 1);
  return result;
}

template <typename T>
struct PlainConv {
  std::vector<T> y, dx, dw, dbias;
};

template <typename T>
PlainConv<T> plain_conv(const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& dy,
                        const raw::ConvOptions& o) {
  const std::vector<T> vx = values<T>(x), vw = values<T>(w), vdy = values<T>(dy);
  const std::vector<T> vb = values<T>(bias);
  PlainConv<T> r{std::vector<T>(vdy.size()), std::vector<T>(vx.size()), std::vector<T>(vw.size()),
                 std::vector<T>(vb.size())};
  for_products(image(x.shape()), image(w.shape()), image(dy.shape()), o, x.dim() == 3,
               [&](int64_t ix, int64_t iw, int64_t iy) {
                 r.y[iy] += vx[ix] * vw[iw];
                 r.dx[ix] += vdy[iy] * vw[iw];
                 r.dw[iw] += vdy[iy] * vx[ix];
               });
  const int64_t pixels = dy.numel() / std::max<int64_t>(1, dy.size(0) * dy.size(1));
  for (size_t i = 0; i < vdy.size(); ++i) {
    r.y[i] += vb[i / pixels % vb.size()];
    r.dbias[i / pixels % vb.size()] += vdy[i];
  }
  return r;
}

template <typename T>
void check_conv(const Shape& sx, const Shape& sw, const raw::ConvOptions& o) {
  Rng rng(sx[0] + 10 * o.stride + 100 * o.padding);
  const DType dtype = dtype_of<T>();
  const Tensor x = randn(sx, rng, dtype), w = randn(sw, rng, dtype),
               bias = randn({sw[0]}, rng, dtype);
  const bool flat = x.dim() == 3;
  const auto forward = [&](const Tensor& input, const Tensor& weight, const Tensor& b) {
    return flat ? raw::conv1d(input, weight, b, o) : raw::conv2d(input, weight, b, o);
  };
  const Tensor y = forward(x, w, bias);
  const Tensor dy = randn(y.shape(), rng, dtype);
  const auto backward = [&](const Tensor& input, const Tensor& dout, bool a, bool b, bool c) {
    return flat ? raw::conv1d_backward(input, w, dout, o, a, b, c)
                : raw::conv2d_backward(input, w, dout, o, a, b, c);
  };
  const PlainConv<long double> exact = plain_conv<long double>(x, w, bias, dy, o);
  const PlainConv<T> plain = plain_conv<T>(x, w, bias, dy, o);
  INFO("x " << sx << " w " << sw << " stride " << o.stride << " padding " << o.padding
            << " dilation " << o.dilation << " groups " << o.groups);
  CHECK(excess<T>(y, exact.y, plain.y) == "");
  CHECK(same_bits(forward(strided(x), strided(w), strided(bias)), y));
  for (const bool dense : {true, false}) {
    const auto g = dense ? backward(x, dy, true, true, true)
                         : backward(strided(x), strided(dy), true, true, true);
    CHECK(g.dx.shape() == x.shape());
    CHECK(g.dw.shape() == w.shape());
    CHECK(excess<T>(g.dx, exact.dx, plain.dx) == "");
    CHECK(excess<T>(g.dw, exact.dw, plain.dw) == "");
    CHECK(excess<T>(g.dbias, exact.dbias, plain.dbias) == "");
  }
  const auto none = backward(x, dy, false, false, false);
  CHECK_FALSE((none.dx.defined() || none.dw.defined() || none.dbias.defined()));
  const auto only_dx = backward(x, dy, true, false, false);
  CHECK_FALSE((only_dx.dw.defined() || only_dx.dbias.defined()));
  CHECK(same_bits(only_dx.dx, backward(x, dy, true, true, true).dx));
}

}  // namespace

TEMPLATE_TEST_CASE("conv1d and its gradients agree with plain sums", "", float, double) {
  check_conv<TestType>({2, 3, 11}, {4, 3, 3}, {});
  check_conv<TestType>({1, 1, 1}, {1, 1, 1}, {});
  check_conv<TestType>({3, 5, 17}, {2, 5, 3}, {.stride = 2, .padding = 1});
  check_conv<TestType>({2, 2, 40}, {3, 2, 4}, {.stride = 3, .padding = 2, .dilation = 2});
  check_conv<TestType>({2, 18, 9}, {5, 18, 1}, {});  // no unfolding
  check_conv<TestType>({2, 4, 9}, {5, 4, 1}, {.stride = 2});
  check_conv<TestType>({2, 3, 2}, {4, 3, 5}, {.padding = 4});  // kernel wider than the input
  check_conv<TestType>({0, 3, 8}, {4, 3, 3}, {});
}

TEMPLATE_TEST_CASE("depthwise conv1d and its gradients agree with plain sums", "", float, double) {
  check_conv<TestType>({2, 3, 11}, {3, 1, 3}, {.groups = 3});
  check_conv<TestType>({2, 5, 70}, {5, 1, 31}, {.padding = 15, .groups = 5});
  check_conv<TestType>({3, 4, 23}, {4, 1, 4},
                       {.stride = 2, .padding = 3, .dilation = 2, .groups = 4});
  check_conv<TestType>({1, 2, 1}, {2, 1, 3}, {.padding = 2, .groups = 2});
  check_conv<TestType>({2, 2, 2}, {2, 1, 9}, {.stride = 5, .padding = 8, .groups = 2});
  check_conv<TestType>({0, 2, 5}, {2, 1, 3}, {.groups = 2});
}

TEMPLATE_TEST_CASE("conv2d and its gradients agree with plain sums", "", float, double) {
  check_conv<TestType>({2, 3, 7, 9}, {4, 3, 3, 3}, {});
  check_conv<TestType>({2, 1, 21, 40}, {5, 1, 3, 3}, {.stride = 2, .padding = 1});
  check_conv<TestType>({1, 18, 8, 5}, {2, 18, 1, 3}, {.padding = 1});
  check_conv<TestType>({2, 17, 6, 7}, {3, 17, 2, 4}, {.stride = 3, .padding = 2, .dilation = 2});
  check_conv<TestType>({2, 4, 5, 3}, {6, 4, 1, 1}, {});
  check_conv<TestType>({0, 4, 5, 3}, {6, 4, 3, 3}, {});
}

TEST_CASE("a convolution whose columns do not fit at once gives each item its own result") {
  Rng rng(9);
  const Tensor x = randn({3, 16, 128, 128}, rng, DType::f32);
  const Tensor w = randn({4, 16, 3, 3}, rng, DType::f32, 0.1);
  const raw::ConvOptions o{.padding = 1};
  const Tensor y = raw::conv2d(x, w, {}, o);
  const Tensor dy = randn(y.shape(), rng, DType::f32);
  const auto g = raw::conv2d_backward(x, w, dy, o, true, true, true);
  Tensor dw = zeros(w.shape());
  for (int64_t b = 0; b < 3; ++b) {
    const Tensor xb = raw::slice(x, 0, b, b + 1), dyb = raw::slice(dy, 0, b, b + 1);
    CHECK(same_bits(raw::conv2d(xb, w, {}, o), raw::slice(y, 0, b, b + 1)));
    const auto gb = raw::conv2d_backward(xb, w, dyb, o, true, true, false);
    CHECK(same_bits(gb.dx, raw::slice(g.dx, 0, b, b + 1)));
    raw::add_(dw, gb.dw);
  }
  CHECK(mismatch(g.dw, dw, 1e-4, 1e-3) == "");
}

TEST_CASE("convolutions give the same bits on any number of threads") {
  Rng rng(10);
  const Tensor x = randn({3, 20, 30, 17}, rng, DType::f32);
  const Tensor w = randn({8, 20, 3, 3}, rng, DType::f32);
  const raw::ConvOptions o{.stride = 2, .padding = 1};
  const Tensor dy = randn(raw::conv2d(x, w, {}, o).shape(), rng, DType::f32);
  CHECK(same_on_any_threads([&] {
    const auto g = raw::conv2d_backward(x, w, dy, o, true, true, true);
    return std::vector{raw::conv2d(x, w, {}, o), g.dx, g.dw, g.dbias};
  }));
  const Tensor x1 = randn({5, 24, 900}, rng, DType::f32), w1 = randn({24, 1, 15}, rng, DType::f32);
  const raw::ConvOptions depthwise{.padding = 7, .groups = 24};
  const Tensor dy1 = randn(x1.shape(), rng, DType::f32);
  CHECK(same_on_any_threads([&] {
    const auto g = raw::conv1d_backward(x1, w1, dy1, depthwise, true, true, true);
    return std::vector{raw::conv1d(x1, w1, {}, depthwise), g.dx, g.dw, g.dbias};
  }));
}

TEST_CASE("a NaN reaches the outputs whose windows hold it", "[host]") {
  const Tensor x = zeros({1, 1, 9}, DType::f64);
  x.data<double>()[4] = kNan;
  for (const int64_t channels : {1, 2}) {
    const Tensor input = raw::contiguous(raw::expand(x, {1, channels, 9}));
    const Tensor w = zeros({channels, 1, 3}, DType::f64);
    const std::vector<double> y =
        raw::conv1d(input, w, {}, {.padding = 1, .groups = channels}).to_vector<double>();
    for (int i = 0; i < 9; ++i) CHECK(std::isnan(y[i]) == (i >= 3 && i <= 5));
  }
}

TEST_CASE("convolutions explain what does not fit") {
  const Tensor x = zeros({2, 3, 10}), w = zeros({4, 3, 3});
  const auto conv = [](const Tensor& a, const Tensor& b, const Tensor& bias, raw::ConvOptions o) {
    return error_of([&] { raw::conv1d(a, b, bias, o); });
  };
  CHECK(conv(x, zeros({4, 2, 3}), {}, {}) ==
        "conv1d: channels differ: x is (2, 3, 10), w is (4, 2, 3), groups 1: 3 vs 2");
  CHECK(conv(zeros({2, 3}), w, {}, {}) == "conv1d: x: expected 3 dimensions (B, I, T), got (2, 3)");
  CHECK(conv(zeros({2, 3, 4}), w, {}, {.dilation = 2}) ==
        "conv1d: input of size 4 with padding 0: expected at least 5 for kernel 3 with dilation "
        "2, got 4");
  CHECK(conv(x, w, {}, {.groups = 2}) == "conv1d: groups: expected 1 or all 3 channels, got 2");
  CHECK(conv(x, zeros({6, 1, 3}), {}, {.groups = 3}) ==
        "conv1d: depthwise: expected one output per channel, 3, got 6");
  CHECK_THAT(conv(x, w, {}, {.stride = 0}), Catch::Contains("stride >= 1"));
  CHECK(conv(x, w, zeros({3}), {}) == "conv1d: bias: expected shape (4,), got (3,)");
  CHECK_THAT(conv(x, zeros({4, 3, 0}), {}, {}), Catch::Contains("kernel of at least 1"));
  CHECK_THAT(error_of([&] {
               raw::conv2d(zeros({2, 3, 5, 5}), zeros({4, 3, 3, 3}), {}, {.groups = 3});
             }),
             Catch::Contains("conv2d: groups: expected 1, got 3"));
  CHECK(error_of([&] {
          raw::conv1d_backward(x, w, zeros({2, 4, 9}), {}, true, true, true);
        }) == "conv1d_backward: dy: expected shape (2, 4, 8), got (2, 4, 9)");
}
