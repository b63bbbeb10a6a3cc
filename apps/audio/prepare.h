#pragma once
// Readers that turn speech corpora, and anybody's own recordings, into utterances. A reader never
// drops anything silently: whatever it cannot use becomes a Problem.
#include <cstdint>
#include <string>
#include <vector>

#include "apps/audio/manifest.h"
#include "apps/audio/vocab.h"
#include "tensor/error.h"

namespace centroid::audio {

/// Something that cannot be used: the utterance (or file, or line) and what is wrong with it.
struct Problem {
  std::string id, what;
};

/// Runs `use`; when it throws, that becomes a problem of `id` (as it is then) and the result false.
template <typename F>
bool attempt(std::vector<Problem>& problems, const std::string& id, const F& use) {
  try {
    use();
    return true;
  } catch (const Error& error) {
    problems.push_back({id, error.what()});
    return false;
  }
}

/// What a reader found, in the order of the corpus (by id where the corpus has no order).
struct Prepared {
  std::vector<Utterance> utterances;
  std::vector<Problem> problems;

  /// Adds an utterance that `fill(utterance)` completes or, when that throws, a problem of its id.
  template <typename F>
  void add(const std::string& id, const F& fill) {
    Utterance u;
    u.id = id;
    if (attempt(problems, u.id, [&] { fill(u); })) utterances.push_back(std::move(u));
  }
};

/// The English words of the figures 0-9.
constexpr const char* kFigures[] = {"zero", "one", "two",   "three", "four",
                                    "five", "six", "seven", "eight", "nine"};

/// A Festvox voice: `etc/txt.done.data`, `wav/ID.wav`, `lab/ID.lab`. `root` may be any folder above
/// the voice. `+` (stress mark of festvox-ru) is taken out of the text. The phones are those of
/// lab/, without the pause `pau` unless `keep_pauses`; a voice without lab/ has none.
Prepared prepare_festvox(const std::string& root, bool keep_pauses = false);

/// Asterisk prompts: `audio`/KEY.wav below a folder and a text file (also `.gz`) of lines `KEY:
/// sentence`. Bracketed remarks are taken out of the sentences and single figures spelled out
/// ("press 1" -> "press one"); entries that are remarks only ("[this is a beep]") are problems:
/// they hold no speech.
Prepared prepare_asterisk(const std::string& audio, const std::string& text_file);

/// The Free Spoken Digit Dataset: DIGIT_SPEAKER_TAKE.wav in a folder (or in its sub-folder
/// `recordings`); the text is the English word.
Prepared prepare_fsdd(const std::string& folder);

/// How `prepare_connected_digits` makes its sequences.
struct DigitsOptions {
  /// A length is drawn between these; the sequence ends with the digit that reaches it.
  double min_seconds = 5, max_seconds = 10;
  int train = 600, dev = 60, test = 60;  ///< numbers of sequences
  double max_gap = 0.2;                  ///< silence of 0..max_gap seconds between two digits
  std::string leave_out;                 ///< speaker kept for the test set; empty: see below
  bool skip_bad = false;                 ///< go on without takes that cannot be used
  uint64_t seed = 1;
};

/// Train, development and test sets.
struct Splits {
  std::vector<Utterance> train, dev, test;
};

/// Sequences of digits concatenated from takes of one speaker, written to `out`/wav/ID.wav at the
/// takes' rate. Takes 0-4 of each speaker make the test set, 5-9 the development set, the others
/// the training set, so that no recording is in two sets; with `leave_out` that speaker's takes are
/// the test set, and takes 0-9 of the others the development set. A set goes through shuffled
/// rounds of its takes. Unusable takes are added to `problems`; then, unless `skip_bad`,
/// nothing is written and the sets are empty. Throws when a set has no takes.
Splits prepare_connected_digits(const std::string& folder, const std::string& out,
                                const DigitsOptions& options, std::vector<Problem>& problems);

/// A manifest as read_manifest takes it; bad lines become problems.
Prepared prepare_jsonl(const std::string& path);

/// A Kaldi data folder: wav.scp, text, and if present segments and utt2spk. Pipes in wav.scp are
/// not run: they are problems. Relative paths are looked for from the folder, then from the
/// current one.
Prepared prepare_kaldi(const std::string& folder);

/// A LibriSpeech tree: SPEAKER-CHAPTER.trans.txt files of lines `ID SENTENCE` beside ID.flac (or
/// another sound format).
Prepared prepare_librispeech(const std::string& root);

/// A folder of sound files and a table of transcripts. Columns are separated by tabs (no quoting,
/// as in Common Voice), commas (CSV, quoted fields) or `|` (as in LJSpeech). The first line may
/// name the columns (path/file/audio/..., sentence/text/transcript/..., speaker/client_id);
/// otherwise they are path and text. Paths are looked for in `folder` and `folder`/clips, also with
/// the usual extensions added.
Prepared prepare_table(const std::string& folder, const std::string& table);

/// How `check_utterances` changes and checks them.
struct CheckOptions {
  Unit unit = Unit::phones;        ///< the transcript of this unit must not be empty
  bool lowercase = false;          ///< lower-case the text
  bool strip_punctuation = false;  ///< keep letters, figures and apostrophes
  bool decode = true;              ///< read all samples; false: headers only
};

/// Normalises the text, fills in durations and moves utterances that cannot be used to the
/// problems: sound missing, truncated, corrupt, empty or NaN, segment beyond the end, empty
/// transcript, repeated id.
void check_utterances(Prepared& prepared, const CheckOptions& options);

/// Splits by position in the sorted list of all ids, problems included, so that one bad file does
/// not shift the others: of each ten the last is for test, the fifth for development.
Splits split_every_10th(const Prepared& prepared);

/// Splits by a hash of the id: an utterance stays in its set when others come and go. `dev` and
/// `test` are fractions; throws unless they are >= 0 and sum to less than 1.
Splits split_by_hash(const Prepared& prepared, double dev, double test);

/// Splits by speaker: `test` and `dev` name speakers, all others train. Throws for a speaker that
/// does not occur.
Splits split_by_speaker(const Prepared& prepared, const std::vector<std::string>& dev,
                        const std::vector<std::string>& test);

/// Splits by lists of ids, one a line. An empty `train` path: all ids in no other list train. With
/// a train list, utterances in no list, and in any case listed ids that do not occur, are added to
/// `problems`. Throws when an id is in two lists.
Splits split_by_lists(const Prepared& prepared, const std::string& train, const std::string& dev,
                      const std::string& test, std::vector<Problem>& problems);

}  // namespace centroid::audio
