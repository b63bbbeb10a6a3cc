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
  field("freq_masks", o.freq_masks);
  field("freq_width", o.freq_width);
  field("time_masks", o.time_masks);
  field("time_width", o.time_width);
  field("time_fraction", o.time_fraction);
  field("fill_mean", o.fill_mean);
};

}  // namespace

void validate(const SpecAugmentOptions& o) {
  for (const auto& [name, value] :
       {std::pair{"freq_masks", o.freq_masks}, std::pair{"freq_width", o.freq_width},
        std::pair{"time_masks", o.time_masks}, std::pair{"time_width", o.time_width}}) {
    CENTROID_CHECK(value >= 0, "specaugment: ", name, ": expected 0 or more, got ", value);
  }
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

void spec_augment(Features& f, const SpecAugmentOptions& options, uint64_t seed, int64_t epoch,
                  std::string_view utterance_id) {
  validate(options);
  if (f.data.empty()) return;
  Rng rng = Rng(seed, "specaugment").fork(static_cast<uint64_t>(epoch)).fork(utterance_id);
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
