#include "apps/audio/vocab.h"

#include "apps/audio/fields.h"
#include "apps/audio/files.h"
#include "apps/audio/text.h"
#include "tensor/file.h"

namespace centroid::audio {

namespace {

const std::string kBlankName = "<blank>";

constexpr std::pair<Unit, const char*> kUnits[] = {
    {Unit::phones, "phones"}, {Unit::characters, "characters"}, {Unit::words, "words"}};

}  // namespace

std::string name_of(Unit unit) { return find_name(kUnits, unit, "unit"); }

Unit unit_from(const std::string& name) { return find_value(kUnits, name, "unit"); }

std::vector<std::string> symbols(const Utterance& utterance, Unit unit, bool lower) {
  if (unit == Unit::phones) return utterance.phones;
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

std::vector<std::string> Vocab::symbols(const Utterance& utterance) const {
  return audio::symbols(utterance, unit_, lowercase_);
}

std::vector<int32_t> Vocab::encode(const Utterance& utterance) const {
  std::vector<int32_t> ids;
  for (const std::string& symbol : symbols(utterance)) {
    const auto it = numbers_.find(symbol);
    CENTROID_CHECK(it != numbers_.end(), "utterance ", utterance.id, ": the symbol \"", symbol,
                   "\" is not in the vocabulary of ", size() - 1, " ", name_of(unit_),
                   " (prepare the data together, or normalise the text)");
    ids.push_back(it->second);
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
  if (unit_ != Unit::characters) return join(symbols, " ");
  std::string out;
  for (const std::string& symbol : symbols) out += symbol == kSpace ? " " : symbol;
  return out;
}

Vocab build_vocab(const std::vector<Utterance>& utterances, Unit unit, bool lowercase) {
  std::set<std::string> found;
  for (const Utterance& u : utterances) {
    for (std::string& symbol : symbols(u, unit, lowercase)) found.insert(std::move(symbol));
  }
  CENTROID_CHECK(!found.empty(), "vocabulary: none of the ", utterances.size(), " utterances has ",
                 name_of(unit));
  std::vector<std::string> tokens;
  if (unit == Unit::characters && found.erase(kSpace) == 1) tokens.push_back(kSpace);
  tokens.insert(tokens.end(), found.begin(), found.end());
  return Vocab(unit, std::move(tokens), lowercase);
}

void to_json(nlohmann::json& json, const Vocab& vocab) {
  json = {{"unit", name_of(vocab.unit())},
          {"lowercase", vocab.lowercase()},
          {"tokens", vocab.tokens()}};
}

void from_json(const nlohmann::json& json, Vocab& vocab) {
  try {
    auto tokens = json.at("tokens").get<std::vector<std::string>>();
    CENTROID_CHECK(!tokens.empty() && tokens[0] == kBlankName, "vocabulary: expected ", kBlankName,
                   " as the first token");
    tokens.erase(tokens.begin());
    vocab = Vocab(unit_from(json.at("unit").get<std::string>()), std::move(tokens),
                  json.value("lowercase", false));
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
    return nlohmann::json::parse(text).get<Vocab>();
  } catch (const std::exception& error) {
    throw Error(concat(path, ": ", error.what()));
  }
}

}  // namespace centroid::audio
