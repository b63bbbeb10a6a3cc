#pragma once
// The symbols a recogniser puts out, and their numbers.
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "apps/audio/manifest.h"
#include "apps/audio/subwords.h"

namespace centroid::audio {

/// The symbol between words of a vocabulary of characters.
inline const std::string kSpace = "<space>";

/// What one symbol is.
enum class Unit {
  phones,      ///< the utterance's phones
  characters,  ///< Unicode code points of the text; `<space>` between words
  words,       ///< words of the text
  subwords,    ///< pieces of words, cut by a model (subwords.h)
};

/// Names as on the command line and in JSON. `unit_from` throws listing the valid names.
std::string name_of(Unit unit);
Unit unit_from(const std::string& name);

/// The symbols of an utterance's transcript in order. White space in the text is collapsed. Throws
/// for sub-words, which only a vocabulary's model can cut.
std::vector<std::string> symbols(const Utterance& utterance, Unit unit, bool lowercase = false);

/// Numbered symbols. Number 0 is the CTC blank, `<blank>`.
class Vocab {
 public:
  static constexpr int32_t kBlank = 0;

  Vocab() = default;
  /// `tokens` are all symbols in order, without the blank. Throws for empty or repeated ones.
  Vocab(Unit unit, std::vector<std::string> tokens, bool lowercase = false);
  /// Sub-words: the symbols are the model's pieces.
  explicit Vocab(std::shared_ptr<const Subwords> model, bool lowercase = false);

  Unit unit() const { return unit_; }
  bool lowercase() const { return lowercase_; }
  /// Symbol of each number, the blank first.
  const std::vector<std::string>& tokens() const { return tokens_; }
  /// Number of symbols with the blank: the classes of the model.
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }

  /// The model that cuts sub-words; null for other units.
  const std::shared_ptr<const Subwords>& subwords() const { return subwords_; }

  /// The number of a symbol; -1 when it is not in the vocabulary.
  int32_t find(const std::string& symbol) const;

  /// The utterance's transcript as symbols of this unit; unknown ones are let pass. Throws for
  /// sub-words in builds without SentencePiece.
  std::vector<std::string> symbols(const Utterance& utterance) const;

  /// Transcript -> U numbers, each in 1..size()-1. Throws naming utterance and symbol when one is
  /// unknown.
  std::vector<int32_t> encode(const Utterance& utterance) const;

  /// Numbers -> symbols. Throws for the blank and for numbers that are not in the vocabulary.
  std::vector<std::string> decode(const std::vector<int32_t>& ids) const;

  /// Symbols as readable text: characters are joined (`<space>` becomes a space), sub-words too,
  /// phones and words get spaces between them.
  std::string text(const std::vector<std::string>& symbols) const;

  friend bool operator==(const Vocab& a, const Vocab& b) {
    return a.unit_ == b.unit_ && a.lowercase_ == b.lowercase_ && a.tokens_ == b.tokens_ &&
           a.model_bytes() == b.model_bytes();
  }

  /// The bytes of the sub-words' model; empty for other units.
  const std::string& model_bytes() const;

 private:
  Unit unit_ = Unit::phones;
  bool lowercase_ = false;
  std::vector<std::string> tokens_{"<blank>"};
  std::unordered_map<std::string, int32_t> numbers_;
  std::shared_ptr<const Subwords> subwords_;
};

/// Collects the symbols of utterances, one at a time.
class VocabBuilder {
 public:
  /// For phones, characters and words.
  VocabBuilder(Unit unit, bool lowercase) : unit_(unit), lowercase_(lowercase) {}
  void add(const Utterance& utterance);
  /// All symbols that occurred, `<space>` first, the others sorted by code point. Throws when there
  /// were none.
  Vocab finish() const;

 private:
  Unit unit_;
  bool lowercase_;
  std::set<std::string> found_;
  int64_t utterances_ = 0;
};

/// The vocabulary of a VocabBuilder that was given all utterances.
Vocab build_vocab(const std::vector<Utterance>& utterances, Unit unit, bool lowercase = false);

/// What the errors of a recogniser are counted in unless told: its symbols, or words where these
/// are sub-words, which depend on how the words were cut.
Unit score_unit(const Vocab& vocab);

/// JSON {"unit", "lowercase", "tokens"}, tokens with the blank; for sub-words also
/// "subword_model", the model's bytes in base64, and "subword_hash", a hash of them, so that damage
/// is found before the library reads them. Reading throws on anything else.
void to_json(nlohmann::json& json, const Vocab& vocab);
void from_json(const nlohmann::json& json, Vocab& vocab);

/// `vocab.json` as `asr prepare` writes it (atomic). Reading throws naming the file.
void write_vocab(const std::string& path, const Vocab& vocab);
Vocab read_vocab(const std::string& path);

}  // namespace centroid::audio
