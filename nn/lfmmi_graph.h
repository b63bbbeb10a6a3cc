#pragma once
// From label sequences to the acceptors of frames that LF-MMI sums over: n-grams or transcripts as
// acceptors of labels, topologies that spell labels in frames, and the best path through the
// result.
#include <string>
#include <vector>

#include "nn/ngram.h"
#include "tensor/fsa.h"

namespace centroid::nn {

/// How a label is spelt in frames. Class 0 belongs to no label: the blank of CTC, an optional
/// silence between the labels of the others.
enum class Topology {
  ctc,        ///< class k for label k, any number of frames; equal neighbours need a blank between
  one_state,  ///< class k for label k, any number of frames
  two_state,  ///< class 2 k - 1 in the first frame, 2 k in any number of further ones
};
/// Names as on the command line: ctc, one-state, two-state. Throws for others, listing them.
Topology topology_from(const std::string& name);
std::string name_of(Topology topology);

/// Classes that a model puts out for labels 1 .. symbols - 1.
int64_t model_outputs(Topology topology, int64_t symbols);

/// One way to say a stretch of a transcript.
struct Alternative {
  std::vector<int32_t> labels;  ///< at least one
  double log_prob = 0;          ///< natural logarithm
};
/// Stretches one after the other, each with its alternatives: words and their pronunciations.
using Transcript = std::vector<std::vector<Alternative>>;
/// The transcript that is this sequence and nothing else.
Transcript transcript(const std::vector<int32_t>& labels);

/// An acceptor of labels (FsaArc::label is a label): every sequence, weighted by the n-gram.
Fsa label_acceptor(const Ngram& ngram);
/// The ways to say `transcript`, weighted by the n-gram and their own probabilities, so that each
/// weighs what the acceptor above gives it. Throws for an alternative without labels and for labels
/// that the n-gram does not have.
Fsa label_acceptor(const Transcript& transcript, const Ngram& ngram);

/// An acceptor of frames.
struct FrameGraph {
  Fsa fsa;                      ///< arcs in ascending order of `to`
  std::vector<int32_t> begins;  ///< for each arc the label that begins there, or 0
};

/// The labels of an acceptor spelt in frames. `silence` in [0, 1) is the probability of class 0
/// before the first, between two and after the last label; the blank of CTC has no weight. What a
/// topology has no choice in (to stay in a label or to leave it) has no weight either: it would be
/// the same factor for all paths of one length.
FrameGraph frame_graph(const Fsa& labels, Topology topology, double silence);

/// Frames of the shortest path; -1 where there is none. Every longer sequence of frames has a path
/// too if the acceptor comes from `frame_graph`, but that an empty transcript without silence has
/// none.
int64_t min_frames(const Fsa& fsa);

/// Logarithms of the probabilities of being in each state, averaged over 100 frames of an endless
/// walk whose steps are drawn by their weights and which begins anew where it ends (Povey et al.,
/// "Purely sequence-trained neural networks for ASR based on lattice-free MMI", 2016): where a
/// leaky acceptor leaks to. None is below -20.
std::vector<double> mean_occupancy(const Fsa& fsa);

/// A label and where it was found.
struct LabelSpan {
  int32_t label = 0;
  int64_t begin = 0, end = 0;  ///< its first frame and one past its last
};
struct BestPath {
  std::vector<LabelSpan> labels;
  double weight = 0;  ///< sum of its weights and logits; -inf where every path is impossible
};
/// The path with the largest sum of weights and `scale` times logits (frames, classes), row-major;
/// of equal ones any fixed one. When the end cannot be reached in so many frames, the path may stop
/// anywhere. Throws when a logit is NaN.
BestPath best_path(const FrameGraph& graph, const float* logits, int64_t frames, int64_t classes,
                   double scale = 1);

}  // namespace centroid::nn
