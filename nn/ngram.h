#pragma once
// N-gram models of label sequences, small enough to be written out as an acceptor: what the
// denominator of LF-MMI is made of.
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace centroid::nn {

struct NgramOptions {
  int64_t order = 3;     ///< labels of an n-gram; 0: no model, everything has the weight 1
  int64_t states = 200;  ///< histories of two or more labels at most, the most frequent
  /// Witten-Bell interpolation down to a uniform distribution: every sequence of labels has a
  /// probability. Without it, n-grams that were not seen have none (as in Kaldi's chain models).
  bool smooth = true;
};
void to_json(nlohmann::json& json, const NgramOptions& options);
void from_json(const nlohmann::json& json, NgramOptions& options);

/// Probabilities of the next label, or of the end, given up to order - 1 labels before. A state is
/// a history: all of one symbol are kept (the start of a sequence is one), and the `options.states`
/// most frequent longer ones; others are cut to their longest end that is kept.
class Ngram {
 public:
  /// Labels are 1 .. symbols - 1. Throws for others, for no sequences where order > 0, and for a
  /// model of more than 4 million probabilities.
  Ngram(const std::vector<std::vector<int32_t>>& sequences, int64_t symbols,
        const NgramOptions& options);

  const NgramOptions& options() const { return options_; }
  int64_t symbols() const { return symbols_; }
  int64_t states() const { return static_cast<int64_t>(histories_.size()); }
  /// Before the first label.
  int32_t start() const { return start_; }
  /// The state after `label`.
  int32_t next(int32_t state, int32_t label) const { return next_[at(state, label)]; }
  /// Natural logarithms; -inf for what cannot be. Those of a state's labels and its end sum to 1,
  /// but with order 0.
  double log_prob(int32_t state, int32_t label) const { return log_probs_[at(state, label)]; }
  double log_end(int32_t state) const { return log_probs_[at(state, kEnd)]; }

  /// The counts it was made of, from which reading makes the same model. Reading throws for
  /// anything else.
  friend void to_json(nlohmann::json& json, const Ngram& model);
  static Ngram from(const nlohmann::json& json);

 private:
  using History = std::vector<int32_t>;       // oldest first; kEnd is the start of the sequence
  using Counts = std::map<int32_t, int64_t>;  // of what follows; kEnd is the end
  static constexpr int32_t kEnd = 0;

  Ngram(std::map<History, Counts> counts, int64_t symbols, const NgramOptions& options);
  void count_suffixes();
  void choose_histories();
  void estimate();
  int32_t state_of(History history) const;
  int64_t at(int32_t state, int32_t label) const { return state * symbols_ + label; }

  NgramOptions options_;
  int64_t symbols_;
  std::map<History, Counts> counts_;      // of histories as long as there are
  std::map<History, Counts> by_history_;  // of all their ends
  std::vector<History> histories_;        // by state
  std::map<History, int32_t> states_;
  int32_t start_ = 0;
  std::vector<int32_t> next_;      // (states, symbols)
  std::vector<double> log_probs_;  // (states, symbols); of the end at kEnd
};

}  // namespace centroid::nn
