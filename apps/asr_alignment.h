#pragma once
// Forced alignment of a data set with a recogniser.
#include <functional>
#include <string>
#include <vector>

#include "apps/asr_data.h"
#include "apps/asr_model.h"
#include "apps/audio/forced_align.h"
#include "apps/audio/lexicon.h"

namespace centroid::asr {

/// The middle of the recogniser's first frame of scores, seconds from the beginning of the sound.
double first_frame_centre(const TrainedRecognizer& recognizer);

/// The recogniser's frames for audio::place_segments, for a recording of `seconds`.
audio::SegmentOptions segment_options(const TrainedRecognizer& recognizer, double seconds);

/// An utterance with its symbols and words in time, seconds from the beginning of the utterance.
struct AlignedUtterance {
  std::string id;
  double seconds = 0;
  double log_prob = 0;                    ///< of the best path, per frame
  std::vector<audio::TimedWord> symbols;  ///< without `<space>`
  std::vector<audio::TimedWord> words;    ///< empty for phones without a lexicon
  std::string error;                      ///< why it could not be aligned; empty: it was
};

/// Aligns every utterance with its transcript: the symbols of the vocabulary's unit, or, with a
/// lexicon (phones only), the words of the text, of whose pronunciations the most probable one is
/// taken. Utterances are returned in the order of the manifest. `placing` gives shift and reach.
/// Throws for a lexicon with other units than phones.
std::vector<AlignedUtterance> align_dataset(TrainedRecognizer& recognizer, const Dataset& data,
                                            const audio::Lexicon& lexicon,
                                            const audio::SegmentOptions& placing);

}  // namespace centroid::asr
