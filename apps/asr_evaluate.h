#pragma once
// Running a recogniser over a data set and counting its errors.
#include <functional>
#include <string>
#include <vector>

#include "apps/asr_data.h"
#include "apps/asr_decode.h"
#include "apps/asr_loss.h"
#include "apps/asr_model.h"
#include "apps/audio/score.h"

namespace centroid::asr {

struct ScoredUtterance {
  std::string id;
  std::vector<audio::AlignedPair> alignment;
  std::vector<audio::Hypothesis> nbest;  ///< best first; empty without a decoder
};

struct Evaluation {
  audio::ErrorRate errors;
  double loss = 0;                          ///< the criterion's, per label
  double seconds = 0;                       ///< of sound
  std::vector<ScoredUtterance> utterances;  ///< in the order of the manifest
};

/// `PER`, `CER`, `WER` or, of sub-words, `TER` (token error rate).
std::string rate_name(audio::Unit unit);

/// Runs the model over all utterances, longest first, and calls `use` for each batch with the
/// utterances' places in the manifest, the batch and its scores (B, T', V) and their lengths.
using UseScores =
    std::function<void(const nn::Batch&, const SpeechBatch&, const Tensor&, const Lengths&)>;
void run_model(Recognizer& model, const Dataset& data, const UseScores& use);

/// Every utterance decoded as its criterion does, or as `decoder` does, scored in `unit`. Throws
/// for units that cannot be had.
Evaluation evaluate(Recognizer& model, const Criterion& criterion, const Dataset& data,
                    const audio::Vocab& vocab, audio::Unit unit, const Decoder* decoder = nullptr);

/// Symbols in `unit`, made of the vocabulary's symbols.
std::vector<std::string> score_symbols(const std::vector<std::string>& symbols,
                                       const audio::Vocab& vocab, audio::Unit unit);

}  // namespace centroid::asr
