#include "apps/audio/vocab.h"

#include <cstdio>

#include "apps/audio/base64.h"
#include "apps/audio/fields.h"
#include "apps/audio/files.h"
#include "apps/audio/text.h"
#include "tensor/file.h"
#include "tensor/json.h"

namespace centroid::audio {

namespace {

const std::string kBlankName = "<blank>";

constexpr std::pair<Unit, const char*> kUnits[] = {{Unit::phones, "phones"},
                                                   {Unit::characters, "characters"},
                                                   {Unit::words, "words"},
                                                   {Unit::subwords, "subwords"}};

/// FNV-1a, in hexadecimal.
std::string hash_of(const std::string& bytes) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

}  // namespace

std::string name_of(Unit unit) { return find_name(kUnits, unit, "unit"); }

Unit unit_from(const std::string& name) { return find_value(kUnits, name, "unit"); }

std::vector<std::string> symbols(const Utterance& utterance, Unit unit, bool lower) {
  if (unit == Unit::phones) return utterance.phones;
  CENTROID_CHECK(unit != Unit::subwords, "symbols: expected phones, characters or words, got ",
                 "sub-words, which need a vocabulary");
  const std::string text = collapse_spaces(lower ? lowercase(utterance.text) : utterance.text);
  if (unit == Unit::words) return split_words(text);
  std::vector<std::string> out;
  for (const char32_t code : code_points(text)) out.push_back(code == ' ' ? kSpace : to_utf8(code));
  return out;
}

Vocab::Vocab(Unit unit, std::vector<std::string> tokens, bool lowercase)
    : unit_(unit), lowercase_(lowercase) {
  for (std::string& token : tokens) {
    CENTROID_CHECK(!token.empty(), "vocabulary: symbol ", tokens_.size(), " is empty");
    CENTROID_CHECK(
        token != kBlankName && numbers_.emplace(token, static_cast<int32_t>(tokens_.size())).second,
        "vocabulary: symbol ", token, " appears twice");
    tokens_.push_back(std::move(token));
  }
}

Vocab::Vocab(std::shared_ptr<const Subwords> model, bool lowercase)
    : Vocab(Unit::subwords, model->pieces(), lowercase) {
  subwords_ = std::move(model);
}

const std::string& Vocab::model_bytes() const {
  static const std::string none;
  return subwords_ ? subwords_->bytes() : none;
}

int32_t Vocab::find(const std::string& symbol) const {
  const auto it = numbers_.find(symbol);
  return it == numbers_.end() ? -1 : it->second;
}

std::vector<std::string> Vocab::symbols(const Utterance& utterance) const {
  if (subwords_) {
    return subwords_->cut(
        collapse_spaces(lowercase_ ? audio::lowercase(utterance.text) : utterance.text));
  }
  return audio::symbols(utterance, unit_, lowercase_);
}

std::vector<int32_t> Vocab::encode(const Utterance& utterance) const {
  std::vector<int32_t> ids;
  for (const std::string& symbol : symbols(utterance)) {
    const int32_t id = find(symbol);
    CENTROID_CHECK(id > kBlank, "utterance ", utterance.id, ": the symbol \"", symbol,
                   "\" is not in the vocabulary of ", size() - 1, " ", name_of(unit_),
                   " (prepare the data together, or normalise the text)");
    ids.push_back(id);
  }
  return ids;
}

std::vector<std::string> Vocab::decode(const std::vector<int32_t>& ids) const {
  std::vector<std::string> out;
  for (const int32_t id : ids) {
    CENTROID_CHECK(id > kBlank && id < size(), "vocabulary: expected a number in 1..", size() - 1,
                   ", got ", id);
    out.push_back(tokens_[id]);
  }
  return out;
}

std::string Vocab::text(const std::vector<std::string>& symbols) const {
  if (unit_ == Unit::subwords) return join_pieces(symbols);
  if (unit_ != Unit::characters) return join(symbols, " ");
  std::string out;
  for (const std::string& symbol : symbols) out += symbol == kSpace ? " " : symbol;
  return out;
}

void VocabBuilder::add(const Utterance& utterance) {
  ++utterances_;
  for (std::string& symbol : symbols(utterance, unit_, lowercase_)) {
    found_.insert(std::move(symbol));
  }
}

Vocab VocabBuilder::finish() const {
  CENTROID_CHECK(!found_.empty(), "vocabulary: none of the ", utterances_, " utterances has ",
                 name_of(unit_));
  std::vector<std::string> tokens;
  const bool spaced = unit_ == Unit::characters && found_.contains(kSpace);
  if (spaced) tokens.push_back(kSpace);
  for (const std::string& symbol : found_) {
    if (!spaced || symbol != kSpace) tokens.push_back(symbol);
  }
  return Vocab(unit_, std::move(tokens), lowercase_);
}

Unit score_unit(const Vocab& vocab) {
  return vocab.unit() == Unit::subwords ? Unit::words : vocab.unit();
}

Vocab build_vocab(const std::vector<Utterance>& utterances, Unit unit, bool lowercase) {
  VocabBuilder builder(unit, lowercase);
  for (const Utterance& u : utterances) builder.add(u);
  return builder.finish();
}

void to_json(nlohmann::json& json, const Vocab& vocab) {
  json = {{"unit", name_of(vocab.unit())},
          {"lowercase", vocab.lowercase()},
          {"tokens", vocab.tokens()}};
  if (!vocab.subwords()) return;
  json["subword_model"] = to_base64(vocab.model_bytes());
  json["subword_hash"] = hash_of(vocab.model_bytes());
}

void from_json(const nlohmann::json& json, Vocab& vocab) {
  try {
    auto tokens = json.at("tokens").get<std::vector<std::string>>();
    CENTROID_CHECK(!tokens.empty() && tokens[0] == kBlankName, "vocabulary: expected ", kBlankName,
                   " as the first token");
    tokens.erase(tokens.begin());
    const Unit unit = unit_from(json.at("unit").get<std::string>());
    const bool lowercase = json.value("lowercase", false);
    if (unit != Unit::subwords) {
      vocab = Vocab(unit, std::move(tokens), lowercase);
      return;
    }
    std::string bytes = from_base64(json.at("subword_model").get<std::string>());
    CENTROID_CHECK(hash_of(bytes) == json.at("subword_hash").get<std::string>(),
                   "vocabulary: the model of sub-words is damaged");
    vocab = Vocab(std::make_shared<Subwords>(std::move(bytes), std::move(tokens)), lowercase);
  } catch (const nlohmann::json::exception& error) {
    throw Error(concat(R"(vocabulary: expected {"unit", "lowercase", "tokens"}: )", error.what()));
  }
}

void write_vocab(const std::string& path, const Vocab& vocab) {
  const std::string text = nlohmann::json(vocab).dump(1) + "\n";
  write_file_atomic(path, text.data(), text.size());
}

Vocab read_vocab(const std::string& path) {
  const std::string text = read_text(path);
  try {
    return parse_json(text, "vocabulary").get<Vocab>();
  } catch (const std::exception& error) {
    throw Error(concat(path, ": ", error.what()));
  }
}

}  // namespace centroid::audio
