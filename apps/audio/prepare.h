#pragma once
// Readers that turn speech corpora, and anybody's own recordings, into utterances. A reader hands
// over one utterance at a time, so that a corpus need not fit into memory, and never drops anything
// silently: whatever it cannot use becomes a Problem.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/audio/files.h"
#include "apps/audio/id_set.h"
#include "apps/audio/manifest.h"
#include "tensor/error.h"

namespace centroid::audio {

/// What can be wrong with an utterance. Those before `clipped` cannot be used.
enum class ProblemKind {
  format,          ///< a line or file of the corpus that does not say what it should
  missing,         ///< the sound file is not there
  unreadable,      ///< no sound file, truncated, corrupt, empty or NaN
  segment,         ///< the segment is beyond the sound's end
  no_text,         ///< the transcript of the chosen unit is empty
  duplicate,       ///< the id was there before
  silent,          ///< no sample is loud
  unknown_word,    ///< a word is not in the lexicon
  unknown_symbol,  ///< a symbol is not in the vocabulary
  too_short,       ///< fewer positions after subsampling than CTC needs for the transcript
  not_listed,      ///< in none of the lists of ids, or in one but not in the corpus
  clipped,         ///< many samples are at full scale
  too_long,        ///< longer than usual
  rare_symbol,     ///< a symbol of the vocabulary that occurs a few times only
};
constexpr int kProblemKinds = static_cast<int>(ProblemKind::rare_symbol) + 1;

/// `format`, `no-text`, ... as in problems.tsv.
std::string name_of(ProblemKind kind);
/// True for what is worth a look but can be used.
constexpr bool is_warning(ProblemKind kind) { return kind >= ProblemKind::clipped; }

/// Something wrong: the utterance (or file, or line) it concerns and what it is.
struct Problem {
  std::string id, what;
  ProblemKind kind = ProblemKind::format;
};

/// Takes what a reader finds, in the order of the corpus (by id where the corpus has no order).
class Sink {
 public:
  virtual ~Sink() = default;
  /// `place` is the line the utterance stands in, `FILE:NUMBER`, where that helps to find it.
  virtual void accept(Utterance utterance, const std::string& place) = 0;
  virtual void reject(Problem problem) = 0;

  /// Accepts an utterance that `fill(utterance)` completes or, when that throws, rejects its id.
  template <typename F>
  void add(const std::string& id, const F& fill, const std::string& place = "") {
    Utterance u;
    u.id = id;
    try {
      fill(u);
    } catch (const Error& error) {
      return reject({u.id, error.what(), ProblemKind::format});
    }
    accept(std::move(u), place);
  }
};

/// Keeps all that a reader finds.
struct Prepared : Sink {
  std::vector<Utterance> utterances;
  std::vector<Problem> problems;

  void accept(Utterance u, const std::string&) override { utterances.push_back(std::move(u)); }
  void reject(Problem problem) override { problems.push_back(std::move(problem)); }
};

/// What `read(arguments..., sink)` finds.
template <typename Read, typename... Arguments>
Prepared collect(const Read& read, const Arguments&... arguments) {
  Prepared prepared;
  read(arguments..., prepared);
  return prepared;
}

/// Makes a problem of the line read last.
void reject_line(const LineReader& lines, const Error& error, Sink& sink);

/// The next line that is not blank, as `LineReader::next_entry`; lines that are no text become
/// problems.
bool next_entry(LineReader& lines, std::string& entry, Sink& sink);

/// The recordings that a corpus names, to find those that it does not.
class NamedSounds {
 public:
  /// A file; its extension does not matter.
  void add(const std::string& path);
  /// Makes a problem of every other sound file below `folder`: it has no line in `list`.
  void reject_others(const std::string& folder, const std::string& list, Sink& sink) const;

 private:
  IdSet named_;
};

/// The English words of the figures 0-9.
constexpr const char* kFigures[] = {"zero", "one", "two",   "three", "four",
                                    "five", "six", "seven", "eight", "nine"};

/// A Festvox voice: `etc/txt.done.data`, `wav/ID.wav`, `lab/ID.lab`. `root` may be any folder above
/// the voice. `+` (stress mark of festvox-ru) is taken out of the text. The phones are those of
/// lab/, without the pause `pau` unless `keep_pauses`; a voice without lab/ has none. Sounds in
/// wav/ without a line, and labels beyond the end of their sound, are problems.
void read_festvox(const std::string& root, bool keep_pauses, Sink& sink);

/// Asterisk prompts: `audio`/KEY.wav below a folder and a text file (also `.gz`) of lines `KEY:
/// sentence`. Bracketed remarks are taken out of the sentences and single figures spelled out
/// ("press 1" -> "press one"); entries that are remarks only ("[this is a beep]") are problems:
/// they hold no speech. So are sounds below `audio` without a line.
void read_asterisk(const std::string& audio, const std::string& text_file, Sink& sink);

/// The Free Spoken Digit Dataset: DIGIT_SPEAKER_TAKE.wav in a folder (or in its sub-folder
/// `recordings`); the text is the English word. Sound files with other names are problems.
void read_fsdd(const std::string& folder, Sink& sink);

/// How `make_connected_digits` makes its sequences.
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
Splits make_connected_digits(const std::string& folder, const std::string& out,
                             const DigitsOptions& options, std::vector<Problem>& problems);

/// JSON lines (also `.gz`): manifests as ManifestReader takes them and those of NeMo
/// (`audio_filepath`, `duration`, `offset`, `text`), WeNet (`key`, `wav`, `txt`) and lhotse: cuts
/// (MonoCut with one supervision, whose recording has one file or one URL-free source), and
/// supervisions, whose recordings are looked for in `recordings`, or when that is empty in the file
/// whose name has `recordings` in place of `supervisions`. Relative paths start at the folder of
/// `path`, for lhotse, where no such file is there, at the current one. Bad lines become problems.
void read_json_lines(const std::string& path, const std::string& recordings, Sink& sink);
/// The same from any lines, whose relative paths start at `folder`.
void parse_json_lines(LineReader lines, const std::string& folder, const std::string& recordings,
                      Sink& sink);

/// A Kaldi data folder: wav.scp, text, and if present segments and utt2spk; other files
/// (spk2gender, utt2dur, ...) are not looked at. Commands (pipes) in wav.scp are not run, and
/// offsets into archives (`FILE:123`) not read: they are problems. Relative paths are looked for
/// from the folder, then from the current one. A segment that ends at -1 lasts to the file's end.
/// Recordings without a segment or text, lines of utt2spk that do not fit, and, where there is such
/// a file, utterances without a line in it are problems.
/// Memory: the text files' size and 16 bytes a line.
void read_kaldi(const std::string& folder, Sink& sink);
/// The same from any lines; a folder need not have the last two.
struct KaldiFiles {
  LineReader wav_scp, text;
  std::optional<LineReader> segments, utt2spk;
};
void parse_kaldi(KaldiFiles files, const std::string& folder, Sink& sink);

/// A LibriSpeech tree: SPEAKER-CHAPTER.trans.txt files of lines `ID SENTENCE` beside ID.flac (or
/// another sound format). Sounds without a line are problems.
void read_librispeech(const std::string& root, Sink& sink);

/// A folder of sound files and a table of transcripts. Columns are separated by tabs (no quoting),
/// commas (CSV, quoted fields) or `|` (as in LJSpeech). The first line may name the columns
/// (path/file/audio/..., sentence/text/transcript/..., speaker/client_id); otherwise they are path
/// and text. Paths are looked for in `folder` and `folder`/clips, also with the usual extensions
/// added. Rows of another width than the first one, quoted fields over several lines (which may be
/// a stray quote that took rows in) and sounds below `folder` without a row are problems.
void read_table(const std::string& folder, const std::string& table, Sink& sink);

/// One table of Common Voice (train.tsv, validated.tsv, ...): a header with the columns `path` and
/// `sentence`, and `client_id` as the speaker; the sounds are in `folder`/clips. A field that is
/// wrapped in quotes, with the quotes inside doubled, is unwrapped; other quotes are text.
void read_common_voice(const std::string& folder, const std::string& table, Sink& sink);
/// The same from any lines.
void parse_common_voice(const std::string& folder, LineReader lines, Sink& sink);

}  // namespace centroid::audio
