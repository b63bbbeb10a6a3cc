#pragma once
// Prefix beam search for CTC with language models and lexicons.
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "apps/audio/arpa.h"
#include "apps/audio/decode.h"
#include "apps/audio/lexicon_trie.h"

namespace centroid::audio {

/// What a language model predicts.
enum class LmUnit { none, tokens, words };

struct BeamOptions {
  int64_t beam = 16;  ///< hypotheses kept from frame to frame
  int64_t nbest = 1;  ///< hypotheses given back at most
  /// A frame's symbols whose log probability is more than this below its best are not tried.
  double token_threshold = 10;
  /// Hypotheses whose score is more than this below the best are dropped.
  double score_threshold = 25;
  double lm_weight = 0.5;
  /// Added for each word; for each token with an LM of tokens and no lexicon, and where words are
  /// not known.
  double word_score = 0;
  /// Added to the LM's natural logarithm for a word or token that it does not know (to that of
  /// `<unk>` where it has one, which takes the word's place in the context); <= 0.
  double unk_score = -10;
  /// Whether hypotheses inside a word are ranked with the best unigram score of the words they may
  /// become (lexicon and word LM; Ortmanns et al., "Language-model look-ahead", ICASSP 1996).
  bool look_ahead = true;
  std::string silence;  ///< with a lexicon: a symbol that may stand between words; empty: none
};

/// One transcript among the best.
struct Hypothesis {
  struct Word {
    std::string text;
    int64_t first = 0, count = 0;  ///< its tokens
    double confidence = std::numeric_limits<double>::quiet_NaN();
  };
  std::vector<Token> tokens;             ///< with frames: see `add_times`; -1 before
  std::vector<double> token_confidence;  ///< see `add_confidence`; empty before
  std::vector<Word> words;               ///< empty where the decoder does not know of words

  /// log P(tokens | sound), summed over the alignments that stayed in the beam, and of the
  /// pronunciations where there is a lexicon.
  double acoustic = 0;
  double lm = 0;         ///< natural log probability with `</s>`, unweighted
  int64_t units = 0;     ///< words or tokens that the word score counts
  double score = 0;      ///< acoustic + lm_weight lm + word_score units
  bool complete = true;  ///< false: the sound ended inside a word of the lexicon

  double rescored(double lm_weight, double word_score) const {
    return acoustic + lm_weight * lm + word_score * static_cast<double>(units);
  }
};

/// What is known of the sound around a stretch of it that is decoded alone.
struct BeamContext {
  std::vector<int32_t> tokens;     ///< said before: an LM of tokens goes on from them
  std::vector<std::string> words;  ///< the same for one of words
  /// Whether the sound ends there. Else no `</s>` follows, and the last word may be unfinished.
  bool ends = true;
};

/// Natural log probabilities (T, V) of scores (T, V). Throws naming frame and class for NaN and
/// positive infinity, and for a frame without any finite score.
std::vector<double> log_softmax(const float* logits, int64_t frames, int64_t classes);

/// Finds the best transcripts of a CTC model's scores (Hannun et al., "First-pass large vocabulary
/// continuous speech recognition using bi-directional recurrent DNNs", arXiv:1408.2873).
///
/// A hypothesis is a sequence of tokens, for which the probabilities of all alignments that end in
/// a blank, and of those that do not, are summed. Hypotheses are ranked by
///
///   log P(tokens | sound) + lm_weight log P_lm + word_score * words
///
/// The LM scores tokens as they come, or words as they end. Words are what stands between tokens
/// `<space>`, what begins with a token that begins with U+2581, or, with a lexicon, its entries:
/// then only its words are found, hypotheses with the same tokens and other words are kept apart,
/// and at the end the probabilities of one word sequence's pronunciations are added. Where the
/// symbols have `<space>`, it stands between the words of a lexicon; at the ends it may.
///
/// With unlimited beam and thresholds the scores are exact. Results are deterministic; a decoder
/// may be used by several threads at once.
class BeamDecoder {
 public:
  /// `tokens` are the symbols of the model, the blank first. `lm` and `lexicon` may be null and
  /// must outlive the decoder. Throws for options out of range and for a unit `words` without
  /// words.
  BeamDecoder(std::vector<std::string> tokens, const BeamOptions& options,
              const NgramModel* lm = nullptr, LmUnit unit = LmUnit::none,
              const LexiconTrie* lexicon = nullptr);

  /// The best transcripts of log probabilities (T, V), best first; at least one.
  std::vector<Hypothesis> decode(const std::vector<double>& log_probs,
                                 const BeamContext& context = {}) const;

  const BeamOptions& options() const { return options_; }
  /// Another LM weight and word score for the next calls.
  void set_weights(double lm_weight, double word_score);
  /// Sets a hypothesis' words by its tokens, where these tell words apart and there is no lexicon.
  void add_words(Hypothesis& hypothesis) const;
  /// Whether hypotheses have words.
  bool has_words() const { return lexicon_ || space_ >= 0 || markers_; }

 private:
  friend class BeamSearch;

  std::vector<std::string> tokens_;
  BeamOptions options_;
  const NgramModel* lm_;
  LmUnit unit_;
  const LexiconTrie* lexicon_;
  int32_t space_ = -1, silence_ = -1;
  bool markers_ = false;  // tokens that begin with U+2581 begin words
  std::vector<bool> begins_word_;
  std::vector<int32_t> lm_number_;  // of each token, or of each word of the lexicon
  std::vector<double> look_ahead_;  // of each node of the lexicon; empty: none
};

/// Tokens that begin words carry this mark (U+2581), as SentencePiece writes it.
inline constexpr const char* kWordMark = "\xE2\x96\x81";

}  // namespace centroid::audio
