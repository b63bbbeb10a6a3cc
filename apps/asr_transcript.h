#pragma once
// From recordings of any length to transcripts with times.
#include <functional>
#include <string>
#include <vector>

#include "apps/asr_decode.h"
#include "apps/asr_model.h"
#include "apps/audio/forced_align.h"
#include "apps/audio/sound_stream.h"
#include "apps/audio/timed_words.h"

namespace centroid::asr {

/// What was heard in consecutive frames of scores; frames count from the first of them.
struct Heard {
  std::vector<audio::AlignedLabel> tokens;     ///< in order, without blanks
  bool has_words = false;                      ///< whether the decoder tells words
  std::vector<audio::Hypothesis::Word> words;  ///< of the tokens
  std::vector<std::string> others;             ///< texts of the next best
  bool complete = true;                        ///< false: the last word is unfinished
};

/// Scores (frames, V) -> what was said, `context` being what stands around them. The one place
/// where decoding happens.
using FrameDecoder =
    std::function<Heard(const float* logits, int64_t frames, const audio::BeamContext& context)>;

/// The best class of each frame (audio::greedy_ctc); a token's log-probability is the mean over its
/// frames.
FrameDecoder greedy_decoder(const audio::Vocab& vocab);

/// What `decoder`, which must outlive the result, finds. A token's log-probability is that of its
/// confidence.
FrameDecoder frame_decoder(const Decoder& decoder, bool is_ctc, const audio::Vocab& vocab);

/// How a recording is cut.
///
/// Windows of `window` seconds begin every `window - overlap` seconds, rounded to whole frames of
/// scores, which therefore have one grid for the whole recording; the last window is moved back to
/// end with the recording, so that it is not shorter than the others. The encoder sees one window
/// at a time. Of two windows that overlap, the frames of scores before a seam come from the first
/// and those from it on from the second. The seam lies in the middle half of the overlap: in the
/// middle of the longest run of frames that both windows take for blank; or, without any, at the
/// frame to which they give the largest product of blank probabilities (of equals, the one nearest
/// to the middle of the overlap). The scores so joined are decoded in stretches of 20 seconds and
/// more, of which the last second is left to the next one, from the beginning of a symbol, or of a
/// word where the decoder knows words: a language model goes on from what was said before, and no
/// symbol or word is cut, unless it is longer than two minutes.
struct WindowOptions {
  double window = 10;  ///< seconds; 0: the whole recording in one pass
  double overlap = 2;  ///< seconds, at most half of the window
  /// What "utterance" normalisation takes mean and deviation of: each window, as in training, or
  /// the whole recording, which is then read twice. Of no effect on other normalisations and in one
  /// pass.
  bool recording_statistics = true;
  bool whole = false;  ///< decode all scores at once: what lists of the next best texts need
};
/// Throws unless the options can be used.
void validate(const WindowOptions& options);

/// What was said in a recording, seconds from its beginning.
struct Transcript {
  std::string text;
  std::vector<audio::TimedWord> symbols;  ///< of the vocabulary, `<space>` among them
  std::vector<audio::TimedWord> words;    ///< of characters: between spaces; else the symbols
  double seconds = 0;                     ///< of sound
  int64_t windows = 0;                    ///< passes of the encoder
  std::vector<std::string> others;        ///< the next best texts
  /// From here on, in seconds, there are symbols of which the lexicon's words cannot be made; they
  /// are missing in text and words. Infinite: none.
  double unfinished = std::numeric_limits<double>::infinity();
};

/// Transcribes a sound file, reading it in blocks: memory does not depend on its length, except for
/// one pass, where it is proportional to it. `raw_rate` as for audio::SoundStream. Times are placed
/// like those of forced alignment. Throws when a recording of more than two minutes is to be
/// decoded at once.
Transcript transcribe(TrainedRecognizer& recognizer, const std::string& path, int raw_rate,
                      const WindowOptions& options, const FrameDecoder& decoder);

/// The first frame that is to come from the second of two windows, both given from the first common
/// frame on: rows of `classes` scores, `frames` common ones. See WindowOptions.
int64_t seam(const float* first, const float* second, int64_t frames, int64_t classes,
             int32_t blank = 0);

}  // namespace centroid::asr
