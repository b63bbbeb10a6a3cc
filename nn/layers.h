#pragma once
// The small building blocks. Sequence modules take and return (Tensor, Lengths); padded outputs are
// 0.
#include <deque>
#include <utility>

#include "autograd/ops.h"
#include "nn/module.h"

namespace centroid::nn {

/// x (..., I) -> act(x W^T + b) (..., O); W uniform in +-1/sqrt(I) times `gain`, b zero.
class Linear : public Module {
 public:
  /// Throws unless both sizes are at least 1.
  Linear(int64_t in, int64_t out, Rng& rng, bool bias = true, double gain = 1);
  /// (..., I) -> (..., O)
  Tensor forward(const Tensor& x, raw::Activation act = {}) const;
  Tensor weight, bias;  ///< (O, I), (O); `bias` is undefined when built without one
};

/// index (...) i64 or i32 -> (..., C); N(0, stddev).
class Embedding : public Module {
 public:
  Embedding(int64_t count, int64_t width, Rng& rng, double stddev = 0.02);
  /// Throws for an index outside [0, N).
  Tensor forward(const Tensor& index) const;
  Tensor weight;  ///< (N, C)
};

/// Each row to mean 0 and variance 1, then times `gain` plus `bias` (Ba et al., "Layer
/// normalization", 2016).
class LayerNorm : public Module {
 public:
  explicit LayerNorm(int64_t width, double eps = 1e-5);
  /// (..., C) -> (..., C)
  Tensor forward(const Tensor& x) const;
  Tensor gain, bias;  ///< (C)

 private:
  double eps_;
};

/// Zeroes values with probability `p` and scales the others by 1 / (1 - p); identity unless
/// training.
class Dropout : public Module {
 public:
  /// Throws unless p is in [0, 1).
  explicit Dropout(double p);
  /// Throws when training without `context.rng`.
  Tensor forward(const Tensor& x, const Context& context) const;

 private:
  double p_;
};

/// `gelu`, `relu` or `silu`; throws, listing them, otherwise.
Unary parse_activation(const std::string& name);

/// up to `hidden`, activation, dropout, down again: (..., C) -> (..., C)
class FeedForward : public Module {
 public:
  FeedForward(int64_t width, int64_t hidden, Unary activation, double dropout, Rng& rng);
  Tensor forward(const Tensor& x, const Context& context) const;

 private:
  Linear up_, down_;
  Dropout dropout_;
  Unary activation_;
};

/// x with everything beyond each item's length set to 0 along `dim`, whatever was there (NaN too);
/// the gradient there is 0 as well. x (B, ..., T, ...) -> the same shape; x itself when nothing is
/// padded.
Tensor mask_padding(const Tensor& x, const Lengths& lengths, int dim = 1);

/// Convolutional subsampling for speech: `factor` (1, 2, 4 or 8) is reached by log2(factor) relu
/// convolutions of width 3 and stride 2 over time and bins, then a projection to the model width;
/// with factor 1 there is only the projection. Input beyond the lengths is masked before each
/// convolution, so that a padded batch gives what its items give alone. x (B, T, bins) -> (B,
/// ceil(T / factor), C); lengths likewise.
class ConvSubsampling : public Module {
 public:
  /// Throws for other factors and for sizes below 1.
  ConvSubsampling(int64_t bins, int64_t width, int64_t factor, int64_t channels, Rng& rng);
  std::pair<Tensor, Lengths> forward(const Tensor& x, const Lengths& lengths) const;
  /// Frames that `frames` input frames become: ceil(frames / factor).
  static int64_t output_length(int64_t frames, int64_t factor);

 private:
  std::deque<Linear> convs_;  // (O, 3 * 3 * I) each: of a position's neighbourhood in time and bins
  std::unique_ptr<Linear> project_;
  int64_t bins_;
};

}  // namespace centroid::nn
