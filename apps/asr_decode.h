#pragma once
// Decoding as the commands of `asr` share it: options, what they load, and transcripts.
#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/asr_loss.h"
#include "apps/audio/beam.h"
#include "apps/audio/forced_align.h"
#include "apps/audio/timed_words.h"
#include "apps/audio/vocab.h"

namespace centroid::asr {

/// The options of the help group "Decoding".
struct DecodeOptions {
  DecodeOptions() { search.beam = 0; }

  audio::BeamOptions search;  ///< beam 0: 1, or kDefaultBeam with an LM or a lexicon
  std::string lm, lm_unit = "auto", lexicon;
  bool lm_words = false;      ///< the LM's words, spelled, are the lexicon
  bool lexicon_skip = false;  ///< leave out pronunciations with unknown symbols
  std::string file;           ///< `--decoder`
  CLI::App* command = nullptr;
  std::vector<std::string> names;  ///< of the options that a decoder file may set
};
inline constexpr int64_t kDefaultBeam = 16;

/// Adds `--beam --lm --lm-weight --word-score --lexicon --nbest ...` in the help group "Decoding".
/// `options` must outlive `command` and holds the defaults when this is called.
void add_decode_options(CLI::App& command, DecodeOptions& options);

/// Sets from `--decoder FILE` what the command line does not. Call it after parsing. Throws, naming
/// the file, for unknown keys and wrong values.
void read_decoder_file(DecodeOptions& options);

/// How much of a text an LM and a lexicon know.
struct Coverage {
  int64_t words = 0;  ///< words, or tokens with an LM of tokens
  int64_t lm_unknown = 0, lexicon_unknown = 0;
  std::map<std::string, int64_t> missing;  ///< words that the lexicon lacks, and how often
};

/// A decoder with its LM and lexicon. Greedy (best path, beam 1) unless the options say otherwise.
class Decoder {
 public:
  /// Reads the LM and the lexicon. Throws for what does not fit together or not the vocabulary.
  /// `criterion`, which must outlive the decoder, gives the best path where it is not CTC; there is
  /// no beam search then.
  Decoder(DecodeOptions options, const audio::Vocab& vocab, const Criterion* criterion = nullptr);

  /// Scores (T, V) -> the n-best transcripts, best first, with times; the best with confidences.
  /// Of a beam search `context` is taken into account.
  std::vector<audio::Hypothesis> decode(const float* logits, int64_t frames,
                                        const audio::BeamContext& context = {}) const;
  /// All hypotheses of the beam for log probabilities (T, V), without times and confidences.
  std::vector<audio::Hypothesis> search(const std::vector<double>& log_probs) const;
  void set_weights(double lm_weight, double word_score);

  bool greedy() const { return greedy_; }
  bool has_lexicon() const { return trie_ != nullptr; }
  /// Whether transcripts have words (audio::Hypothesis::words).
  bool has_words() const { return beam_->has_words(); }
  const audio::NgramModel* lm() const { return lm_.get(); }
  const DecodeOptions& options() const { return options_; }

  /// The text of a transcript.
  std::string text(const audio::Hypothesis& hypothesis) const;
  /// Its symbols to be scored. Throws for units that the decoder cannot give.
  std::vector<std::string> symbols(const audio::Hypothesis& hypothesis, audio::Unit unit) const;
  /// Those of an utterance's transcript.
  std::vector<std::string> reference(const audio::Utterance& utterance, audio::Unit unit) const;
  /// What to score when the user does not say.
  audio::Unit default_unit() const;

  /// Tokens with times and confidences, and the words that are made of them.
  std::vector<audio::TimedWord> tokens(const audio::Hypothesis& hypothesis,
                                       const audio::SegmentOptions& placing) const;
  std::vector<audio::TimedWord> words(const audio::Hypothesis& hypothesis,
                                      const std::vector<audio::TimedWord>& tokens) const;
  nlohmann::ordered_json to_json(const audio::Hypothesis& hypothesis,
                                 const audio::SegmentOptions& placing) const;

  /// All settings under the names of their options, fit for `--decoder` and `--config`.
  nlohmann::ordered_json settings() const;
  /// `beam 16, lm x.arpa (words) ...`, for people.
  std::string describe() const;
  /// Adds an utterance's transcript to a coverage.
  void cover(const audio::Utterance& utterance, Coverage& coverage) const;

 private:
  void load_lm();
  void load_lexicon();
  audio::Lexicon spelled_words() const;
  std::vector<audio::Hypothesis> best_path(const float* logits, int64_t frames) const;

  DecodeOptions options_;
  audio::Vocab vocab_;
  const Criterion* other_ = nullptr;  // than CTC
  bool greedy_ = true;
  audio::LmUnit unit_ = audio::LmUnit::none;
  std::unique_ptr<audio::NgramModel> lm_;
  std::unique_ptr<audio::LexiconTrie> trie_;
  std::map<std::string, bool> lexicon_words_;
  std::unique_ptr<audio::BeamDecoder> beam_;
};

/// Coverage as JSON, and as sentences for people, empty where there is nothing to say.
nlohmann::ordered_json to_json(const Coverage& coverage, const Decoder& decoder);
std::string describe(const Coverage& coverage, const Decoder& decoder);

}  // namespace centroid::asr
