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

  /// The most probable pronunciation of a word, of equal ones the first; null when it is not in
  /// the lexicon.
  const Pronunciation* best(const std::string& word) const;

  const std::vector<std::string>& words() const { return words_; }
  bool empty() const { return words_.empty(); }

  /// Every phone that occurs, sorted.
  std::vector<std::string> phones() const;

 private:
  std::vector<std::string> words_;
  std::unordered_map<std::string, std::vector<Pronunciation>> pronunciations_;
};

/// Parses a lexicon, one pronunciation a line: `word phone phone ...` as Kaldi's lexicon.txt, `word
/// probability phone ...` as its lexiconp.txt (when every line has a number there), or the CMU
/// dictionary's, whose further pronunciations are `word(2) ...`, whose comment lines begin with
/// `;;;` and whose remarks follow a lone `#`. `name` stands for the file in messages. Throws naming
/// file and line.
Lexicon parse_lexicon(const std::string& text, const std::string& name);

/// Reads a lexicon, plain or `.gz`, as parse_lexicon does.
Lexicon read_lexicon(const std::string& path);

/// A lexicon as text that parse_lexicon takes, with probabilities when some are not 1. Throws for
/// words and phones that it would not give back (white space, `word(2)`, a lone `#`, ...).
std::string format_lexicon(const Lexicon& lexicon);

}  // namespace centroid::audio
