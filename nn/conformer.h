#pragma once
// Conformer layers: self-attention for what is far, a convolution for what is near.
#include "nn/transformer.h"

namespace centroid::nn {

/// The convolution module of a Conformer (Gulati et al., "Conformer: convolution-augmented
/// transformer for speech recognition", Interspeech 2020, figure 2): norm, a pointwise projection
/// with a gate, a depthwise convolution over time, norm, silu, a pointwise projection. The norm in
/// the middle is over channels where the paper has one over the batch: a row depends on no other
/// item and on no padding, in training as in use.
class ConvModule : public Module {
 public:
  /// Throws unless `kernel`, the frames that an output sees, is odd.
  ConvModule(int64_t width, int64_t kernel, double dropout, Rng& rng);
  /// (B, T, C) -> (B, T, C); rows beyond `lengths` affect no other row.
  Tensor forward(const Tensor& x, const Lengths& lengths, const Context& context) const;

 private:
  LayerNorm norm_in_;
  Linear gated_;      // (2 C, C): values, then gates
  Tensor depthwise_;  // (C, 1, kernel)
  LayerNorm norm_mid_;
  Linear out_;
  Dropout dropout_;
};

/// Half a feed-forward part, attention, the convolution module, the other half, a last norm; each
/// part after a norm of its own and with a residual (equation 1 of the paper). Attention is any
/// registered variant, positions those of the options.
class ConformerLayer : public EncoderBlock {
 public:
  ConformerLayer(const TransformerOptions& options, Rng& rng);
  /// (B, T, C) -> (B, T, C); rows beyond `lengths` mean nothing and affect no other row.
  Tensor forward(const Tensor& x, const Lengths& lengths, const Context& context) override;

 private:
  FeedForward ff1_;
  MultiHead attention_;
  ConvModule conv_;
  FeedForward ff2_;
  LayerNorm norm_ff1_, norm_attention_, norm_ff2_, norm_;
  Dropout dropout_;
};

}  // namespace centroid::nn
