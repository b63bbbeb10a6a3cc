#pragma once
// Multi-head attention around the Attention interface, encoder and decoder layers and their stacks.
#include <deque>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "nn/attention.h"
#include "nn/decode.h"
#include "nn/layers.h"
#include "nn/positional.h"

namespace centroid::nn {

/// Everything that describes a stack; stored in checkpoints.
struct TransformerOptions {
  int64_t layers = 4;
  std::string block = "transformer";  ///< or conformer: what an encoder's layers are
  int64_t heads = 4;
  int64_t head_size = 0;  ///< 0: width / heads
  int64_t width = 128;    ///< C
  int64_t hidden = 512;   ///< of the feed-forward part
  double dropout = 0.1;
  std::string attention = "full";
  std::string cross_attention = "full";  ///< decoder only
  bool pre_norm = true;
  std::string activation = "gelu";  ///< or relu, silu
  int64_t kernel = 15;              ///< frames of a conformer's convolutions, odd
  Positions positions = Positions::sinusoidal;
  int64_t max_length = 4096;  ///< of learned positions
  bool causal = false;
  bool recompute = false;  ///< keep only the layers' inputs for backward
};

/// Throws, naming the option, unless a stack can be built from `options`.
void check(const TransformerOptions& options);

/// As JSON for checkpoints: an object with the members' names. Reading throws for unknown names
/// (listing the valid ones) and for values of the wrong kind; members that are absent keep their
/// value.
void to_json(nlohmann::json& json, const TransformerOptions& options);
void from_json(const nlohmann::json& json, TransformerOptions& options);

/// Projects to heads, attends, projects back. Self-attention: memory = x. With rotary positions, q
/// and k are turned by theirs. Outside of training, variants that draw random numbers draw them
/// from a stream named by the module's path: an output depends on nothing but the item.
class MultiHead : public Module {
 public:
  MultiHead(const TransformerOptions& options, const std::string& attention, bool causal, Rng& rng);
  /// x (B, L, C), memory (B, S, C) -> (B, L, C); rows beyond `lengths` are the output's bias.
  Tensor forward(const Tensor& x, const Tensor& memory, const Lengths& lengths,
                 const Lengths& memory_lengths, const Context& context);

  /// Generation with causal self-attention, one position at a time: the state before the first one.
  /// Throws unless causal.
  std::unique_ptr<DecodeState> start_decoding() const;
  /// x (B, 1, C) at `position`, the number of steps before this one -> (B, 1, C), the row that
  /// `forward` over all positions so far gives it outside of training. Records no history.
  Tensor step(DecodeState& state, const Tensor& x, int64_t position);

 private:
  /// (B, T, C) -> (B, H, T, E), a view of the projection; x begins at position `first`.
  Tensor heads(const Linear& projection, const Tensor& x, int64_t first = 0) const;
  /// (B, H, T, E) -> (B, T, C)
  Tensor joined(const Tensor& attended) const;

  Linear q_, k_, v_, out_;
  std::unique_ptr<Attention> attention_;
  int64_t heads_, head_size_;
  bool causal_, rotary_;
  PositionTable angles_;
};

/// A layer of an encoder.
class EncoderBlock : public Module {
 public:
  /// (B, T, C) -> (B, T, C); rows beyond `lengths` mean nothing and affect no other row.
  virtual Tensor forward(const Tensor& x, const Lengths& lengths, const Context& context) = 0;
  /// As for MultiHead: (B, 1, C) -> (B, 1, C). Both throw for layers that look ahead.
  virtual std::unique_ptr<DecodeState> start_decoding() const;
  virtual Tensor step(DecodeState& state, const Tensor& x, int64_t position);
};

/// Self-attention and feed-forward, each with a residual; norm before (pre) or after (post) each
/// part.
class EncoderLayer : public EncoderBlock {
 public:
  EncoderLayer(const TransformerOptions& options, Rng& rng);
  Tensor forward(const Tensor& x, const Lengths& lengths, const Context& context) override;
  std::unique_ptr<DecodeState> start_decoding() const override {
    return attention_.start_decoding();
  }
  Tensor step(DecodeState& state, const Tensor& x, int64_t position) override;

 private:
  /// The layer around its attention, (B, T, C) -> (B, T, C).
  template <typename Attend>
  Tensor around(const Attend& attend, const Tensor& x, const Context& context) const;

  MultiHead attention_;
  FeedForward ff_;
  LayerNorm norm1_, norm2_;
  Dropout dropout_;
  bool pre_norm_;
};

/// What an Encoder keeps between the steps of one generation.
struct EncoderState {
  std::vector<std::unique_ptr<DecodeState>> layers;
  int64_t position = 0;  ///< steps made so far
};

/// Positions, dropout, layers, and (pre-norm) a final norm. Causal use makes it a language model's
/// body. x (B, T, C) -> (B, T, C), padded positions 0; what x holds there is ignored. With
/// `recompute`, `context.rng` must outlive the backward.
class Encoder : public Module {
 public:
  Encoder(const TransformerOptions& options, Rng& rng);
  std::pair<Tensor, Lengths> forward(const Tensor& x, const Lengths& lengths,
                                     const Context& context);
  /// What `forward` would give if the encoder ended after each of these layers (ascending, from 1):
  /// for losses in the middle (Lee and Watanabe, "Intermediate loss regularization for CTC-based
  /// speech recognition", ICASSP 2021). Later layers are not run. The norm is shared.
  std::vector<Tensor> forward_at(const std::vector<int64_t>& layers, const Tensor& x,
                                 const Lengths& lengths, const Context& context);

  /// Generation, one position at a time: the state before the first one. Throws unless the encoder
  /// is causal.
  EncoderState start_decoding() const;
  /// The next position, x (B, 1, C) -> (B, 1, C): the row that `forward` over all positions so far
  /// gives it outside of training. Time and memory are those of the variant's `step`. Records no
  /// history; throws when learned positions end.
  Tensor step(EncoderState& state, const Tensor& x);

 private:
  TransformerOptions options_;
  PositionalEncoding positions_;
  Dropout dropout_;
  std::vector<std::unique_ptr<EncoderBlock>> layers_;
  LayerNorm norm_;
};

/// Causal self-attention, cross-attention to `memory`, feed-forward.
class DecoderLayer : public Module {
 public:
  DecoderLayer(const TransformerOptions& options, Rng& rng);
  /// x (B, L, C), memory (B, S, C) -> (B, L, C)
  Tensor forward(const Tensor& x, const Lengths& lengths, const Tensor& memory,
                 const Lengths& memory_lengths, const Context& context);

 private:
  MultiHead self_, cross_;
  FeedForward ff_;
  LayerNorm norm1_, norm2_, norm3_;
  Dropout dropout_;
  bool pre_norm_;
};

/// Like Encoder, with a memory: x (B, L, C), memory (B, S, C) -> (B, L, C).
class Decoder : public Module {
 public:
  Decoder(const TransformerOptions& options, Rng& rng);
  std::pair<Tensor, Lengths> forward(const Tensor& x, const Lengths& lengths, const Tensor& memory,
                                     const Lengths& memory_lengths, const Context& context);

 private:
  TransformerOptions options_;
  PositionalEncoding positions_;
  Dropout dropout_;
  std::deque<DecoderLayer> layers_;
  LayerNorm norm_;
};

}  // namespace centroid::nn
