#pragma once
// What the tests of apps/audio share.
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "apps/audio/beam.h"
#include "apps/audio/sound.h"
#include "tensor/rng.h"
#include "tests/support.h"

namespace audio_test {

namespace fs = std::filesystem;

/// A temporary folder with the files of a small corpus.
class TempFolder : public centroid::test::TempDir {
 public:
  std::string path() const { return TempDir::path().string(); }

  /// Writes a file (making its folders) and returns its path.
  std::string write(const std::string& name, const std::string& text) const {
    const std::string file = *this / name;
    fs::create_directories(fs::path(file).parent_path());
    std::ofstream(file, std::ios::binary) << text;
    return file;
  }

  /// Writes a short tone as WAV and returns its path.
  std::string write_tone(const std::string& name, double seconds = 0.1, int rate = 16000) const;
};

/// Log probabilities (frames, classes) of random scores.
inline std::vector<double> random_scores(int64_t frames, int64_t classes, centroid::Rng& rng,
                                         double scale = 1.5) {
  std::vector<float> logits(frames * classes);
  for (float& x : logits) x = static_cast<float>(scale * rng.normal());
  return centroid::audio::log_softmax(logits.data(), frames, classes);
}

inline centroid::audio::Sound tone(double hertz, double seconds, int rate, double amplitude = 0.5) {
  centroid::audio::Sound sound{{}, rate};
  const auto n = static_cast<int>(std::lround(seconds * rate));
  for (int i = 0; i < n; ++i) {
    sound.samples.push_back(static_cast<float>(amplitude * std::sin(2 * M_PI * hertz * i / rate)));
  }
  return sound;
}

inline std::string TempFolder::write_tone(const std::string& name, double seconds, int rate) const {
  const std::string file = *this / name;
  fs::create_directories(fs::path(file).parent_path());
  centroid::audio::write_wav(file, tone(440, seconds, rate));
  return file;
}

inline std::string slurp(const std::string& path) { return centroid::test::read_text(path); }

/// The message of the Error that `f` throws, or "<no error>", which no test expects.
template <typename F>
std::string message_of(F f) {
  return centroid::test::error_of(f);
}

}  // namespace audio_test
