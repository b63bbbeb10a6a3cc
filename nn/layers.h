#pragma once
// The small building blocks. Sequence modules take and return (Tensor, Lengths); padded outputs are 0.
#include <deque>
#include <utility>

#include "autograd/ops.h"
#include "nn/module.h"

namespace centroid::nn {

/// x (..., I) -> act(x W^T + b) (..., O); W uniform in +-1/sqrt(I) times `gain`, b zero.
class Linear : public Module {
 public:
  Linear(int64_t in, int64_t out, Rng& rng, bool bias = true, double gain = 1);
  Tensor forward(const Tensor& x, raw::Activation act = {}) const;
  Tensor weight, bias;  // (O, I), (O)
};

/// index (...) i64 or i32 -> (..., C); N(0, stddev).
class Embedding : public Module {
 public:
  Embedding(int64_t count, int64_t width, Rng& rng, double stddev = 0.02);
  Tensor forward(const Tensor& index) const;
  Tensor weight;  // (N, C)
};

class LayerNorm : public Module {
 public:
  explicit LayerNorm(int64_t width, double eps = 1e-5);
  Tensor forward(const Tensor& x) const;
  Tensor gain, bias;  // (C)

 private:
  double eps_;
};

/// Identity unless training.
class Dropout : public Module {
 public:
  explicit Dropout(double p);
  Tensor forward(const Tensor& x, const Context& context) const;

 private:
  double p_;
};

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

/// x (B, T, C) with everything beyond each length set to 0.
Tensor mask_padding(const Tensor& x, const Lengths& lengths);

/// Convolutional subsampling in time for speech: `factor` (1, 2, 4 or 8) is reached by that many
/// stride-2 convolutions of width 3 over (time, bins), then a projection to the model width.
/// x (B, T, bins) -> (B, ceil(T / factor), C); lengths likewise. Input beyond the lengths is masked.
class ConvSubsampling : public Module {
 public:
  ConvSubsampling(int64_t bins, int64_t width, int64_t factor, int64_t channels, Rng& rng);
  std::pair<Tensor, Lengths> forward(const Tensor& x, const Lengths& lengths) const;
  /// Frames that `frames` input frames become.
  static int64_t output_length(int64_t frames, int64_t factor);

 private:
  std::deque<Tensor> weights_, biases_;
  std::unique_ptr<Linear> project_;
  int64_t factor_;
};

}  // namespace centroid::nn
