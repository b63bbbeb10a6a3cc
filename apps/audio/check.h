#pragma once
// Looking at one utterance: is its sound there, whole and loud, and is there something said in it?
#include <string>
#include <vector>

#include "apps/audio/lexicon.h"
#include "apps/audio/prepare.h"
#include "apps/audio/vocab.h"

namespace centroid::audio {

/// What happens to the letters of a transcript.
enum class LetterCase { keep, lower, upper };

/// How far the sounds are looked at.
enum class SoundCheck {
  full,     ///< every sample is decoded
  headers,  ///< files are opened for their length
  none,     ///< nothing is opened: durations have to be given
};

/// How `check_utterance` changes and checks utterances.
struct CheckOptions {
  Unit unit = Unit::phones;  ///< the transcript of this unit must not be empty
  LetterCase letters = LetterCase::keep;
  bool strip_punctuation = false;  ///< keep letters, figures and apostrophes
  SoundCheck sound = SoundCheck::full;
  double silence_db = -60;           ///< dB of full scale; a sound with no sample above is silent
  double max_clipped = 0.01;         ///< part of the samples that may be at full scale
  double longest = 60;               ///< seconds that are not worth a warning
  const Lexicon* lexicon = nullptr;  ///< phones are made of the words; null: the corpus has them
};

/// The value of a sample at full scale: 16-bit files cannot hold more.
constexpr float kFullScale = 32767.0f / 32768.0f;

/// Normalises the text, makes phones of a lexicon's pronunciations (the most probable of each
/// word), fills in the duration and adds what is wrong to `problems`. False when the utterance
/// cannot be used. Thread-safe.
bool check_utterance(Utterance& utterance, const CheckOptions& options,
                     std::vector<Problem>& problems);

/// The number of positions that `seconds` of sound have after subsampling: frames of 25 ms every 10
/// ms (Fbank's defaults), of which `subsampling` become one.
int64_t positions(double seconds, int64_t subsampling);

/// The number of positions that CTC needs for `labels` (U): one each, and a blank between equal
/// neighbours.
int64_t ctc_positions(const std::vector<int32_t>& labels);

}  // namespace centroid::audio
