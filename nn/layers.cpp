#include "nn/layers.h"

#include <cmath>

#include "nn/names.h"

namespace centroid::nn {

// ---- Linear, Embedding, LayerNorm ---------------------------------------------------------------

Linear::Linear(int64_t in, int64_t out, Rng& rng, bool with_bias, double gain) {
  CENTROID_CHECK(in >= 1 && out >= 1, "Linear: sizes: expected at least 1, got in = ", in,
                 ", out = ", out);
  const double bound = gain / std::sqrt(static_cast<double>(in));
  weight = raw::uniform({out, in}, rng, -bound, bound);
  add_parameter("weight", weight);
  if (!with_bias) return;
  bias = zeros({out});
  add_parameter("bias", bias);
}

Tensor Linear::forward(const Tensor& x, raw::Activation act) const {
  return centroid::linear(x, weight, bias, act);
}

Embedding::Embedding(int64_t count, int64_t width, Rng& rng, double stddev) {
  CENTROID_CHECK(count >= 1 && width >= 1,
                 "Embedding: sizes: expected at least 1, got count = ", count, ", width = ", width);
  weight = raw::normal({count, width}, rng, 0, stddev);
  add_parameter("weight", weight);
}

Tensor Embedding::forward(const Tensor& index) const { return embedding(weight, index); }

LayerNorm::LayerNorm(int64_t width, double eps) : eps_(eps) {
  CENTROID_CHECK(width >= 1, "LayerNorm: width: expected at least 1, got ", width);
  gain = ones({width});
  bias = zeros({width});
  add_parameter("gain", gain);
  add_parameter("bias", bias);
}

Tensor LayerNorm::forward(const Tensor& x) const { return layer_norm(x, gain, bias, eps_); }

// ---- Dropout, FeedForward -----------------------------------------------------------------------

Dropout::Dropout(double p) : p_(p) {
  CENTROID_CHECK(p >= 0 && p < 1, "Dropout: probability: expected a value in [0, 1), got ", p);
}

Tensor Dropout::forward(const Tensor& x, const Context& context) const {
  if (!context.training || p_ == 0) return x;
  CENTROID_CHECK(context.rng, "Dropout: training needs a random stream: set Context::rng");
  return dropout(x, p_, *context.rng);
}

Unary parse_activation(const std::string& name) {
  if (name == "gelu") return Unary::gelu;
  if (name == "relu") return Unary::relu;
  if (name == "silu") return Unary::silu;
  throw Error(concat("activation: expected one of ", nearest_first({"gelu", "relu", "silu"}, name),
                     ", got '", name, "'"));
}

FeedForward::FeedForward(int64_t width, int64_t hidden, Unary activation, double dropout, Rng& rng)
    : up_(width, hidden, rng),
      down_(hidden, width, rng),
      dropout_(dropout),
      activation_(activation) {
  add_module("up", up_);
  add_module("down", down_);
}

Tensor FeedForward::forward(const Tensor& x, const Context& context) const {
  return down_.forward(dropout_.forward(up_.forward(x, {true, activation_}), context));
}

// ---- padding and subsampling --------------------------------------------------------------------

// y = m x with m = 1 within the lengths and 0 beyond, so dx = m dy. Written by filling, not by
// multiplying: 0 * NaN is NaN, and a copy with a few fills is cheaper than a product.
Tensor mask_padding(const Tensor& x, const Lengths& lengths, int dim) {
  CENTROID_CHECK(x.dim() >= 2, "mask_padding: expected (B, ..., T, ...), got ", x.shape());
  dim = normalize_dim(dim, x.dim(), "mask_padding");
  CENTROID_CHECK(dim > 0, "mask_padding: dim 0 is the batch; time must be another one");
  const int64_t time = x.size(dim);
  lengths.check(x.size(0), time, "mask_padding");
  if (lengths.empty() || lengths.sum() == x.size(0) * time) return x;
  const auto masked = [lengths, dim, time](const Tensor& full) {
    const Tensor y = raw::clone(full);
    for (int64_t b = 0; b < lengths.size(); ++b) {
      if (lengths[b] == time) continue;
      raw::fill_(raw::slice(raw::select(y, 0, b), dim - 1, lengths[b], time), 0);
    }
    return y;
  };
  return record("mask_padding", masked(x), {x},
                [masked](const Tensor& dy) -> Grads { return {masked(dy)}; });
}

namespace {

// x (B, T, F, C) -> (B, ceil(T / 2), ceil(F / 2), 9 C): the 3 x 3 neighbourhood (time, bin,
// channel) of every second position and bin, zeros outside. With channels last and (bin, channel)
// taken as one dimension of an image, a row of a neighbourhood is one run of 3 C numbers, which is
// copied several times faster than 3 C single ones.
//
// y = U x with U of zeros and ones, so dx = U^T dy: every number is added back to where it came
// from.
Tensor neighbourhoods(const Tensor& x) {
  const int64_t batch = x.size(0), time = x.size(1), bins = x.size(2), channels = x.size(3);
  const Shape image{batch, 1, time, bins * channels};
  const Tensor y =
      empty({batch, (time + 1) / 2, (bins + 1) / 2, 9 * channels}, x.dtype(), x.device());
  CENTROID_DISPATCH(x.device(), im2col, raw::reshape(raw::contiguous(x), image), 3, 3 * channels, 2,
                    2 * channels, 1, channels, 1, 1, y);
  return record("neighbourhoods", y, {x},
                [image, channels, shape = x.shape()](const Tensor& dy) -> Grads {
                  const Tensor dx = empty(image, dy.dtype(), dy.device());
                  CENTROID_DISPATCH(dy.device(), col2im, raw::contiguous(dy), 3, 3 * channels, 2,
                                    2 * channels, 1, channels, 1, 1, dx);
                  return {raw::reshape(dx, shape)};
                });
}

}  // namespace

ConvSubsampling::ConvSubsampling(int64_t bins, int64_t width, int64_t factor, int64_t channels,
                                 Rng& rng)
    : bins_(bins) {
  CENTROID_CHECK(factor == 1 || factor == 2 || factor == 4 || factor == 8,
                 "ConvSubsampling: factor: expected 1, 2, 4 or 8, got ", factor);
  CENTROID_CHECK(bins >= 1 && width >= 1 && channels >= 1,
                 "ConvSubsampling: sizes: expected at least 1, got bins = ", bins,
                 ", width = ", width, ", channels = ", channels);
  int64_t in = 1;
  for (int64_t left = factor; left > 1; left /= 2) {
    // The gain keeps the mean square through a relu (He et al., "Delving deep into rectifiers",
    // 2015).
    convs_.emplace_back(9 * in, channels, rng, true, std::sqrt(6.0));
    add_module(concat("convs.", convs_.size() - 1), convs_.back());
    in = channels;
  }
  project_ = std::make_unique<Linear>(in * output_length(bins, factor), width, rng);
  add_module("project", *project_);
}

int64_t ConvSubsampling::output_length(int64_t frames, int64_t factor) {
  return (frames + factor - 1) / factor;
}

std::pair<Tensor, Lengths> ConvSubsampling::forward(const Tensor& x, const Lengths& lengths) const {
  CENTROID_CHECK(x.dim() == 3 && x.size(0) >= 1 && x.size(1) >= 1 && x.size(2) == bins_,
                 "ConvSubsampling: expected (B, T, ", bins_, ") with B and T at least 1, got ",
                 x.shape());
  Lengths left = lengths;
  Tensor h = reshape(x, {x.size(0), x.size(1), bins_, 1});  // (B, T, F, channels)
  for (const Linear& conv : convs_) {
    h = conv.forward(neighbourhoods(mask_padding(h, left)), {true, Unary::relu});
    std::vector<int64_t> halved = left.values();
    for (int64_t& length : halved) length = output_length(length, 2);
    left = Lengths(std::move(halved));
  }
  // What lies beyond the lengths cannot spread any more: the projection acts on each position
  // alone.
  h = reshape(h, {h.size(0), h.size(1), h.size(2) * h.size(3)});
  return {mask_padding(project_->forward(h), left), left};
}

}  // namespace centroid::nn
