#pragma once
// Running a recogniser over a data set and counting its errors.
#include <string>
#include <vector>

#include "apps/asr_data.h"
#include "apps/asr_model.h"
#include "apps/audio/score.h"

namespace centroid::asr {

struct ScoredUtterance {
  std::string id;
  std::vector<audio::AlignedPair> alignment;
};

struct Evaluation {
  audio::ErrorRate errors;
  double loss = 0;                          ///< CTC, per label
  double seconds = 0;                       ///< of sound
  std::vector<ScoredUtterance> utterances;  ///< in the order of the manifest
};

/// `PER`, `CER`, `WER` or, of sub-words, `TER` (token error rate).
std::string rate_name(audio::Unit unit);

/// What the errors of a recogniser are counted in unless told: its symbols, or words where these
/// are sub-words, which depend on how the words were cut.
audio::Unit score_unit(const audio::Vocab& vocab);

/// Greedy decoding of every utterance, scored in `unit`: the vocabulary's own, or, unless it has
/// phones, characters or words. Throws for units that the vocabulary cannot give.
Evaluation evaluate(Recognizer& model, const Dataset& data, const audio::Vocab& vocab,
                    audio::Unit unit);

/// Symbols in `unit`, made of the vocabulary's symbols.
std::vector<std::string> score_symbols(const std::vector<std::string>& symbols,
                                       const audio::Vocab& vocab, audio::Unit unit);

}  // namespace centroid::asr
