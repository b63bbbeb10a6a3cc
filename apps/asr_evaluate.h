#pragma once
// Running a recogniser over a data set and counting its errors.
#include <string>
#include <vector>

#include "apps/asr_data.h"
#include "apps/asr_loss.h"
#include "apps/asr_model.h"
#include "apps/audio/score.h"

namespace centroid::asr {

struct ScoredUtterance {
  std::string id;
  std::vector<audio::AlignedPair> alignment;
};

struct Evaluation {
  audio::ErrorRate errors;
  double loss = 0;                          ///< the criterion's, per label
  double seconds = 0;                       ///< of sound
  std::vector<ScoredUtterance> utterances;  ///< in the order of the manifest
};

/// What one symbol of an error rate is; `PER`, `CER` or `WER` names the rate.
std::string rate_name(audio::Unit unit);

/// Every utterance decoded as its criterion does, scored in `unit`: the vocabulary's own, or words
/// where it has characters. Throws for units that the vocabulary cannot give.
Evaluation evaluate(Recognizer& model, const Criterion& criterion, const Dataset& data,
                    const audio::Vocab& vocab, audio::Unit unit);

/// Symbols in `unit`, made of the vocabulary's symbols.
std::vector<std::string> score_symbols(const std::vector<std::string>& symbols,
                                       const audio::Vocab& vocab, audio::Unit unit);

}  // namespace centroid::asr
