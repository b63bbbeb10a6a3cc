#pragma once
// What is known of the hypotheses of a beam search beside their scores: times and confidences; and
// the search for the best weights.
#include <vector>

#include "apps/audio/beam.h"

namespace centroid::audio {

/// The most probable CTC alignment of `ids` (none of them the blank, 0) to log probabilities
/// (T, classes): for each the frames that hold it. Throws when T frames cannot hold them.
std::vector<Token> align_ctc(const std::vector<double>& log_probs, int64_t classes,
                             const std::vector<int32_t>& ids);

/// Sets the frames of a hypothesis' tokens to those of their most probable alignment.
void add_times(Hypothesis& hypothesis, const std::vector<double>& log_probs, int64_t classes);

/// Probabilities of the hypotheses among themselves: softmax of their scores.
std::vector<double> posteriors(const std::vector<Hypothesis>& hypotheses);

/// Sets the confidences of the first hypothesis' tokens and words: the posterior probability of
/// those hypotheses that have the same symbol at the same place of an alignment with the fewest
/// edits (score.h). `hypotheses` should be all those of the beam; of one alone it is 1.
void add_confidence(std::vector<Hypothesis>& hypotheses);

/// What greedy decoding finds in scores (T, classes): the tokens with their frames, the score of
/// this path alone, and as confidences the mean probability (geometric) over a token's frames.
Hypothesis best_path(const float* logits, int64_t frames, int64_t classes);
/// Sets the confidence of each word to the mean of its tokens' (geometric).
void add_word_confidence(Hypothesis& hypothesis);

/// The hypothesis that is best under other weights; the first among equals.
size_t best_of(const std::vector<Hypothesis>& hypotheses, double lm_weight, double word_score);

/// Adds those of `more` whose tokens and words are not there yet.
void merge_nbest(std::vector<Hypothesis>& hypotheses, std::vector<Hypothesis> more);

}  // namespace centroid::audio
