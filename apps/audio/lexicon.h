#pragma once
// Pronunciation lexicons: words and the phones they are spoken with.
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace centroid::audio {

/// One way to say a word.
struct Pronunciation {
  std::vector<std::string> phones;
  double log_prob = 0;  ///< natural logarithm of its probability; 0 where the file gives none

  friend bool operator==(const Pronunciation&, const Pronunciation&) = default;
};

/// Words with one or more pronunciations, in the order of the file.
class Lexicon {
 public:
  /// Throws for an empty word, a pronunciation without phones, a probability that is not in (0, 1],
  /// and a pronunciation that the word has already.
  void add(const std::string& word, Pronunciation pronunciation);

  /// The pronunciations of a word; null when it is not in the lexicon.
  const std::vector<Pronunciation>* find(const std::string& word) const;

  const std::vector<std::string>& words() const { return words_; }
  bool empty() const { return words_.empty(); }

  /// Every phone that occurs, sorted.
  std::vector<std::string> phones() const;

 private:
  std::vector<std::string> words_;
  std::unordered_map<std::string, std::vector<Pronunciation>> pronunciations_;
};

/// Reads a lexicon, plain or `.gz`, one pronunciation a line: `word phone phone ...` as Kaldi's
/// lexicon.txt, `word probability phone ...` as its lexiconp.txt (when every line has a number
/// there), or the CMU dictionary's, whose further pronunciations are `word(2) ...` and whose
/// comments begin with `;;;`. Throws naming file and line.
Lexicon read_lexicon(const std::string& path);

}  // namespace centroid::audio
