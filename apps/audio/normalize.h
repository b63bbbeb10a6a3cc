#pragma once
// Features with mean 0 and, if wanted, deviation 1: of an utterance, a speaker or a corpus; and
// limits to how far below the loudest they may lie.
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "apps/audio/features.h"

namespace centroid::audio {

/// The maximum of each column over time; `maxima` holds those of what came before, or nothing.
/// Throws when the number of columns changes.
void raise_maxima(std::vector<float>& maxima, const Features& features);

/// Raises what lies more than `range` below the maximum of its column to maximum - range. Throws
/// when the number of columns differs.
void limit_range(Features& features, const std::vector<float>& maxima, float range);

/// Makes each column's mean over time 0 and, if `variance`, its standard deviation 1.
void normalize_utterance(Features& features, bool variance = true);

/// Mean and standard deviation per column over a corpus or a speaker.
struct GlobalStats {
  std::vector<float> mean, stddev;
};
void to_json(nlohmann::json& json, const GlobalStats& stats);
void from_json(const nlohmann::json& json, GlobalStats& stats);

/// Accumulates GlobalStats in double; the result depends on the order of the utterances only
/// through rounding.
class StatsAccumulator {
 public:
  /// Throws when the number of columns changes.
  void add(const Features& features);
  /// Adds all that `other` was given (Chan, Golub, LeVeque, "Updating formulae and a pairwise
  /// algorithm for computing sample variances", 1979).
  void merge(const StatsAccumulator& other);
  /// Throws when no frame was added.
  GlobalStats finish() const;
  int64_t frames() const { return count_; }

 private:
  int64_t count_ = 0;
  std::vector<double> mean_, squares_;  // running mean, sum of squared deviations
};

/// (x - mean) / stddev per column, or x - mean without `variance`. Throws when the number of
/// columns differs.
void apply(const GlobalStats& stats, Features& features, bool variance = true);

}  // namespace centroid::audio
