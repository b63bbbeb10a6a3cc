#pragma once
// Training of n-gram models: interpolated modified Kneser-Ney smoothing (Chen and Goodman, "An
// empirical study of smoothing techniques for language modeling", TR-10-98, Harvard 1998).
#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "apps/audio/arpa.h"

namespace centroid::audio {

struct KneserNeyOptions {
  int order = 3;
  /// n-grams of order n seen at most prune[n - 1] times are left out of the model; the last value
  /// also holds for higher orders. prune[0] is 0 (`min_count` is for words), values do not fall.
  std::vector<int64_t> prune = {0};
  /// Words seen fewer times count as `<unk>`.
  int64_t min_count = 1;
  /// When not empty: the words of the model; all others count as `<unk>`.
  std::vector<std::string> vocabulary;
};

/// What is taken off the counts of one order: `amount[c - 1]` off a count c of 1, 2, 3 or more.
struct Discounts {
  enum class Kind {
    modified,  ///< D1, D2, D3+ of Chen and Goodman, from the counts of counts
    single,    ///< Y = t1 / (t1 + 2 t2) for all counts: those were not in (0, c]
    fixed,     ///< 0.5, 1, 1.5: no n-gram has a count of 1, or none of 2
  };
  std::array<double, 3> amount{};
  Kind kind = Kind::fixed;

  double of(int64_t count) const { return count == 0 ? 0 : amount[count < 3 ? count - 1 : 2]; }
};
std::string name_of(Discounts::Kind kind);

/// Discounts by t[c - 1], how many n-grams have the count c, for c = 1, 2, 3, 4:
///
///   Y = t1 / (t1 + 2 t2),   Dc = c - (c + 1) Y t(c+1) / tc
Discounts discounts_of(const std::array<int64_t, 4>& t);

/// A trained model and how it came about.
struct KneserNey {
  NgramModel model;
  std::vector<Discounts> discounts;  ///< of each order
  std::vector<int64_t> counted;      ///< different n-grams of each order, before pruning
  int64_t sentences = 0, words = 0, unknown = 0;  ///< of the text; unknown ones are in `words`
};

/// Collects sentences and makes models of them.
///
/// With a(g) the number of times an n-gram of the highest order, or one that begins with `<s>`, was
/// seen, and for any other n-gram the number of different words seen before it, the model is
///
///   P(w | h) = (a(h w) - D(a(h w))) / A(h) + bo(h) P(w | h without its first word),
///   A(h) = sum_x a(h x),   bo(h) = sum_x D(a(h x)) / A(h),
///
/// and below the unigrams every word, `</s>` and `<unk>` is equally probable. What is pruned adds
/// its a(h w) to the numerator of bo(h), so that every context's probabilities sum to 1.
class KneserNeyTrainer {
 public:
  KneserNeyTrainer();
  /// `words` without `<s>` and `</s>`, which throw; `<unk>` stands for an unknown word.
  void add(const std::vector<std::string>& words);
  int64_t sentences() const { return sentences_; }
  /// Throws without sentences and for options out of range.
  KneserNey train(const KneserNeyOptions& options) const;

 private:
  std::vector<int32_t> renumber(const KneserNeyOptions& options,
                                std::vector<std::string>* words) const;

  std::vector<std::string> words_;
  std::unordered_map<std::string, int32_t> numbers_;
  std::vector<int64_t> occurrences_;
  std::vector<int32_t> text_;  // <s> word ... </s> <s> ...
  int64_t sentences_ = 0;
};

}  // namespace centroid::audio
