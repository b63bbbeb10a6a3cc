#pragma once
// Random changes of the sound itself, made anew in every epoch: speed, room, noise, volume.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "apps/audio/sound.h"
#include "apps/audio/speed.h"

namespace centroid::audio {

/// What is done to a training sound, in the order of the members. The defaults do nothing.
struct SoundAugmentOptions {
  std::vector<double> speeds;       ///< one of these factors, all equally likely; none: no change
  std::string reverb;               ///< impulse responses: file, folder or manifest; "": none
  double reverb_probability = 0.5;  ///< that an utterance is put into a room
  std::string noise;                ///< noises: file, folder or manifest; "": none
  double noise_probability = 0.5;   ///< that an utterance gets noise
  double coloured_noise = 0;        ///< probability of Gaussian noise of a random colour
  double noise_snr_min = 10, noise_snr_max = 20;  ///< dB, drawn uniformly
  double gain_min = 0, gain_max = 0;              ///< dB, drawn uniformly

  bool active() const;
  friend bool operator==(const SoundAugmentOptions&, const SoundAugmentOptions&) = default;
};

/// Throws naming the option unless every option is usable.
void validate(const SoundAugmentOptions& options);

/// A stretch of sound to be drawn from.
struct SoundSource {
  std::string path;
  double offset = 0, seconds = 0;
};

/// What `path` stands for: a sound file, all sound files below a folder (by their usual
/// extensions, sorted), or the utterances of a manifest (`.jsonl`). Reads the header of each.
/// Throws when there is none or one cannot be read; `what` begins the message.
std::vector<SoundSource> sound_sources(const std::string& path, const std::string& what);

/// Changes sounds. All that is drawn depends on (seed, epoch, utterance id), each kind of change by
/// a stream of its own: not on batches, order, threads or the other changes. Const and thread-safe.
class SoundAugment {
 public:
  /// For sounds at `rate` Hz. Reads the headers of noises and impulse responses; throws when they
  /// or the options are unusable.
  SoundAugment(const SoundAugmentOptions& options, int rate);

  bool active() const { return options_.active(); }

  /// The factor by which an utterance's speed is changed in this epoch.
  double speed(uint64_t seed, int64_t epoch, std::string_view id) const;

  /// Changes the speed by `factor`, one of the options' or 1.
  Sound change_speed(const Sound& sound, double factor) const;

  /// All other changes, in place. Throws, naming the file, when a noise cannot be read.
  void operator()(Sound& sound, uint64_t seed, int64_t epoch, std::string_view id) const;

  /// The largest and the smallest factor, 1 among them.
  double fastest() const;
  double slowest() const;

 private:
  SoundAugmentOptions options_;
  int rate_;
  std::vector<SpeedChange> speeds_;
  std::vector<SoundSource> noises_, responses_;
};

}  // namespace centroid::audio
