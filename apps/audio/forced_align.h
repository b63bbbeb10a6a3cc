#pragma once
// Forced alignment: when each symbol of a known transcript was spoken, by the best path of CTC.
#include <cstdint>
#include <limits>
#include <vector>

#include "apps/audio/timed_words.h"

namespace centroid::audio {

/// The transcripts an alignment may choose from: an acyclic graph whose paths are label sequences.
struct LabelGraph {
  struct Node {
    int32_t label = 0;
    std::vector<int32_t>
        previous;  ///< nodes that may precede it, each below its own; -1: the start
  };
  std::vector<Node> nodes;
  std::vector<int32_t> finals;  ///< nodes a path may end in; -1: the empty path

  /// Adds `labels` as a chain behind any of `from`, and returns its last node. Throws when empty.
  int32_t add_chain(const std::vector<int32_t>& labels, const std::vector<int32_t>& from);
};

/// The graph of one label sequence.
LabelGraph linear_graph(const std::vector<int32_t>& labels);

/// A symbol and the frames that the best path gives it, blanks left out.
struct AlignedLabel {
  int32_t label = 0;
  int32_t node = 0;            ///< of the graph
  int64_t begin = 0, end = 0;  ///< first frame, one past the last
  double log_prob = 0;         ///< mean over its frames
  double confidence() const;   ///< exp(log_prob): the geometric mean of its probabilities
};

struct Alignment {
  std::vector<AlignedLabel> labels;  ///< in order
  double log_prob = 0;               ///< of the whole path, blanks included
};

/// The most probable path of CTC (Viterbi; the states of docs/ctc.md) through any label sequence of
/// `graph`. `logits` is (T, V) row-major; the softmax is taken here, in double precision. Of
/// equally probable paths the one is taken that, from the end, stays where it is, else comes from a
/// blank, else from the first listed predecessor. Memory: 1 bit per frame and blank state, and 2
/// (3, 4, ...) bits per frame and node with 1 (2 to 3, 4 to 7, ...) predecessors. Throws for NaN,
/// labels outside the classes, malformed graphs, too few frames (both lengths are named), and when
/// every path has probability 0.
Alignment forced_align(const float* logits, int64_t frames, int64_t classes,
                       const LabelGraph& graph, int32_t blank = 0);

/// How frames become times.
struct SegmentOptions {
  double frame_seconds = 0.01;  ///< from one frame of scores to the next
  double first_centre = 0;      ///< time of the middle of frame 0, seconds
  double shift = 0;             ///< added to all times: a model's constant lateness, negated
  double reach = 0.08;          ///< seconds that a segment may extend beyond its frames
  double end = std::numeric_limits<double>::infinity();  ///< times are clamped to 0..end
};

/// Frames -> seconds. CTC emits a symbol in a few frames somewhere within its sound and blanks
/// elsewhere, so that the frames between two symbols are to be divided. Frame t covers half a step
/// on either side of its middle. A gap between two symbols is divided in the middle, but no segment
/// passes its own frames by more than `reach`: what is left between them is a pause. The first and
/// last segments reach outward likewise. Texts are left empty.
std::vector<TimedWord> place_segments(const std::vector<AlignedLabel>& labels,
                                      const SegmentOptions& options);

/// log sum exp over a row of `classes` scores. Throws, naming `frame`, for NaN, +inf and rows
/// without a finite score.
double log_normaliser(const float* row, int64_t classes, int64_t frame);

}  // namespace centroid::audio
