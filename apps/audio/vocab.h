#pragma once
// The symbols a recogniser puts out, and their numbers.
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "apps/audio/manifest.h"

namespace centroid::audio {

/// The symbol between words of a vocabulary of characters.
inline const std::string kSpace = "<space>";

/// What one symbol is.
enum class Unit {
  phones,      ///< the utterance's phones
  characters,  ///< Unicode code points of the text; `<space>` between words
  words,       ///< words of the text
};

/// Names as on the command line and in JSON. `unit_from` throws listing the valid names.
std::string name_of(Unit unit);
Unit unit_from(const std::string& name);

/// The symbols of an utterance's transcript in order. White space in the text is collapsed.
std::vector<std::string> symbols(const Utterance& utterance, Unit unit, bool lowercase = false);

/// Numbered symbols. Number 0 is the CTC blank, `<blank>`.
class Vocab {
 public:
  static constexpr int32_t kBlank = 0;

  Vocab() = default;
  /// `tokens` are all symbols in order, without the blank. Throws for empty or repeated ones.
  Vocab(Unit unit, std::vector<std::string> tokens, bool lowercase = false);

  Unit unit() const { return unit_; }
  bool lowercase() const { return lowercase_; }
  /// Symbol of each number, the blank first.
  const std::vector<std::string>& tokens() const { return tokens_; }
  /// Number of symbols with the blank: the classes of the model.
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }

  /// The utterance's transcript as symbols of this unit; unknown ones are let pass.
  std::vector<std::string> symbols(const Utterance& utterance) const;

  /// Transcript -> U numbers, each in 1..size()-1. Throws naming utterance and symbol when one is
  /// unknown.
  std::vector<int32_t> encode(const Utterance& utterance) const;

  /// Numbers -> symbols. Throws for the blank and for numbers that are not in the vocabulary.
  std::vector<std::string> decode(const std::vector<int32_t>& ids) const;

  /// Symbols as readable text: characters are joined (`<space>` becomes a space), phones and words
  /// get spaces between them.
  std::string text(const std::vector<std::string>& symbols) const;

  friend bool operator==(const Vocab& a, const Vocab& b) {
    return a.unit_ == b.unit_ && a.lowercase_ == b.lowercase_ && a.tokens_ == b.tokens_;
  }

 private:
  Unit unit_ = Unit::phones;
  bool lowercase_ = false;
  std::vector<std::string> tokens_{"<blank>"};
  std::unordered_map<std::string, int32_t> numbers_;
};

/// All symbols that occur, `<space>` first, the others sorted by code point. Throws when there are
/// none.
Vocab build_vocab(const std::vector<Utterance>& utterances, Unit unit, bool lowercase = false);

/// JSON {"unit", "lowercase", "tokens"}, tokens with the blank. Reading throws on anything else.
void to_json(nlohmann::json& json, const Vocab& vocab);
void from_json(const nlohmann::json& json, Vocab& vocab);

/// `vocab.json` as `asr prepare` writes it (atomic). Reading throws naming the file.
void write_vocab(const std::string& path, const Vocab& vocab);
Vocab read_vocab(const std::string& path);

}  // namespace centroid::audio
