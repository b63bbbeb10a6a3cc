#pragma once
// Error rates of transcripts.
#include <cstdint>
#include <string>
#include <vector>

namespace centroid::audio {

/// What happened to one symbol.
enum class Edit : char { match = ' ', substitution = 'S', deletion = 'D', insertion = 'I' };

/// One column of an alignment; the missing side of a deletion or insertion is empty.
struct AlignedPair {
  Edit edit = Edit::match;
  std::string ref, hyp;
};

/// An alignment with the fewest edits (Levenshtein, all costs 1). Among equals the one is taken
/// that, from the end, prefers match or substitution, then deletion, then insertion.
std::vector<AlignedPair> align(const std::vector<std::string>& ref,
                               const std::vector<std::string>& hyp);

/// Counts of edits over any number of utterances.
struct ErrorRate {
  int64_t substitutions = 0, deletions = 0, insertions = 0;
  int64_t tokens = 0;  ///< reference symbols
  int64_t utterances = 0, wrong_utterances = 0;

  void add(const std::vector<AlignedPair>& alignment);
  ErrorRate& operator+=(const ErrorRate& other);

  int64_t errors() const { return substitutions + deletions + insertions; }
  /// Errors per reference symbol; may pass 1. Without reference symbols: 0 if there are no errors,
  /// else infinity.
  double rate() const;
};

/// The one-line result: `test PER 28.4 % (sub 15.1 del 8.0 ins 5.3; 1234 tokens)`.
std::string summary(const std::string& set, const std::string& name, const ErrorRate& rate);

/// Three lines `REF:`, `HYP:`, `OP:` whose columns line up on a terminal, wrapped into blocks of at
/// most `width` columns; `***` stands where a side has nothing.
std::string format_alignment(const std::vector<AlignedPair>& alignment, int width = 100);

}  // namespace centroid::audio
