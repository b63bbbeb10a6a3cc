#include "apps/audio/arpa.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <tuple>

#include "apps/audio/files.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

std::string place(const NgramTable& table, size_t i, const std::string& name) {
  return i < table.lines.size() ? concat(name, ":", table.lines[i]) : name;
}

}  // namespace

NgramModel::NgramModel(std::vector<std::string> words, std::vector<NgramTable> tables,
                       const std::string& name)
    : words_(std::move(words)) {
  CENTROID_CHECK(!words_.empty() && !tables.empty(), name, ": expected n-grams, got none");
  for (size_t i = 0; i < words_.size(); ++i) {
    const std::string& word = words_[i];
    const auto number = static_cast<int32_t>(i);
    CENTROID_CHECK(numbers_.emplace(word, number).second, place(tables[0], i, name), ": the word '",
                   word, "' occurs twice");
    CENTROID_CHECK(!word.empty() && word.find_first_of(" \t\r\n") == word.npos,
                   place(tables[0], i, name), ": expected words without white space, got '", word,
                   "'");
    if (word == "<s>") begin_ = number;
    if (word == "</s>") end_ = number;
    if (word == "<unk>" || (word == "<UNK>" && unknown_ < 0)) unknown_ = number;
  }
  uint64_t nodes = 1;
  for (const NgramTable& table : tables) nodes += table.log_prob.size();
  CENTROID_CHECK(nodes < std::numeric_limits<int32_t>::max(), name, ": expected fewer than ",
                 std::numeric_limits<int32_t>::max(), " n-grams, got ", nodes - 1);
  word_ = {-1};
  log_prob_ = {0};
  level_ = {0, 1};
  for (size_t n = 1; n <= tables.size(); ++n) {
    add_level(tables[n - 1], static_cast<int>(n), name);
    tables[n - 1] = {};
    CENTROID_CHECK(n > 1 || static_cast<size_t>(level_[2] - 1) == words_.size(), name,
                   ": expected ", words_.size(), " unigrams, one for each word, got ",
                   level_[2] - 1);
  }
  link_suffixes();
}

std::string NgramModel::spell(const NgramTable& table, size_t i, int first, int count) const {
  const size_t n = table.words.size() / table.log_prob.size();
  std::string text;
  for (int k = 0; k < count; ++k) {
    text += concat(k > 0 ? " " : "", words_[table.words[i * n + first + k]]);
  }
  return text;
}

int32_t NgramModel::context_of(const NgramTable& table, size_t i, int n,
                               const std::string& name) const {
  int32_t node = 0;
  for (int k = 0; k + 1 < n && node >= 0; ++k) node = child(node, table.words[i * n + k]);
  CENTROID_CHECK(node >= 0, place(table, i, name), ": the ", n, "-gram '", spell(table, i, 0, n),
                 "' lacks its context, the ", n - 1, "-gram '", spell(table, i, 0, n - 1), "'");
  return node;
}

void NgramModel::add_level(const NgramTable& table, int n, const std::string& name) {
  const size_t count = table.log_prob.size();
  CENTROID_CHECK(
      table.words.size() == count * n && (table.backoff.empty() || table.backoff.size() == count),
      name, ": expected ", n, " words for each ", n, "-gram");
  const auto where = [&](size_t i) { return place(table, i, name); };
  std::vector<int32_t> context(count);
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = 0; i < count; ++i) {
    for (int k = 0; k < n; ++k) {
      const int32_t word = table.words[i * n + k];
      CENTROID_CHECK(word >= 0 && word < static_cast<int64_t>(words_.size()), where(i),
                     ": expected the number of a word, got ", word);
    }
    CENTROID_CHECK(std::isfinite(table.log_prob[i]) && table.log_prob[i] <= 0, where(i),
                   ": expected the logarithm of a probability, at most 0, got ", table.log_prob[i]);
    CENTROID_CHECK(table.backoff.empty() || std::isfinite(table.backoff[i]), where(i),
                   ": expected a finite back-off weight, got ", table.backoff[i]);
    context[i] = context_of(table, i, n, name);
  }
  const auto last = [&](size_t i) { return table.words[i * n + n - 1]; };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::tuple(context[a], last(a), a) < std::tuple(context[b], last(b), b);
  });
  // The nodes of the level above become contexts: their children are the new nodes.
  const int32_t above = level_[n - 1], first = level_[n];
  child_.resize(first + 1, first);
  for (size_t k = 0; k < count; ++k) {
    const size_t i = order[k];
    CENTROID_CHECK(k == 0 || context[order[k - 1]] != context[i] || last(order[k - 1]) != last(i),
                   where(i), ": the ", n, "-gram '", spell(table, i, 0, n), "' occurs twice");
    ++child_[context[i] + 1];
    word_.push_back(last(i));
    log_prob_.push_back(table.log_prob[i]);
  }
  for (int32_t node = above; node < first; ++node) {
    child_[node + 1] += child_[node] - first;
  }
  for (size_t k = 0; k < count; ++k) {
    backoff_.resize(first + k + 1, 0.0f);
    if (!table.backoff.empty()) backoff_.back() = table.backoff[order[k]];
  }
  level_.push_back(static_cast<int32_t>(word_.size()));
}

// The suffix of a node stands for its n-gram without the first word, or the longest later part of
// it that is listed. Parts that are not listed have back-off weight 1, so none is missed.
void NgramModel::link_suffixes() {
  const int32_t lower = level_[order()];
  backoff_.resize(std::max<size_t>(1, lower), 0.0f);
  backoff_.resize(lower);
  suffix_.assign(word_.size(), 0);
  for (int32_t context = level_[1]; context < lower; ++context) {
    for (int32_t node = child_[context]; node < child_[context + 1]; ++node) {
      int32_t from = suffix_[context], found = child(from, word_[node]);
      while (found < 0) {
        from = suffix_[from];
        found = child(from, word_[node]);
      }
      suffix_[node] = reduced(found);
    }
  }
}

int32_t NgramModel::child(int32_t node, int32_t word) const {
  if (node == 0) return 1 + word;  // every word is a unigram, sorted by number
  if (node + 1 >= static_cast<int64_t>(child_.size())) return -1;
  const auto begin = word_.begin() + child_[node], end = word_.begin() + child_[node + 1];
  const auto it = std::lower_bound(begin, end, word);
  return it != end && *it == word ? static_cast<int32_t>(it - word_.begin()) : -1;
}

// A context without continuations and with weight 1 says no more than its suffix.
NgramModel::State NgramModel::reduced(int32_t node) const {
  if (node == 0) return 0;
  const bool context = node < static_cast<int64_t>(backoff_.size());
  if (context && (backoff_[node] != 0 || child_[node] < child_[node + 1])) return node;
  return suffix_[node];
}

int32_t NgramModel::find(const std::string& word) const {
  const auto it = numbers_.find(word);
  return it == numbers_.end() ? unknown_ : it->second;
}

NgramModel::State NgramModel::begin_state() const { return begin_ < 0 ? 0 : reduced(1 + begin_); }

NgramModel::Step NgramModel::score(State state, int32_t word) const {
  CENTROID_CHECK(word >= 0 && word < static_cast<int64_t>(words_.size()),
                 "n-gram model: expected a word in 0..", words_.size() - 1, ", got ", word);
  double log10 = 0;
  int32_t found = child(state, word);
  while (found < 0) {
    log10 += backoff_[state];
    state = suffix_[state];
    found = child(state, word);
  }
  return {(log10 + log_prob_[found]) * std::numbers::ln10, reduced(found)};
}

std::vector<NgramTable> NgramModel::tables() const {
  std::vector<NgramTable> tables(order());
  std::vector<int32_t> parent(word_.size(), 0);
  for (int32_t node = 0; node + 1 < static_cast<int64_t>(child_.size()); ++node) {
    for (int32_t c = child_[node]; c < child_[node + 1]; ++c) parent[c] = node;
  }
  for (int n = 1; n <= order(); ++n) {
    NgramTable& table = tables[n - 1];
    for (int32_t node = level_[n]; node < level_[n + 1]; ++node) {
      table.words.resize(table.words.size() + n);
      auto out = table.words.end();
      for (int32_t at = node; at != 0; at = parent[at]) *--out = word_[at];
      table.log_prob.push_back(log_prob_[node]);
      if (n < order()) table.backoff.push_back(backoff_[node]);
    }
  }
  return tables;
}

TextScore& TextScore::operator+=(const TextScore& other) {
  log_prob += other.log_prob;
  known += other.known;
  sentences += other.sentences;
  words += other.words;
  unknown += other.unknown;
  scores_unknown = scores_unknown || other.scores_unknown;
  return *this;
}

double TextScore::perplexity(bool unknown_words) const {
  const bool all = unknown_words && scores_unknown;
  const int64_t events = words + sentences - (all ? 0 : unknown);
  if (events == 0) return std::numeric_limits<double>::quiet_NaN();
  return std::exp(-(all ? log_prob : known) / static_cast<double>(events));
}

TextScore score_sentence(const NgramModel& model, const std::vector<std::string>& words) {
  TextScore result;
  result.scores_unknown = model.unknown() >= 0;
  NgramModel::State state = model.begin_state();
  const auto add = [&](int32_t word, bool known) {
    const auto [log_prob, next] = model.score(state, word);
    state = next;
    result.log_prob += log_prob;
    if (known) result.known += log_prob;
  };
  for (const std::string& word : words) {
    CENTROID_CHECK(word != "<s>" && word != "</s>", "n-gram scoring: expected words, got ", word,
                   ", which stands for a sentence's ", word == "<s>" ? "begin" : "end");
    const int32_t number = model.find(word);
    ++result.words;
    result.unknown += number == model.unknown();
    if (number < 0) {
      state = model.empty_state();
    } else {
      add(number, number != model.unknown());
    }
  }
  if (model.sentence_end() >= 0) {
    add(model.sentence_end(), true);
    ++result.sentences;
  }
  return result;
}

}  // namespace centroid::audio
