#pragma once
// Transcripts by utterance id, as recognisers and scoring tools exchange them.
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "apps/audio/vocab.h"

namespace centroid::audio {

/// How a file holds transcripts, one a line.
enum class TranscriptFormat {
  trn,       ///< `words (id)`; NIST's; lines that begin with `;;` are comments
  kaldi,     ///< `id words`; Kaldi's `text`
  tsv,       ///< `id<TAB>text`; or a first line that names the columns `id` and `text`
  manifest,  ///< a JSON object a line with `id` (or the path of a sound), `text`, `phones`
};

/// Names as on the command line. `transcript_format_from` throws listing the valid names.
std::string name_of(TranscriptFormat format);
TranscriptFormat transcript_format_from(const std::string& name);

/// What was said, or recognised, in one utterance.
struct Transcript {
  std::string id;
  std::string text;                 ///< symbols with white space between them; may be empty
  std::vector<std::string> phones;  ///< of a manifest; may be empty
  std::string speaker;              ///< may be empty

  friend bool operator==(const Transcript&, const Transcript&) = default;
};

/// The transcripts of one file, in its order.
struct Transcripts {
  std::string name;  ///< of the file
  TranscriptFormat format = TranscriptFormat::trn;
  std::vector<Transcript> items;

  /// The transcript of an id; null where there is none. O(log n).
  const Transcript* find(const std::string& id) const;

 private:
  friend Transcripts parse_transcripts(std::string_view, const std::string&,
                                       std::optional<TranscriptFormat>);
  std::map<std::string, size_t> index_;
};

/// Reads transcripts; without `format` it is found by the content: JSON objects; lines that all end
/// in `(id)`; lines that all hold a tab; else Kaldi's. Throws naming `name` and line: no line at
/// all, a line that does not fit, an empty id, an id that occurs twice, and a file that is neither
/// clearly trn nor clearly something else.
Transcripts parse_transcripts(std::string_view bytes, const std::string& name,
                              std::optional<TranscriptFormat> format = {});
/// The same for a file, plain or `.gz`.
Transcripts read_transcripts(const std::string& path, std::optional<TranscriptFormat> format = {});

/// Transcripts as the text of a file of that format; parse_transcripts gives them back. Throws for
/// what the format cannot hold: an id with white space (trn: also with parentheses), a text with
/// tabs or line ends, or a manifest (asr prepare writes those).
std::string format_transcripts(const std::vector<Transcript>& items, TranscriptFormat format);

/// What is done to transcripts before they are compared.
struct NormalizeOptions {
  bool lowercase = false;          ///< lower case of Latin, Greek, Cyrillic and Armenian letters
  bool strip_punctuation = false;  ///< as strip_punctuation of text.h
  bool spaces = true;              ///< characters: the space between words is a symbol, too
  std::set<std::string> ignore;    ///< words or phones that do not count, on either side
  /// Words or phones and what they count as; nothing: they are left out. Done after the case and
  /// the punctuation, before `ignore`.
  std::map<std::string, std::vector<std::string>> map;
};

/// `from to ...` a line: what `from` counts as, maybe nothing (TIMIT's 61 phones to 39, spelling
/// variants). Throws naming file and line, also for a word that has two lines.
std::map<std::string, std::vector<std::string>> parse_symbol_map(std::string_view bytes,
                                                                 const std::string& name);

/// The symbols of a transcript that an error rate counts. Words and phones are separated by white
/// space; characters are Unicode code points, with `<space>` between words. Phones are those of the
/// manifest, or else the symbols of the text. Throws, naming the id, for words and characters of an
/// utterance that has phones alone.
std::vector<std::string> scored_symbols(const Transcript& transcript, Unit unit,
                                        const NormalizeOptions& options);

/// Speakers of utterances: `id speaker` a line, Kaldi's utt2spk. Throws naming file and line.
std::map<std::string, std::string> parse_utt2spk(std::string_view bytes, const std::string& name);

/// The speaker whom an id names: what stands before its first `-`, or `_` where there is no `-`;
/// the whole id when it has neither.
std::string speaker_of(const std::string& id);

}  // namespace centroid::audio
