#include "nn/conformer.h"

#include <cmath>

namespace centroid::nn {

ConvModule::ConvModule(int64_t width, int64_t kernel, double dropout, Rng& rng)
    : norm_in_(width),
      gated_(width, 2 * width, rng),
      norm_mid_(width),
      out_(width, width, rng),
      dropout_(dropout) {
  CENTROID_CHECK(kernel >= 1 && kernel % 2 == 1,
                 "conformer: kernel: expected an odd number of frames, got ", kernel);
  const double bound = 1 / std::sqrt(static_cast<double>(kernel));
  depthwise_ = raw::uniform({width, 1, kernel}, rng, -bound, bound);
  add_module("norm_in", norm_in_);
  add_module("gated", gated_);
  add_parameter("depthwise", depthwise_);
  add_module("norm_mid", norm_mid_);
  add_module("out", out_);
}

Tensor ConvModule::forward(const Tensor& x, const Lengths& lengths, const Context& context) const {
  const int64_t width = x.size(2);
  const Tensor both = gated_.forward(norm_in_.forward(x));
  const Tensor gated = slice(both, 2, 0, width) * sigmoid(slice(both, 2, width, 2 * width));
  raw::ConvOptions options;
  options.padding = depthwise_.size(2) / 2;
  options.groups = width;
  const Tensor near =
      conv1d(contiguous(transpose(mask_padding(gated, lengths), 1, 2)), depthwise_, {}, options);
  const Tensor h = silu(norm_mid_.forward(contiguous(transpose(near, 1, 2))));
  return dropout_.forward(out_.forward(h), context);
}

ConformerLayer::ConformerLayer(const TransformerOptions& o, Rng& rng)
    : ff1_(o.width, o.hidden, parse_activation(o.activation), o.dropout, rng),
      attention_(o, o.attention, false, rng),
      conv_(o.width, o.kernel, o.dropout, rng),
      ff2_(o.width, o.hidden, parse_activation(o.activation), o.dropout, rng),
      norm_ff1_(o.width),
      norm_attention_(o.width),
      norm_ff2_(o.width),
      norm_(o.width),
      dropout_(o.dropout) {
  add_module("ff1", ff1_);
  add_module("attention", attention_);
  add_module("conv", conv_);
  add_module("ff2", ff2_);
  add_module("norm_ff1", norm_ff1_);
  add_module("norm_attention", norm_attention_);
  add_module("norm_ff2", norm_ff2_);
  add_module("norm", norm_);
}

Tensor ConformerLayer::forward(const Tensor& x, const Lengths& lengths, const Context& context) {
  const auto half = [&](const FeedForward& ff, const LayerNorm& norm, const Tensor& h) {
    return dropout_.forward(ff.forward(norm.forward(h), context), context) * 0.5;
  };
  Tensor h = x + half(ff1_, norm_ff1_, x);
  const Tensor n = norm_attention_.forward(h);
  h = h + dropout_.forward(attention_.forward(n, n, lengths, lengths, context), context);
  h = h + conv_.forward(h, lengths, context);
  return norm_.forward(h + half(ff2_, norm_ff2_, h));
}

}  // namespace centroid::nn
