#pragma once
// Lattice-free maximum mutual information: a sequence-discriminative loss that needs neither
// alignments nor lattices (docs/lf-mmi.md).
#include <memory>

#include "nn/lfmmi_graph.h"
#include "nn/loss.h"

namespace centroid::nn {

/// The best path of a denominator, and how probable it is among all paths, which do not leak here.
struct Recognised {
  std::vector<LabelSpan> labels;
  /// Of each label: the posterior of its classes, as a mean over its frames.
  std::vector<double> confidence;
  /// Natural logarithm of the path's share in the sum over all paths. Where none reaches the end in
  /// so few frames, it is -inf, and the confidences are 0.
  double log_prob = 0;
};

/// What LF-MMI knows of the language and of how labels are spelt: the denominator, and how to make
/// numerators.
class LfmmiGraph {
 public:
  LfmmiGraph(Ngram ngram, Topology topology, double silence = 0.1);

  /// Classes that the model has to put out.
  int64_t outputs() const { return model_outputs(topology_, ngram_.symbols()); }
  const Ngram& ngram() const { return ngram_; }
  Topology topology() const { return topology_; }
  const FrameGraph& denominator() const { return denominator_; }
  /// The denominator as kernels read it. That of the host is made with the graph, and may be asked
  /// for by several threads at once; that of another device is kept for the next call.
  const FsaBatch& packed_denominator(Device device) const;

  /// All ways to spell a transcript. Throws as `label_acceptor` does.
  FrameGraph numerator(const Transcript& transcript) const;
  /// Frames that a sequence of labels needs at least; -1 when the n-gram gives it no probability.
  int64_t min_frames(const std::vector<int32_t>& labels) const;

  /// The labels of the denominator's best path (`best_path`): logits (frames, outputs()).
  std::vector<LabelSpan> decode(const float* logits, int64_t frames, double scale = 1) const;
  /// The same with their probabilities.
  Recognised recognise(const float* logits, int64_t frames) const;

  /// {"topology", "silence", "ngram"}: reading makes the same graph, and throws for anything else.
  friend void to_json(nlohmann::json& json, const LfmmiGraph& graph);
  static std::unique_ptr<LfmmiGraph> from(const nlohmann::json& json);

 private:
  Ngram ngram_;
  Topology topology_;
  double silence_;
  FrameGraph denominator_;
  FsaBatch host_;
  mutable FsaBatch packed_;  // on the other device that asked last
};

struct LfmmiOptions {
  double leaky = 1e-5;    ///< weight of a jump between any two frames of the denominator; 0: none
  double l2 = 0;          ///< adds l2 / 2 times the sum of squared logits
  double ctc_weight = 0;  ///< adds this times the loss of the transcript alone, without denominator
  Reduction reduction = Reduction::mean;  ///< as CtcOptions::reduction
  /// A transcript that does not fit its frames, or that the n-gram gives no probability, is an
  /// Error that names the item; with this, it counts as a loss of 0 with no gradient.
  bool zero_infeasible = false;
};
/// logits (B, T, outputs), used as they are -> (): - log of the share of the transcript's paths in
/// all paths of the graph, e^(logits) being the weight of a class in a frame (Povey et al., "Purely
/// sequence-trained neural networks for ASR based on lattice-free MMI", Interspeech 2016; without
/// alignments: Hadian et al., "End-to-end speech recognition using lattice-free MMI", Interspeech
/// 2018). The mean divides each loss by the labels of the first alternatives, at least 1, then by
/// the batch, as ctc does. The `ctc_weight` term is - log of the sum over the transcript's paths of
/// probabilities softmax(logits): CTC, where the topology is CTC's and the n-gram has order 0.
Tensor lfmmi(const Tensor& logits, const Lengths& lengths,
             const std::vector<Transcript>& transcripts, const LfmmiGraph& graph,
             const LfmmiOptions& options = {});
Tensor lfmmi(const Tensor& logits, const Lengths& lengths,
             const std::vector<std::vector<int32_t>>& labels, const LfmmiGraph& graph,
             const LfmmiOptions& options = {});

}  // namespace centroid::nn
