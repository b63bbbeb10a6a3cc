#include "apps/audio/normalize.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tensor/error.h"

namespace centroid::audio {

namespace {

/// Features that are constant over time have no scale; dividing by less would only blow up
/// rounding.
constexpr double kMinStddev = 1e-5;

}  // namespace

void StatsAccumulator::add(const Features& f) {
  if (mean_.empty()) {
    mean_.assign(f.bins, 0.0);
    squares_.assign(f.bins, 0.0);
  }
  CENTROID_CHECK(static_cast<int64_t>(mean_.size()) == f.bins,
                 "statistics: number of bins changed: ", mean_.size(), ", now ", f.bins);
  for (int64_t t = 0; t < f.frames; ++t) {  // Welford's update
    ++count_;
    for (int64_t b = 0; b < f.bins; ++b) {
      const double delta = f.row(t)[b] - mean_[b];
      mean_[b] += delta / static_cast<double>(count_);
      squares_[b] += delta * (f.row(t)[b] - mean_[b]);
    }
  }
}

void StatsAccumulator::merge(const StatsAccumulator& other) {
  if (other.count_ == 0) return;
  if (count_ == 0) {
    *this = other;
    return;
  }
  CENTROID_CHECK(mean_.size() == other.mean_.size(),
                 "statistics: number of bins changed: ", mean_.size(), ", now ",
                 other.mean_.size());
  const auto n = static_cast<double>(count_), m = static_cast<double>(other.count_);
  for (size_t b = 0; b < mean_.size(); ++b) {
    const double delta = other.mean_[b] - mean_[b];
    mean_[b] += delta * m / (n + m);
    squares_[b] += other.squares_[b] + delta * delta * n * m / (n + m);
  }
  count_ += other.count_;
}

GlobalStats StatsAccumulator::finish() const {
  CENTROID_CHECK(count_ > 0, "statistics: no frames were added");
  GlobalStats stats;
  for (size_t b = 0; b < mean_.size(); ++b) {
    stats.mean.push_back(static_cast<float>(mean_[b]));
    const double variance = squares_[b] / static_cast<double>(count_);
    stats.stddev.push_back(static_cast<float>(std::max(std::sqrt(variance), kMinStddev)));
  }
  return stats;
}

void apply(const GlobalStats& stats, Features& f, bool variance) {
  CENTROID_CHECK(
      static_cast<int64_t>(stats.mean.size()) == f.bins && stats.stddev.size() == stats.mean.size(),
      "statistics: expected ", f.bins, " bins, got ", stats.mean.size(), " means and ",
      stats.stddev.size(), " standard deviations");
  for (int64_t t = 0; t < f.frames; ++t) {
    for (int64_t b = 0; b < f.bins; ++b)
      f.row(t)[b] = (f.row(t)[b] - stats.mean[b]) / (variance ? stats.stddev[b] : 1.0f);
  }
}

void raise_maxima(std::vector<float>& maxima, const Features& f) {
  if (f.frames == 0) return;
  if (maxima.empty()) maxima.assign(f.row(0), f.row(0) + f.bins);
  CENTROID_CHECK(static_cast<int64_t>(maxima.size()) == f.bins,
                 "maxima: number of bins changed: ", maxima.size(), ", now ", f.bins);
  for (int64_t t = 0; t < f.frames; ++t) {
    for (int64_t b = 0; b < f.bins; ++b) maxima[b] = std::max(maxima[b], f.row(t)[b]);
  }
}

void limit_range(Features& f, const std::vector<float>& maxima, float range) {
  if (f.frames == 0) return;
  CENTROID_CHECK(static_cast<int64_t>(maxima.size()) == f.bins, "limit_range: expected ", f.bins,
                 " maxima, got ", maxima.size());
  for (int64_t t = 0; t < f.frames; ++t) {
    for (int64_t b = 0; b < f.bins; ++b) f.row(t)[b] = std::max(f.row(t)[b], maxima[b] - range);
  }
}

void normalize_utterance(Features& features, bool variance) {
  if (features.frames == 0) return;
  StatsAccumulator accumulator;
  accumulator.add(features);
  apply(accumulator.finish(), features, variance);
}

void to_json(nlohmann::json& json, const GlobalStats& stats) {
  json = {{"mean", stats.mean}, {"stddev", stats.stddev}};
}

void from_json(const nlohmann::json& json, GlobalStats& stats) {
  try {
    json.at("mean").get_to(stats.mean);
    json.at("stddev").get_to(stats.stddev);
  } catch (const nlohmann::json::exception& error) {
    throw Error(concat("feature statistics: expected mean and stddev lists: ", error.what()));
  }
  CENTROID_CHECK(stats.mean.size() == stats.stddev.size(),
                 "feature statistics: ", stats.mean.size(), " means but ", stats.stddev.size(),
                 " standard deviations");
  for (size_t b = 0; b < stats.mean.size(); ++b) {
    CENTROID_CHECK(
        std::isfinite(stats.mean[b]) && stats.stddev[b] > 0 && std::isfinite(stats.stddev[b]),
        "feature statistics: bin ", b, ": expected a finite mean and a stddev above 0, got ",
        stats.mean[b], " and ", stats.stddev[b]);
  }
}

}  // namespace centroid::audio
