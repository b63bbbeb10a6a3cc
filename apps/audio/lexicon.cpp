#include "apps/audio/lexicon.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "apps/audio/files.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

// `word(2)` -> `word`: the CMU dictionary's names of further pronunciations.
std::string without_number(const std::string& word) {
  const size_t open = word.rfind('(');
  if (open == std::string::npos || open == 0 || word.back() != ')') return word;
  const std::string inside = word.substr(open + 1, word.size() - open - 2);
  const bool number = !inside.empty() && std::all_of(inside.begin(), inside.end(),
                                                     [](char c) { return c >= '0' && c <= '9'; });
  return number ? word.substr(0, open) : word;
}

struct Entry {
  size_t line;
  std::vector<std::string> fields;  // the word first
};

std::vector<Entry> read_fields_of(const std::string& path) {
  std::vector<Entry> entries;
  for (const Line& line : read_entries(path)) {
    if (line.text.starts_with(";;;")) continue;
    entries.push_back({line.number, split_words(line.text)});
    CENTROID_CHECK(entries.back().fields.size() >= 2, path, ":", line.number,
                   ": expected a word and its phones, got '", line.text, "'");
  }
  return entries;
}

}  // namespace

void Lexicon::add(const std::string& word, Pronunciation pronunciation) {
  CENTROID_CHECK(!word.empty(), "lexicon: expected a word, got an empty one");
  CENTROID_CHECK(!pronunciation.phones.empty(), "lexicon: ", word, ": expected phones, got none");
  CENTROID_CHECK(pronunciation.log_prob <= 0 && std::isfinite(pronunciation.log_prob),
                 "lexicon: ", word, ": expected a probability above 0 and up to 1, got ",
                 std::exp(pronunciation.log_prob));
  auto& known = pronunciations_[word];
  for (const Pronunciation& p : known) {
    CENTROID_CHECK(p.phones != pronunciation.phones, "lexicon: ", word, ": the pronunciation ",
                   join(p.phones, " "), " occurs twice");
  }
  if (known.empty()) words_.push_back(word);
  known.push_back(std::move(pronunciation));
}

const std::vector<Pronunciation>* Lexicon::find(const std::string& word) const {
  const auto it = pronunciations_.find(word);
  return it == pronunciations_.end() ? nullptr : &it->second;
}

std::vector<std::string> Lexicon::phones() const {
  std::set<std::string> all;
  for (const auto& [word, list] : pronunciations_) {
    for (const Pronunciation& p : list) all.insert(p.phones.begin(), p.phones.end());
  }
  return {all.begin(), all.end()};
}

Lexicon read_lexicon(const std::string& path) {
  const std::vector<Entry> entries = read_fields_of(path);
  CENTROID_CHECK(!entries.empty(), path, ": expected a word and its phones a line, got no lines");
  double number = 0;
  const bool weighted = std::all_of(entries.begin(), entries.end(), [&](const Entry& e) {
    return e.fields.size() >= 3 && parse_number(e.fields[1], &number);
  });
  Lexicon lexicon;
  for (const auto& [line, fields] : entries) {
    Pronunciation p;
    try {
      if (weighted) {
        parse_number(fields[1], &number);
        CENTROID_CHECK(number > 0 && number <= 1,
                       "expected a probability above 0 and up to 1, got ", fields[1]);
        p.log_prob = std::log(number);
      }
      p.phones.assign(fields.begin() + (weighted ? 2 : 1), fields.end());
      lexicon.add(without_number(fields[0]), std::move(p));
    } catch (const Error& error) {
      throw Error(concat(path, ":", line, ": ", error.what()));
    }
  }
  return lexicon;
}

}  // namespace centroid::audio
