#pragma once
// From the scores of a CTC model to symbols.
#include <cstdint>
#include <vector>

namespace centroid::audio {

/// A symbol of a transcript and where it was seen.
struct Token {
  int32_t id = 0;
  int64_t begin = 0;  ///< first frame whose best class is this symbol
  int64_t end = 0;    ///< one past the last such frame
};

/// Best path of CTC (Graves et al., "Connectionist temporal classification", ICML 2006): the best
/// class of each frame, repeats merged, blanks dropped. `logits` is (T, V) row-major, `classes` V,
/// `blank` the blank's number; the smallest number wins ties. Throws when a score is NaN.
std::vector<Token> greedy_ctc(const float* logits, int64_t frames, int64_t classes,
                              int32_t blank = 0);

/// The numbers of the tokens.
std::vector<int32_t> ids_of(const std::vector<Token>& tokens);

}  // namespace centroid::audio
