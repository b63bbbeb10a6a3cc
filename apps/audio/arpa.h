#pragma once
// N-gram language models with back-off, in memory and as ARPA files.
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace centroid::audio {

/// All n-grams of one order, in any sequence. Logarithms have base 10, as in ARPA files.
struct NgramTable {
  std::vector<int32_t> words;   ///< n per n-gram, numbers in the list of words
  std::vector<float> log_prob;  ///< <= 0
  std::vector<float> backoff;   ///< weight of the n-gram as a context; empty: all 0
  std::vector<int64_t> lines;   ///< where each was read, for messages; may be empty
};

/// A back-off n-gram model (Katz's form, which interpolated models are written in, too):
///
///   P(w | h) = p(h w) if the n-gram is listed, else bo(h) P(w | h without its first word)
///
/// The n-grams form a trie in flat arrays, 12 bytes for one of the highest order and 20 for others;
/// a lookup is one binary search per order. Reading is thread-safe.
class NgramModel {
 public:
  /// What the words seen so far mean for the next one: the longest context the model knows. Equal
  /// states score every continuation alike.
  using State = int32_t;
  struct Step {
    double log_prob;  ///< natural logarithm
    State next;
  };

  NgramModel() = default;
  /// `tables[n - 1]` holds the n-grams; every word is a unigram. `name` begins the messages: throws
  /// for repeated words and n-grams, an n-gram whose context is not listed, a probability above 1
  /// and for numbers that are not finite.
  NgramModel(std::vector<std::string> words, std::vector<NgramTable> tables,
             const std::string& name = "n-gram model");

  int order() const { return static_cast<int>(level_.size()) - 2; }
  const std::vector<std::string>& words() const { return words_; }
  /// Number of n-grams of order n.
  int64_t count(int n) const { return level_[n + 1] - level_[n]; }

  /// The number of a word; `unknown()` where the model does not list it.
  int32_t find(const std::string& word) const;
  /// The number of `<unk>` (or `<UNK>`), of `<s>` and of `</s>`; -1 where the model has none.
  int32_t unknown() const { return unknown_; }
  int32_t sentence_begin() const { return begin_; }
  int32_t sentence_end() const { return end_; }

  /// The state without context, and the one after `<s>` (without context if there is no `<s>`).
  State empty_state() const { return 0; }
  State begin_state() const;

  /// The probability of word number `word` (0 .. words().size() - 1), and the state after it.
  Step score(State state, int32_t word) const;

  /// The same n-grams as tables, sorted by their words' numbers.
  std::vector<NgramTable> tables() const;

 private:
  int32_t child(int32_t node, int32_t word) const;
  State reduced(int32_t node) const;
  void add_level(const NgramTable& table, int n, const std::string& name);
  int32_t context_of(const NgramTable& table, size_t i, int n, const std::string& name) const;
  void link_suffixes();
  std::string spell(const NgramTable& table, size_t i, int first, int count) const;

  std::vector<std::string> words_;
  std::unordered_map<std::string, int32_t> numbers_;
  int32_t unknown_ = -1, begin_ = -1, end_ = -1;
  // Nodes: 0 is the root, then all unigrams, all bigrams, ...; level_[n] is the first of order n.
  // The children of node i are child_[i] .. child_[i + 1] - 1, sorted by word.
  std::vector<int32_t> level_;
  std::vector<int32_t> word_, suffix_;
  std::vector<float> log_prob_;
  std::vector<float> backoff_;  // of nodes below the highest order
  std::vector<int32_t> child_;  // likewise, and one more
};

/// A text under a model.
struct TextScore {
  double log_prob = 0;  ///< natural; of all words that have a probability, and sentence ends
  double known = 0;     ///< the part of `log_prob` that is not of unknown words
  int64_t sentences = 0, words = 0, unknown = 0;  ///< `words` counts the unknown ones, too

  TextScore& operator+=(const TextScore& other);
  /// exp(-log probability per word and sentence end). Unknown words are left out, or, with
  /// `unknown_words` and if the model has `<unk>`, counted with its probability.
  double perplexity(bool unknown_words = false) const;
  bool scores_unknown = false;  ///< whether `log_prob` has the unknown words in it
};

/// One sentence, begun with `<s>` and ended with `</s>` where the model has them.
TextScore score_sentence(const NgramModel& model, const std::vector<std::string>& words);

/// Reads ARPA text as SRILM, KenLM, IRSTLM and Kaldi's tools write it: any order, columns separated
/// by white space, missing back-off weights are 0, anything may stand before `\data\`. Throws
/// naming line and reason: counts that disagree with the header, words without a unigram, n-grams
/// without their context, repeated n-grams, bad numbers, text that is not UTF-8, a missing `\end\`.
NgramModel parse_arpa(std::string_view text, const std::string& name);
/// The same from a file, plain or `.gz`.
NgramModel read_arpa(const std::string& path);

/// ARPA text with numbers that read back to the same bits.
std::string to_arpa(const NgramModel& model);
/// Writes `to_arpa` atomically; compressed when `path` ends in `.gz`.
void write_arpa(const std::string& path, const NgramModel& model);

}  // namespace centroid::audio
