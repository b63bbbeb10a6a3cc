#include "apps/audio/kneser_ney.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "apps/audio/fields.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

constexpr int32_t kUnknown = 0, kBegin = 1, kEnd = 2;
constexpr float kNever = -99;  // the customary log10 probability of <s>, which is never predicted

/// All different n-grams of one order, sorted by their words' numbers.
struct Level {
  int n = 0;
  std::vector<int32_t> words;
  std::vector<int64_t> seen, adjusted;  ///< times seen; a(g) above
  std::vector<double> probability;      ///< P(last word | the others)
  std::vector<double> backoff;          ///< of the n-gram as a context; 1 without continuations
  std::vector<bool> kept;

  size_t size() const { return seen.size(); }
  const int32_t* at(size_t i) const { return words.data() + i * n; }
  bool same_context(size_t i, size_t j) const {
    return std::equal(at(i), at(i) + n - 1, at(j), at(j) + n - 1);
  }
  /// The place of an n-gram that is there.
  size_t find(const int32_t* ngram) const {
    size_t low = 0, high = size();
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (std::lexicographical_compare(at(middle), at(middle) + n, ngram, ngram + n)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// One sort of all positions by the words that begin there puts the n-grams of every order into
// groups. An n-gram ends with its sentence; </s>, which ends it, tells sentences apart.
std::vector<Level> count_ngrams(const std::vector<int32_t>& text, int order) {
  std::vector<int64_t> room(text.size());  // words from here to the end of the sentence
  for (auto i = static_cast<int64_t>(text.size()) - 1; i >= 0; --i) {
    room[i] = text[i] == kEnd ? 1 : room[i + 1] + 1;
  }
  std::vector<int64_t> sorted(text.size());
  std::iota(sorted.begin(), sorted.end(), int64_t{0});
  const auto reach = [&](int64_t i) { return text.data() + i + std::min<int64_t>(order, room[i]); };
  std::sort(sorted.begin(), sorted.end(), [&](int64_t a, int64_t b) {
    return std::lexicographical_compare(text.data() + a, reach(a), text.data() + b, reach(b));
  });
  std::vector<Level> levels(order);
  for (int n = 1; n <= order; ++n) {
    Level& level = levels[n - 1];
    level.n = n;
    for (const int64_t i : sorted) {
      if (room[i] < n) continue;
      const int32_t* ngram = text.data() + i;
      if (level.size() > 0 && std::equal(ngram, ngram + n, level.at(level.size() - 1))) {
        ++level.seen.back();
      } else {
        level.words.insert(level.words.end(), ngram, ngram + n);
        level.seen.push_back(1);
      }
    }
  }
  return levels;
}

void adjust_counts(std::vector<Level>& levels) {
  for (size_t k = 0; k < levels.size(); ++k) {
    Level& level = levels[k];
    level.adjusted = level.seen;
    if (k + 1 == levels.size()) break;
    for (size_t i = 0; i < level.size(); ++i) {
      if (level.at(i)[0] != kBegin) level.adjusted[i] = 0;
    }
    const Level& longer = levels[k + 1];
    for (size_t i = 0; i < longer.size(); ++i) ++level.adjusted[level.find(longer.at(i) + 1)];
  }
}

Discounts discounts_of(const Level& level) {
  std::array<int64_t, 4> t{};
  for (size_t i = 0; i < level.size(); ++i) {
    const bool predicted = level.n > 1 || level.at(i)[0] != kBegin;
    const int64_t a = level.adjusted[i];
    if (predicted && a >= 1 && a <= 4) ++t[a - 1];
  }
  return audio::discounts_of(t);
}

/// The numbers of one context: `kept` of its continuations share 1 - bo.
struct Mass {
  double total = 0, freed = 0;
};

Mass mass_of(const Level& level, size_t begin, size_t end, const Discounts& discounts) {
  Mass mass;
  for (size_t i = begin; i < end; ++i) {
    const auto a = static_cast<double>(level.adjusted[i]);
    mass.total += a;
    mass.freed += level.kept[i] ? discounts.of(level.adjusted[i]) : a;
  }
  return mass;
}

// Unigrams are completed to all `words`, so that each has a probability and a place by its number.
void estimate_unigrams(Level& level, const Discounts& discounts, size_t words) {
  Level all;
  all.n = 1;
  all.words.resize(words);
  std::iota(all.words.begin(), all.words.end(), 0);
  all.seen.assign(words, 0);
  all.adjusted.assign(words, 0);
  all.kept.assign(words, true);
  for (size_t i = 0; i < level.size(); ++i) {
    all.seen[level.words[i]] = level.seen[i];
    if (level.words[i] != kBegin) all.adjusted[level.words[i]] = level.adjusted[i];
  }
  const Mass mass = mass_of(all, 0, words, discounts);
  const double uniform = mass.freed / mass.total / static_cast<double>(words - 1);  // not <s>
  for (const int64_t a : all.adjusted) {
    all.probability.push_back((static_cast<double>(a) - discounts.of(a)) / mass.total + uniform);
  }
  all.backoff.assign(words, 1);
  level = std::move(all);
}

void estimate(Level& level, Level& lower, const Discounts& discounts, int64_t threshold) {
  level.kept.resize(level.size());
  for (size_t i = 0; i < level.size(); ++i) level.kept[i] = level.seen[i] > threshold;
  level.probability.resize(level.size());
  level.backoff.assign(level.size(), 1);
  for (size_t begin = 0, end = 0; begin < level.size(); begin = end) {
    while (end < level.size() && level.same_context(begin, end)) ++end;
    const Mass mass = mass_of(level, begin, end, discounts);
    const double backoff = mass.freed / mass.total;
    lower.backoff[lower.find(level.at(begin))] = backoff;
    for (size_t i = begin; i < end; ++i) {
      const auto a = static_cast<double>(level.adjusted[i]);
      const double own = level.kept[i] ? (a - discounts.of(level.adjusted[i])) / mass.total : 0;
      level.probability[i] = own + backoff * lower.probability[lower.find(level.at(i) + 1)];
    }
  }
}

NgramTable to_table(const Level& level) {
  NgramTable table;
  for (size_t i = 0; i < level.size(); ++i) {
    if (!level.kept[i]) continue;
    table.words.insert(table.words.end(), level.at(i), level.at(i) + level.n);
    const bool never = level.n == 1 && level.at(i)[0] == kBegin;
    const auto log_prob = static_cast<float>(std::log10(std::min(1.0, level.probability[i])));
    table.log_prob.push_back(never ? kNever : log_prob);
    table.backoff.push_back(static_cast<float>(std::log10(level.backoff[i])));
  }
  return table;
}

int64_t threshold_of(const KneserNeyOptions& options, int n) {
  return options.prune[std::min<size_t>(n, options.prune.size()) - 1];
}

void validate(const KneserNeyOptions& o) {
  CENTROID_CHECK(o.order >= 1 && o.order <= 20,
                 "n-gram training: expected an order of 1 to 20, got ", o.order);
  CENTROID_CHECK(!o.prune.empty() && o.prune[0] == 0,
                 "n-gram training: prune: expected 0 for the unigrams first (rare words are left "
                 "out by a minimum count)");
  for (size_t i = 1; i < o.prune.size(); ++i) {
    CENTROID_CHECK(o.prune[i] >= o.prune[i - 1],
                   "n-gram training: prune: expected numbers that do not fall, got ", o.prune[i],
                   " after ", o.prune[i - 1]);
  }
}

constexpr std::pair<Discounts::Kind, const char*> kKinds[] = {
    {Discounts::Kind::modified, "modified"},
    {Discounts::Kind::single, "single"},
    {Discounts::Kind::fixed, "fixed"}};

}  // namespace

std::string name_of(Discounts::Kind kind) { return find_name(kKinds, kind, "discounts"); }

Discounts discounts_of(const std::array<int64_t, 4>& t) {
  if (t[0] == 0 || t[1] == 0) return {{0.5, 1, 1.5}, Discounts::Kind::fixed};
  const double y = static_cast<double>(t[0]) / static_cast<double>(t[0] + 2 * t[1]);
  Discounts d{{}, Discounts::Kind::modified};
  for (int c = 1; c <= 3; ++c) {
    const double ratio = t[c - 1] > 0 ? static_cast<double>(t[c]) / t[c - 1] : -1;
    d.amount[c - 1] = c - (c + 1) * y * ratio;
    if (ratio <= 0 || d.amount[c - 1] <= 0) return {{y, y, y}, Discounts::Kind::single};
  }
  return d;
}

KneserNeyTrainer::KneserNeyTrainer() {
  for (const char* word : {"<unk>", "<s>", "</s>"}) {
    numbers_.emplace(word, static_cast<int32_t>(words_.size()));
    words_.emplace_back(word);
  }
  occurrences_.assign(words_.size(), 0);
}

void KneserNeyTrainer::add(const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    CENTROID_CHECK(word != "<s>" && word != "</s>", "n-gram training: expected words, got ", word,
                   ", which stands for a sentence's ", word == "<s>" ? "begin" : "end");
  }
  text_.push_back(kBegin);
  for (const std::string& word : words) {
    const auto [it, added] = numbers_.emplace(word, static_cast<int32_t>(words_.size()));
    if (added) {
      words_.push_back(word);
      occurrences_.push_back(0);
    }
    ++occurrences_[it->second];
    text_.push_back(it->second);
  }
  text_.push_back(kEnd);
  ++sentences_;
}

// The number in the model of each word of the text; `words` are those of the model.
std::vector<int32_t> KneserNeyTrainer::renumber(const KneserNeyOptions& options,
                                                std::vector<std::string>* words) const {
  std::vector<int32_t> number(words_.size(), kUnknown);
  number[kBegin] = kBegin;
  number[kEnd] = kEnd;
  words->assign(words_.begin(), words_.begin() + kEnd + 1);
  for (const std::string& word : options.vocabulary) {
    const auto it = numbers_.find(word);
    if (it != numbers_.end() && it->second <= kEnd) continue;
    if (it != numbers_.end()) {
      CENTROID_CHECK(number[it->second] == kUnknown, "n-gram training: the vocabulary has ", word,
                     " twice");
      number[it->second] = static_cast<int32_t>(words->size());
    }
    words->push_back(word);
  }
  for (size_t i = kEnd + 1; i < words_.size() && options.vocabulary.empty(); ++i) {
    if (occurrences_[i] < options.min_count) continue;
    number[i] = static_cast<int32_t>(words->size());
    words->push_back(words_[i]);
  }
  return number;
}

KneserNey KneserNeyTrainer::train(const KneserNeyOptions& options) const {
  validate(options);
  CENTROID_CHECK(sentences_ > 0, "n-gram training: expected sentences, got none");
  std::vector<std::string> words;
  const std::vector<int32_t> number = renumber(options, &words);
  KneserNey result;
  result.sentences = sentences_;
  std::vector<int32_t> text;
  for (const int32_t word : text_) {
    text.push_back(number[word]);
    result.words += word != kBegin && word != kEnd;
    result.unknown += text.back() == kUnknown;
  }
  std::vector<Level> levels = count_ngrams(text, options.order);
  adjust_counts(levels);
  std::vector<NgramTable> tables;
  for (Level& level : levels) {
    result.counted.push_back(static_cast<int64_t>(level.size()));
    result.discounts.push_back(discounts_of(level));
    if (level.n == 1) {
      estimate_unigrams(level, result.discounts.back(), words.size());
      result.counted.back() = static_cast<int64_t>(words.size());
    } else {
      estimate(level, levels[level.n - 2], result.discounts.back(), threshold_of(options, level.n));
    }
  }
  for (const Level& level : levels) tables.push_back(to_table(level));
  tables.back().backoff.clear();
  result.model = NgramModel(std::move(words), std::move(tables), "n-gram training");
  return result;
}

}  // namespace centroid::audio
