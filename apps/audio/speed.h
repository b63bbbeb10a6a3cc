#pragma once
// Sound played faster or slower: tempo and pitch change together.
#include <vector>

#include "apps/audio/sound.h"

namespace centroid::audio {

/// Changes speed by one factor, as `sox speed` does (Ko et al., "Audio augmentation for speech
/// recognition", Interspeech 2015): resampling by windowed sinc, with the filter of every phase
/// made once. Fast enough to be used on the fly, which the resampling of load_sound is not.
class SpeedChange {
 public:
  /// `factor` 0.25..4 (above 1 is faster), of sounds at `rate`; rate * factor is rounded to 1 Hz.
  /// Throws for other factors and rates below 1.
  SpeedChange(int rate, double factor);

  /// n samples -> ceil(n / factor) samples at the same rate. Throws for another rate.
  Sound operator()(const Sound& sound) const;

  double factor() const { return factor_; }

 private:
  int rate_;
  double factor_;
  int64_t up_, down_;           // the factor, down / up, in lowest terms
  int64_t reach_ = 0;           // samples on each side that a filter uses
  std::vector<float> filters_;  // (up, 2 reach): output k is filter k * down % up
};

}  // namespace centroid::audio
