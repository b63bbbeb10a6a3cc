#pragma once
// The list of everything that is wrong with a corpus.
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "apps/audio/prepare.h"
#include "tensor/file.h"

namespace centroid::audio {

/// Writes problems to a file of tab-separated columns `kind`, `id`, `what` under a header, where
/// tabs, line ends and backslashes are written `\t`, `\n`, `\\`, and counts them.
class ProblemLog {
 public:
  static constexpr size_t kKept = 20;

  /// The file appears, whole, with `commit`.
  explicit ProblemLog(const std::string& path);
  void add(const Problem& problem);
  void commit();

  int64_t count(ProblemKind kind) const { return counts_[static_cast<size_t>(kind)]; }
  /// Problems whose utterance cannot be used, and others.
  int64_t faults() const;
  int64_t warnings() const;
  /// The first kKept problems.
  const std::vector<Problem>& first() const { return first_; }

 private:
  AtomicFile file_;
  std::string buffer_;
  std::array<int64_t, kProblemKinds> counts_{};
  std::vector<Problem> first_;
};

/// Reads the file of a ProblemLog. Throws naming file and line.
std::vector<Problem> read_problems(const std::string& path);

}  // namespace centroid::audio
