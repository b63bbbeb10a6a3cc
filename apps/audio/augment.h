#pragma once
// SpecAugment: training features with random stretches of time and frequency blanked out
// (Park et al., "SpecAugment: a simple data augmentation method for ASR", Interspeech 2019).
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "apps/audio/features.h"

namespace centroid::audio {

/// Masks per utterance. Widths are drawn uniformly from 0 to the given maximum.
struct SpecAugmentOptions {
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

/// Masks `features` (T, bins) in place. The masks depend on (seed, epoch, utterance id) and the
/// shape only: not on batches, order or threads.
void spec_augment(Features& features, const SpecAugmentOptions& options, uint64_t seed,
                  int64_t epoch, std::string_view utterance_id);

}  // namespace centroid::audio
