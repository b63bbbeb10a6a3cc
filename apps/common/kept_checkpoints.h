#pragma once
// The checkpoints of evaluations that a training keeps beside last and best, to be averaged:
// step-0000500.safetensors and so on, listed in checkpoints.json.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace centroid::apps {

/// One kept checkpoint.
struct KeptCheckpoint {
  int64_t step = 0;
  double metric = 0;  ///< of its evaluation, smaller is better; may be NaN
  std::string file;   ///< name inside the folder

  friend bool operator==(const KeptCheckpoint&, const KeptCheckpoint&) = default;
};

/// The `latest` newest and the `best` best evaluations of a run. At most latest + best files (one
/// more while one is written). The list is replaced as a whole, after the new checkpoint is written
/// and before old ones are deleted: whatever it names exists, whenever the program ends.
class KeptCheckpoints {
 public:
  KeptCheckpoints(std::string folder, int64_t latest, int64_t best);

  /// Goes on with what the folder holds up to `step`; later checkpoints are deleted, for the
  /// resumed run comes to them again. Throws if the list is damaged.
  void resume(int64_t step);

  /// Takes the evaluation at `step` into account: if it is among those to keep, calls `save` with
  /// the path to write; then deletes those that no longer are.
  void add(int64_t step, double metric, const std::function<void(const std::string&)>& save);

  const std::vector<KeptCheckpoint>& entries() const { return entries_; }

 private:
  void replace(std::vector<KeptCheckpoint> entries);

  std::string folder_;
  int64_t latest_, best_;
  std::vector<KeptCheckpoint> entries_;  // by step
};

/// The `n` best of `entries`, the best first; of equals the earlier one. NaN is worst.
std::vector<KeptCheckpoint> best_of(std::vector<KeptCheckpoint> entries, size_t n);

/// The list of a run folder, by step; empty when it keeps none. Throws for a damaged list.
std::vector<KeptCheckpoint> read_kept_checkpoints(const std::string& folder);
/// The same from the text of checkpoints.json; `name` stands for the file in messages.
std::vector<KeptCheckpoint> parse_kept_checkpoints(std::string_view json, const std::string& name);

/// Deletes the list and the kept checkpoints of a folder; other files stay.
void remove_kept_checkpoints(const std::string& folder);

}  // namespace centroid::apps
