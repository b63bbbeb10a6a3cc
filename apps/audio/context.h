#pragma once
// Frames that know of their neighbours: dynamic features, and frames joined to one.
#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "apps/audio/features.h"

namespace centroid::audio {

/// Dynamic features, those of Kaldi's `add-deltas` (Furui, "Speaker-independent isolated word
/// recognition using dynamic features of speech spectrum", 1986).
struct DeltaOptions {
  int order = 0;   ///< 0: none; 1: slopes; 2: slopes and slopes of the slopes; ...
  int window = 2;  ///< frames on each side that a slope is fitted to

  friend bool operator==(const DeltaOptions&, const DeltaOptions&) = default;
};

/// Throws naming the option unless both are usable: order 0..9, window 1..1000.
void validate(const DeltaOptions& options);

/// JSON with the member names as keys; unknown keys throw.
void to_json(nlohmann::json& json, const DeltaOptions& options);
void from_json(const nlohmann::json& json, DeltaOptions& options);

/// Appends the derivatives: (T, bins) -> (T, (1 + order) bins), statics first. The first one is the
/// slope sum_j j x[t + j] / sum_j j^2 for j = -window..window, each further one that filter once
/// more; the first and last frame are repeated beyond the ends.
Features add_deltas(const Features& features, const DeltaOptions& options);

/// Joins `stack` consecutive frames and moves on by `stride`: (T, bins) -> (ceil(T / stride), stack
/// * bins); beyond the end the last frame is repeated, so that no frame is lost.
Features stack_frames(const Features& features, int64_t stack, int64_t stride);

}  // namespace centroid::audio
