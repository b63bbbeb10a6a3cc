#pragma once
// SpecAugment: training features warped in time, with random stretches of time and frequency
// blanked out (Park et al., "SpecAugment: a simple data augmentation method for ASR", Interspeech
// 2019).
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "apps/audio/features.h"

namespace centroid::audio {

/// Warp and masks per utterance. Widths are drawn uniformly from 0 to the given maximum.
struct SpecAugmentOptions {
  double probability = 1;  ///< that an utterance is changed at all
  int time_warp = 0;       ///< W: a random frame moves by up to so many frames; 0: none
  int freq_masks = 2;
  int freq_width = 8;  ///< bins
  int time_masks = 2;
  int time_width = 50;         ///< frames
  double time_fraction = 0.2;  ///< all time masks together cover at most this part of an utterance
  bool fill_mean = false;      ///< masked values become the utterance's mean; false: 0

  friend bool operator==(const SpecAugmentOptions&, const SpecAugmentOptions&) = default;
};

/// Throws naming the option unless every option is usable.
void validate(const SpecAugmentOptions& options);

/// JSON with the member names as keys; unknown keys throw.
void to_json(nlohmann::json& json, const SpecAugmentOptions& options);
void from_json(const nlohmann::json& json, SpecAugmentOptions& options);

/// The features (T, bins) with the frame `from` moved to `to` (0 < from, to < T - 1), the first and
/// last frame where they were, and all between them interpolated linearly.
void time_warp(Features& features, int64_t from, int64_t to);

/// Warps `features` (T, bins) in time and masks them, in place. A frame of W < t < T - W moves by
/// -W..W; utterances of T <= 2 W + 2 frames are not warped. All that is drawn depends on (seed,
/// epoch, utterance id) and the shape only: not on batches, order or threads.
void spec_augment(Features& features, const SpecAugmentOptions& options, uint64_t seed,
                  int64_t epoch, std::string_view utterance_id);

}  // namespace centroid::audio
