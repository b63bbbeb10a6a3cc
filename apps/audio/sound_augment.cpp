#include "apps/audio/sound_augment.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "apps/audio/files.h"
#include "apps/audio/manifest.h"
#include "apps/audio/mix.h"
#include "tensor/error.h"
#include "tensor/rng.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

constexpr const char* kExtensions[] = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".sph"};
constexpr double kMaxDecibel = 120;  // beyond it nothing of the other sound is left

Rng stream_of(uint64_t seed, int64_t epoch, std::string_view id) {
  return Rng(seed, "sound-augment").fork(static_cast<uint64_t>(epoch)).fork(id);
}

double between(Rng& rng, double low, double high) { return low + (high - low) * rng.uniform(); }

std::vector<float> whole(const SoundSource& source, int rate) {
  return load_sound(source.path, rate, source.offset, source.seconds).samples;
}

/// A random stretch of at least `count` samples, or all of a shorter noise from a random sample on.
std::vector<float> draw_noise(const SoundSource& source, size_t count, int rate, Rng& rng) {
  const double needed = static_cast<double>(count) / rate;
  if (source.seconds > needed) {
    const double begin = source.offset + between(rng, 0, source.seconds - needed);
    return load_sound(source.path, rate, begin, needed).samples;
  }
  std::vector<float> samples = whole(source, rate);
  const auto begin = static_cast<int64_t>(rng.below(samples.size()));
  std::rotate(samples.begin(), samples.begin() + begin, samples.end());
  return samples;
}

void check_range(const char* name, double low, double high) {
  CENTROID_CHECK(std::abs(low) <= kMaxDecibel && std::abs(high) <= kMaxDecibel && low <= high,
                 "augment: ", name, ": expected min <= max within +-", kMaxDecibel, " dB, got ",
                 low, " and ", high);
}

}  // namespace

bool SoundAugmentOptions::active() const {
  const bool speed = std::any_of(speeds.begin(), speeds.end(), [](double s) { return s != 1; });
  return speed || (!reverb.empty() && reverb_probability > 0) ||
         (!noise.empty() && noise_probability > 0) || coloured_noise > 0 || gain_min != 0 ||
         gain_max != 0;
}

void validate(const SoundAugmentOptions& o) {
  for (const double factor : o.speeds) {
    CENTROID_CHECK(factor >= 0.25 && factor <= 4, "augment: speed: expected factors of 0.25..4, ",
                   "got ", factor);
  }
  for (const auto& [name, value] :
       {std::pair{"noise", o.noise_probability}, std::pair{"reverb", o.reverb_probability},
        std::pair{"coloured noise", o.coloured_noise}}) {
    CENTROID_CHECK(value >= 0 && value <= 1, "augment: ", name, " probability: expected 0..1, got ",
                   value);
  }
  check_range("noise SNR", o.noise_snr_min, o.noise_snr_max);
  check_range("gain", o.gain_min, o.gain_max);
}

std::vector<SoundSource> sound_sources(const std::string& path, const std::string& what) {
  std::vector<SoundSource> sources;
  const auto add = [&](const std::string& file, double offset, double seconds) {
    try {
      const double length = sound_duration(file) - offset;
      sources.push_back({file, offset, seconds > 0 ? seconds : length});
      CENTROID_CHECK(length > 0, file, ": no sound after ", offset, " s");
      CENTROID_CHECK(seconds <= length + kSegmentSlack, file, ": the segment ends at ",
                     offset + seconds, " s, the sound at ", offset + length, " s");
    } catch (const Error& error) {
      throw Error(concat(what, ": ", error.what()));
    }
  };
  if (fs::is_directory(path)) {
    std::vector<std::string> files;
    for (const char* extension : kExtensions) {
      for (const std::string& file : list_files(path, extension)) files.push_back(file);
    }
    std::sort(files.begin(), files.end());
    for (const std::string& file : files) add((fs::path(path) / file).string(), 0, 0);
    CENTROID_CHECK(!sources.empty(), what, ": ", path, ": expected sound files below this folder, ",
                   "found none (.wav, .flac, .ogg, .opus, .mp3, .aiff, .sph)");
  } else if (path.ends_with(".jsonl")) {
    ManifestReader reader(path);
    for (Utterance u; reader.next(u);) add(u.audio, u.offset, u.duration);
    CENTROID_CHECK(!sources.empty(), what, ": ", path,
                   ": expected a line for each sound, got none");
  } else {
    add(path, 0, 0);
  }
  return sources;
}

SoundAugment::SoundAugment(const SoundAugmentOptions& options, int rate)
    : options_(options), rate_(rate) {
  validate(options_);
  for (const double factor : options_.speeds) speeds_.emplace_back(rate, factor);
  if (!options_.noise.empty()) noises_ = sound_sources(options_.noise, "augment: noise");
  if (!options_.reverb.empty()) responses_ = sound_sources(options_.reverb, "augment: reverb");
}

double SoundAugment::speed(uint64_t seed, int64_t epoch, std::string_view id) const {
  if (speeds_.empty()) return 1;
  return speeds_[stream_of(seed, epoch, id).fork("speed").below(speeds_.size())].factor();
}

Sound SoundAugment::change_speed(const Sound& sound, double factor) const {
  if (factor == 1) return sound;
  for (const SpeedChange& change : speeds_) {
    if (change.factor() == factor) return change(sound);
  }
  throw Error(concat("augment: speed: ", factor, " is not one of the options' factors"));
}

void SoundAugment::operator()(Sound& sound, uint64_t seed, int64_t epoch,
                              std::string_view id) const {
  CENTROID_CHECK(sound.rate == rate_, "augment: expected a sound at ", rate_, " Hz, got ",
                 sound.rate, " Hz");
  const Rng stream = stream_of(seed, epoch, id);
  Rng room = stream.fork("reverb"), noise = stream.fork("noise"), gain = stream.fork("gain"),
      colour = stream.fork("coloured-noise");
  if (!responses_.empty() && room.bernoulli(options_.reverb_probability)) {
    const SoundSource& source = responses_[room.below(responses_.size())];
    reverberate(sound, {whole(source, rate_), rate_});
  }
  if (!noises_.empty() && noise.bernoulli(options_.noise_probability)) {
    const SoundSource& source = noises_[noise.below(noises_.size())];
    const double snr = between(noise, options_.noise_snr_min, options_.noise_snr_max);
    add_noise(sound, draw_noise(source, sound.samples.size(), rate_, noise), snr);
  }
  if (colour.bernoulli(options_.coloured_noise)) {
    const double snr = between(colour, options_.noise_snr_min, options_.noise_snr_max);
    add_noise(sound, coloured_noise(sound.samples.size(), colour), snr);
  }
  if (options_.gain_min != 0 || options_.gain_max != 0) {
    const double decibel = between(gain, options_.gain_min, options_.gain_max);
    const auto scale = static_cast<float>(std::pow(10.0, decibel / 20));
    for (float& x : sound.samples) x *= scale;
  }
}

double SoundAugment::fastest() const {
  double most = 1;
  for (const SpeedChange& change : speeds_) most = std::max(most, change.factor());
  return most;
}

double SoundAugment::slowest() const {
  double least = 1;
  for (const SpeedChange& change : speeds_) least = std::min(least, change.factor());
  return least;
}

}  // namespace centroid::audio
