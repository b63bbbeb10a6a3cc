#pragma once
// Error rates of transcripts.
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace centroid::audio {

/// What happened to one symbol.
enum class Edit : char { match = ' ', substitution = 'S', deletion = 'D', insertion = 'I' };

/// One column of an alignment; the missing side of a deletion or insertion is empty.
struct AlignedPair {
  Edit edit = Edit::match;
  std::string ref, hyp;
};

/// What the edits of an alignment cost.
struct AlignCosts {
  int substitution = 1, deletion = 1, insertion = 1;
  /// Of equally cheap alignments take one with fewer substitutions, that is with more matches.
  bool fewest_substitutions = true;
};

/// All edits cost 1: the fewest errors (Levenshtein distance).
inline constexpr AlignCosts kUnitCosts{};
/// The costs of NIST's sclite: a deletion and an insertion together are dearer than a substitution,
/// but cheaper than two. Its alignments have at least as many errors as those of kUnitCosts, for
/// more matches: three substitutions can give way to a match, two deletions and two insertions.
inline constexpr AlignCosts kScliteCosts{4, 3, 3, false};

/// An alignment of the lowest cost. Among equals the one is taken that, from the end, prefers match
/// or substitution, then insertion, then deletion: with kScliteCosts that gives sclite's alignments
/// and counts. O(n m) time and memory. Throws for costs below 1.
std::vector<AlignedPair> align(const std::vector<std::string>& ref,
                               const std::vector<std::string>& hyp,
                               const AlignCosts& costs = kUnitCosts);

/// Counts of edits over any number of utterances.
struct ErrorRate {
  int64_t substitutions = 0, deletions = 0, insertions = 0;
  int64_t tokens = 0;  ///< reference symbols
  int64_t utterances = 0, wrong_utterances = 0;

  void add(const std::vector<AlignedPair>& alignment);
  ErrorRate& operator+=(const ErrorRate& other);

  int64_t correct() const { return tokens - substitutions - deletions; }
  int64_t errors() const { return substitutions + deletions + insertions; }
  /// Errors per reference symbol; may pass 1. Without reference symbols: 0 if there are no errors,
  /// else infinity.
  double rate() const;
};

/// How often each symbol was taken for another.
struct Confusions {
  /// A symbol or pair of symbols and its number; `hyp` is empty for deletions, `ref` for
  /// insertions.
  struct Entry {
    std::string ref, hyp;
    int64_t count = 0;
  };
  void add(const std::vector<AlignedPair>& alignment);
  /// The `n` most frequent of a kind, most frequent first, then by the symbols.
  std::vector<Entry> most_frequent(Edit kind, size_t n) const;

 private:
  std::map<std::tuple<Edit, std::string, std::string>, int64_t> counts_;
};

/// The one-line result: `test PER 28.4 % (sub 15.1 del 8.0 ins 5.3; 1234 tokens)`.
std::string summary(const std::string& set, const std::string& name, const ErrorRate& rate);

/// Three lines `REF:`, `HYP:`, `OP:` whose columns line up on a terminal, wrapped into blocks of at
/// most `width` columns; `***` stands where a side has nothing.
std::string format_alignment(const std::vector<AlignedPair>& alignment, int width = 100);

}  // namespace centroid::audio
