#pragma once
// From what a reader finds to checked manifests and a vocabulary, one utterance at a time.
#include <array>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "apps/audio/check.h"
#include "apps/audio/id_set.h"
#include "apps/audio/problem_log.h"
#include "apps/audio/split.h"
#include "apps/audio/vocab.h"

namespace centroid::audio {

/// What a Preparation does with the utterances.
struct PreparationOptions {
  std::string out;  ///< existing folder for the results
  CheckOptions check;
  std::string vocab;            ///< an existing vocab.json to use; empty: one is made
  bool vocab_from_all = false;  ///< its symbols are those of all sets; false: of the training set
  std::string subword_model;    ///< a file of SentencePiece; empty: a model is trained
  SubwordOptions subwords;
  int subsampling = 4;   ///< input frames per position of the recogniser; 0: not checked
  int rare = 3;          ///< characters and phones seen less often are worth a warning
  bool one_set = false;  ///< everything goes to all.jsonl
};

/// Figures of one set.
struct SetSummary {
  std::string name;
  int64_t utterances = 0, symbols = 0;
  double seconds = 0, shortest = 0, longest = 0;
  IdSet speakers;
  std::set<int32_t> distinct;            ///< numbers of the symbols that occur
  std::map<int64_t, int64_t> histogram;  ///< utterances by their length in tenths of a second

  void add(const Utterance& utterance, const std::vector<int32_t>& labels);
  double mean() const { return utterances > 0 ? seconds / static_cast<double>(utterances) : 0; }
};

/// Takes a corpus utterance by utterance; what it keeps in memory are the hashes of the ids, the
/// symbols, and what the rule for the sets needs. Usable utterances wait in an unnamed file in the
/// folder of the results until the sets and the symbols are known. Sounds are decoded in parallel;
/// the results do not depend on the number of threads.
class Preparation : public Sink {
 public:
  Preparation(PreparationOptions options, std::unique_ptr<Split> split);

  /// The utterances that follow are of this set, whatever the rule says.
  void begin_set(std::optional<Set> set);
  void accept(Utterance utterance, const std::string& place) override;
  void reject(Problem problem) override;

  /// After the last utterance: makes the vocabulary, chooses the sets and writes `problems.tsv`.
  void examine();
  /// Makes the manifests and `vocab.json` appear; with a lexicon also `lexicon.txt`, its words that
  /// occur with all their pronunciations. Only after `examine`, when there is a training set.
  void commit();

  const ProblemLog& problems() const { return problems_; }
  const Vocab& vocab() const { return vocab_; }
  /// Those with a manifest, the training set first.
  const std::vector<SetSummary>& sets() const { return sets_; }
  int64_t usable() const;

 private:
  struct Waiting {
    Utterance utterance;
    std::string place;
    std::optional<Set> set;
  };

  void check_waiting();
  std::optional<Set> set_of(const Utterance& utterance, std::optional<Set> given) const;
  void rewind();
  bool next(Utterance& utterance, std::optional<Set>& set);
  bool has_training_set();
  void make_vocab();
  Vocab make_subwords();
  void write_sets();
  void find_rare_symbols();
  void write_lexicon() const;

  PreparationOptions options_;
  std::unique_ptr<Split> split_;
  ProblemLog problems_;
  std::optional<Set> given_;
  std::vector<Waiting> waiting_;
  IdSet ids_;
  std::fstream spool_;
  Vocab vocab_;
  std::vector<SetSummary> sets_;
  std::vector<std::unique_ptr<ManifestWriter>> writers_;
  std::vector<int64_t> counts_;        // of each symbol in the training set
  std::vector<std::string> examples_;  // the first utterance with each symbol
  std::set<std::string> words_;        // that occur, with a lexicon
};

}  // namespace centroid::audio
