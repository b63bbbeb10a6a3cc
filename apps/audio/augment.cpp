#include "apps/audio/augment.h"

#include <algorithm>
#include <cmath>

#include "apps/audio/fields.h"
#include "tensor/error.h"
#include "tensor/rng.h"

namespace centroid::audio {

namespace {

struct Span {
  int64_t begin, end;
};

/// A stretch of 0..max_width elements anywhere in 0..n.
Span draw_span(Rng& rng, int64_t n, int64_t max_width) {
  const auto width = static_cast<int64_t>(rng.below(std::min(n, max_width) + 1));
  const auto begin = static_cast<int64_t>(rng.below(n - width + 1));
  return {begin, begin + width};
}

float mean_of(const Features& f) {
  double sum = 0;
  for (const float x : f.data) sum += x;
  return static_cast<float>(sum / static_cast<double>(f.data.size()));
}

constexpr auto kFields = [](auto& o, const auto& field) {
  field("probability", o.probability);
  field("time_warp", o.time_warp);
  field("freq_masks", o.freq_masks);
  field("freq_width", o.freq_width);
  field("time_masks", o.time_masks);
  field("time_width", o.time_width);
  field("time_fraction", o.time_fraction);
  field("fill_mean", o.fill_mean);
};

}  // namespace

constexpr int kMostMasks = 1000;

void validate(const SpecAugmentOptions& o) {
  for (const auto& [name, value] :
       {std::pair{"time_warp", o.time_warp}, std::pair{"freq_masks", o.freq_masks},
        std::pair{"freq_width", o.freq_width}, std::pair{"time_masks", o.time_masks},
        std::pair{"time_width", o.time_width}}) {
    CENTROID_CHECK(value >= 0, "specaugment: ", name, ": expected 0 or more, got ", value);
  }
  CENTROID_CHECK(std::max(o.freq_masks, o.time_masks) <= kMostMasks, "specaugment: expected at ",
                 "most ", kMostMasks, " masks, got ", std::max(o.freq_masks, o.time_masks));
  CENTROID_CHECK(o.probability >= 0 && o.probability <= 1,
                 "specaugment: probability: expected 0..1, got ", o.probability);
  CENTROID_CHECK(o.time_fraction >= 0 && o.time_fraction <= 1,
                 "specaugment: time_fraction: expected 0..1, got ", o.time_fraction);
}

void to_json(nlohmann::json& json, const SpecAugmentOptions& options) {
  json = write_fields(options, kFields);
}

void from_json(const nlohmann::json& json, SpecAugmentOptions& options) {
  read_fields(json, options, kFields, "specaugment");
  validate(options);
}

void time_warp(Features& f, int64_t from, int64_t to) {
  const int64_t last = f.frames - 1;
  CENTROID_CHECK(from > 0 && from < last && to > 0 && to < last,
                 "time_warp: expected frames inside 0..", last, ", got ", from, " and ", to);
  std::vector<float> warped(f.data.size());
  for (int64_t t = 0; t <= last; ++t) {
    // Where frame t comes from: on the line through (0, 0), (to, from) and (last, last).
    const double source =
        t <= to ? static_cast<double>(t * from) / static_cast<double>(to)
                : static_cast<double>(from) + static_cast<double>((t - to) * (last - from)) /
                                                  static_cast<double>(last - to);
    const int64_t left = std::min(static_cast<int64_t>(source), last - 1);
    const auto part = static_cast<float>(source - static_cast<double>(left));
    for (int64_t b = 0; b < f.bins; ++b) {
      warped[t * f.bins + b] = (1 - part) * f.row(left)[b] + part * f.row(left + 1)[b];
    }
  }
  f.data = std::move(warped);
}

void spec_augment(Features& f, const SpecAugmentOptions& options, uint64_t seed, int64_t epoch,
                  std::string_view utterance_id) {
  validate(options);
  if (f.data.empty()) return;
  Rng rng = Rng(seed, "specaugment").fork(static_cast<uint64_t>(epoch)).fork(utterance_id);
  if (options.probability < 1 && !rng.fork("apply").bernoulli(options.probability)) return;
  if (const int64_t w = options.time_warp; w > 0 && f.frames > 2 * w + 2) {
    Rng warp = rng.fork("warp");
    const auto from = w + 1 + static_cast<int64_t>(warp.below(f.frames - 2 * w - 2));
    time_warp(f, from, from - w + static_cast<int64_t>(warp.below(2 * w + 1)));
  }
  const float fill = options.fill_mean ? mean_of(f) : 0.0f;
  for (int m = 0; m < options.freq_masks; ++m) {
    const Span span = draw_span(rng, f.bins, options.freq_width);
    for (int64_t t = 0; t < f.frames; ++t)
      std::fill(f.row(t) + span.begin, f.row(t) + span.end, fill);
  }
  if (options.time_masks == 0) return;
  // Equal shares of the budget: even if no two masks overlap, together they stay within it.
  const auto budget =
      static_cast<int64_t>(std::floor(options.time_fraction * static_cast<double>(f.frames)));
  const int64_t width = std::min<int64_t>(options.time_width, budget / options.time_masks);
  for (int m = 0; m < options.time_masks; ++m) {
    const Span span = draw_span(rng, f.frames, width);
    std::fill(f.row(span.begin), f.row(span.end), fill);
  }
}

}  // namespace centroid::audio
