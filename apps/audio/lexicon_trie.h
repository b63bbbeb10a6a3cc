#pragma once
// A lexicon as a tree of pronunciations: what a decoder may put out next.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "apps/audio/lexicon.h"

namespace centroid::audio {

/// Pronunciations that share their beginnings, in flat arrays. Node 0 is the root.
class LexiconTrie {
 public:
  struct Word {
    int32_t word;     ///< its place in `words()`
    double log_prob;  ///< of the pronunciation
  };

  LexiconTrie() = default;
  /// `tokens` are the symbols of the recogniser, the blank (number 0) first. A pronunciation with
  /// other symbols cannot be heard: throws, naming some of them, or leaves it out with `skip`.
  LexiconTrie(const Lexicon& lexicon, const std::vector<std::string>& tokens, bool skip = false);

  bool empty() const { return token_.size() <= 1; }
  const std::vector<std::string>& words() const { return words_; }
  /// Pronunciations left out.
  int64_t skipped() const { return skipped_; }
  int64_t nodes() const { return static_cast<int64_t>(token_.size()); }

  /// The node after `token`, or -1.
  int32_t child(int32_t node, int32_t token) const;
  bool has_children(int32_t node) const { return child_begin_[node] < child_begin_[node + 1]; }
  /// Whether a pronunciation has this token.
  bool uses(int32_t token) const;
  /// The words that end here.
  std::span<const Word> ends(int32_t node) const {
    return {ends_.data() + end_begin_[node], ends_.data() + end_begin_[node + 1]};
  }
  /// For each node the greatest of `scores` (one a word) of the words that end at or below it.
  std::vector<double> look_ahead(const std::vector<double>& scores) const;

 private:
  struct Entry {
    std::vector<int32_t> tokens;
    Word word;
  };
  void build(const std::vector<Entry>& entries);

  std::vector<std::string> words_;
  int64_t skipped_ = 0;
  // The children of node i are child_begin_[i] .. child_begin_[i + 1] - 1, sorted by token.
  std::vector<int32_t> token_, child_begin_, end_begin_;
  std::vector<Word> ends_;
};

}  // namespace centroid::audio
