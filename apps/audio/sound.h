#pragma once
// Sound files in and out.
#include <cstdint>
#include <string>
#include <vector>

namespace centroid::audio {

/// Mono sound: samples in -1..1 (16-bit files: value / 32768) at `rate` Hz.
struct Sound {
  std::vector<float> samples;
  int rate = 0;

  /// Length in seconds.
  double seconds() const { return rate > 0 ? static_cast<double>(samples.size()) / rate : 0.0; }
};

/// Seconds by which a segment may pass its file's end: the rounding of manifests.
constexpr double kSegmentSlack = 0.01;

/// No sample is larger: full scale is 1, and features of larger ones would be infinite.
constexpr float kLargestSample = 1e6f;

/// Throws naming the file and the frame unless a sample is finite and not too large.
void check_sample(float value, const std::string& path, int64_t frame);

/// Reads any format libsndfile knows (WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, SPHERE, ...).
/// Several channels are averaged. `rate` other than 0: resampled to it (libsamplerate, best sinc).
/// `offset` and `duration` (seconds) select a segment; duration 0 means up to the end. A segment
/// may pass the file's end by kSegmentSlack and then ends there; more is an error.
/// Throws, naming the file, when it is missing, not a sound file, empty, shorter than its header
/// promises (both counts are named), or holds a sample that check_sample refuses.
Sound load_sound(const std::string& path, int rate = 0, double offset = 0, double duration = 0);

/// Seconds of sound in a file, from its header (files whose header does not tell are decoded). Of
/// a truncated file only WAV is recognised here; load_sound recognises the others.
double sound_duration(const std::string& path);

/// Throws as load_sound does for what the header of a file tells: not a sound, empty, cut short.
void check_sound_header(const std::string& path);

/// The same sound at another rate (libsamplerate, best sinc). Throws for a rate below 1 or a ratio
/// beyond 256.
Sound resample(const Sound& sound, int rate);

/// Writes 16-bit mono WAV, atomically. Throws when a sample is NaN or outside -1..1, or when the
/// file cannot be written.
void write_wav(const std::string& path, const Sound& sound);

}  // namespace centroid::audio
