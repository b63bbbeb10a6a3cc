#pragma once
// How far time marks lie from those of a reference.
#include <string>
#include <vector>

#include "apps/audio/timed_words.h"

namespace centroid::audio {

/// Summary of signed errors, in seconds; NaN without any.
struct BoundaryStats {
  int64_t count = 0;
  double mean = 0, median = 0;                ///< of absolute values
  double bias = 0;                            ///< median of signed values; above 0: marks are late
  double within_20_ms = 0, within_50_ms = 0;  ///< fractions, inclusive
};
BoundaryStats summarise(std::vector<double> errors);

/// An utterance's id as the name of a file in one folder: `_` for each slash.
std::string file_name(std::string id);

/// Begins and ends of the symbols that occur in both, compared.
struct BoundaryErrors {
  std::vector<double> begins, ends;  ///< of a matched symbol: its time minus the reference's, s
  int64_t missing = 0, surplus = 0;  ///< symbols only in the reference, only in the other

  /// Matches `marks` with `reference` (Levenshtein; only equal symbols count) and adds the errors.
  void add(const std::vector<TimedWord>& reference, const std::vector<TimedWord>& marks);
  /// Begins and ends together.
  BoundaryStats all() const;
};

/// The reference marks of the utterance `id`. `path` is a folder with `ID.lab` or `ID.TextGrid`,
/// in which the tier `tier` is read, or a CTM file, all of which is searched for the recording
/// `id`. Segments whose label is empty or among `pauses` are left out. Throws when there are none
/// for `id`.
class ReferenceMarks {
 public:
  ReferenceMarks(std::string path, std::string tier, std::vector<std::string> pauses);
  std::vector<TimedWord> of(const std::string& id) const;

 private:
  std::string path_, tier_;
  std::vector<std::string> pauses_;
  bool folder_ = false;
  std::vector<std::pair<std::string, TimedWord>> ctm_;  // sorted by recording, in the file's order
};

}  // namespace centroid::audio
