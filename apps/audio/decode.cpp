#include "apps/audio/decode.h"

#include <cmath>

#include "tensor/error.h"

namespace centroid::audio {

std::vector<Token> greedy_ctc(const float* logits, int64_t frames, int64_t classes, int32_t blank) {
  CENTROID_CHECK(classes > 0 && blank >= 0 && blank < classes,
                 "greedy_ctc: expected a blank in 0..", classes - 1, ", got ", blank);
  std::vector<Token> tokens;
  int32_t previous = blank;
  for (int64_t t = 0; t < frames; ++t) {
    const float* row = logits + t * classes;
    int32_t best = 0;
    for (int64_t v = 0; v < classes; ++v) {
      CENTROID_CHECK(!std::isnan(row[v]), "greedy_ctc: the score of class ", v, " at frame ", t,
                     " is NaN");
      if (row[v] > row[best]) best = static_cast<int32_t>(v);
    }
    if (best != blank && best == previous) {
      tokens.back().end = t + 1;
    } else if (best != blank) {
      tokens.push_back({best, t, t + 1});
    }
    previous = best;
  }
  return tokens;
}

std::vector<int32_t> ids_of(const std::vector<Token>& tokens) {
  std::vector<int32_t> ids;
  for (const Token& token : tokens) ids.push_back(token.id);
  return ids;
}

}  // namespace centroid::audio
