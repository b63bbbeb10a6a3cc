#include "apps/audio/lexicon.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <sstream>

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

std::vector<Entry> entries_of(const std::string& text, const std::string& name) {
  LineReader reader(std::make_unique<std::istringstream>(text), name);
  std::vector<Entry> entries;
  for (std::string line; reader.next_entry(line);) {
    if (line.starts_with(";;;")) continue;
    std::vector<std::string> fields = split_words(line);
    fields.erase(std::find(fields.begin() + 1, fields.end(), "#"), fields.end());
    CENTROID_CHECK(fields.size() >= 2, reader.place(), ": expected a word and its phones, got '",
                   line, "'");
    entries.push_back({reader.number(), std::move(fields)});
  }
  return entries;
}

/// The number in the second column; false when there is none or no phone follows.
bool probability_of(const std::vector<std::string>& fields, double* value) {
  return fields.size() >= 3 && parse_number(fields[1], value);
}

/// Whether so many of all lines having a number in the second column means that it is the
/// probability, which then no line may lack.
bool are_probabilities(int64_t numbers, int64_t lines) { return 2 * numbers > lines; }

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

const Pronunciation* Lexicon::best(const std::string& word) const {
  const std::vector<Pronunciation>* list = find(word);
  if (!list) return nullptr;
  return &*std::max_element(
      list->begin(), list->end(),
      [](const Pronunciation& a, const Pronunciation& b) { return a.log_prob < b.log_prob; });
}

std::vector<std::string> Lexicon::phones() const {
  std::set<std::string> all;
  for (const auto& [word, list] : pronunciations_) {
    for (const Pronunciation& p : list) all.insert(p.phones.begin(), p.phones.end());
  }
  return {all.begin(), all.end()};
}

Lexicon parse_lexicon(const std::string& text, const std::string& name) {
  const std::vector<Entry> entries = entries_of(text, name);
  CENTROID_CHECK(!entries.empty(), name, ": expected a word and its phones a line, got no lines");
  double number = 0;
  const auto is_weighted = [&](const Entry& e) { return probability_of(e.fields, &number); };
  const auto bare = std::find_if_not(entries.begin(), entries.end(), is_weighted);
  const bool weighted = bare == entries.end();
  if (!weighted) {
    const auto numbers = std::count_if(entries.begin(), entries.end(), is_weighted);
    CENTROID_CHECK(!are_probabilities(numbers, std::ssize(entries)), name, ":", bare->line,
                   ": expected a probability after the word, as in ", numbers, " of ",
                   entries.size(), " lines, got '", join(bare->fields, " "), "'");
  }
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
      throw Error(concat(name, ":", line, ": ", error.what()));
    }
  }
  return lexicon;
}

Lexicon read_lexicon(const std::string& path) { return parse_lexicon(read_text(path), path); }

std::string format_lexicon(const Lexicon& lexicon) {
  bool weighted = false;
  int64_t numbers = 0, lines = 0;  // numbers: first phones that look like one
  double number = 0;
  for (const std::string& word : lexicon.words()) {
    CENTROID_CHECK(split_words(word) == std::vector{word} && !word.starts_with(";;;") &&
                       !word.starts_with("\xEF\xBB\xBF") && without_number(word) == word,
                   "lexicon: the word ", word, " cannot be written");
    for (const Pronunciation& p : *lexicon.find(word)) {
      weighted |= p.log_prob != 0;
      numbers += p.phones.size() >= 2 && parse_number(p.phones[0], &number);
      ++lines;
      for (const std::string& phone : p.phones) {
        CENTROID_CHECK(split_words(phone) == std::vector{phone} && phone != "#", "lexicon: ", word,
                       ": the phone '", phone, "' cannot be written");
      }
    }
  }
  std::string out;
  for (const std::string& word : lexicon.words()) {
    for (const Pronunciation& p : *lexicon.find(word)) {
      char probability[32] = "";
      // Phones that are numbers would be taken for probabilities.
      if (weighted || are_probabilities(numbers, lines)) {
        std::snprintf(probability, sizeof probability, " %.17g", std::exp(p.log_prob));
      }
      out += concat(word, probability, " ", join(p.phones, " "), "\n");
    }
  }
  return out;
}

}  // namespace centroid::audio
