#pragma once
// Speech in miniature for tests: each letter of a transcript is a tone of its own.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "apps/audio/sound.h"
#include "tensor/rng.h"

namespace centroid::test {

/// Writes `count` WAV files u00.wav, u01.wav, ... (8 kHz, 0.3 to 0.8 s) and transcripts.tsv
/// (`file<TAB>text`, letters a to d) into `folder`.
inline void make_tones(const std::string& folder, int count, uint64_t seed = 1) {
  std::filesystem::create_directories(folder);
  std::ofstream table(folder + "/transcripts.tsv");
  const int rate = 8000;
  for (int i = 0; i < count; ++i) {
    Rng rng(seed, "tone" + std::to_string(i));
    audio::Sound sound{{}, rate};
    std::string text;
    for (uint64_t n = 3 + rng.below(5); n > 0; --n) {
      const uint64_t letter = rng.below(4);
      text += static_cast<char>('a' + letter);
      const int samples = 700 + static_cast<int>(rng.below(300));
      for (int s = 0; s < samples; ++s) {
        const double fade = std::sin(M_PI * s / samples);
        const double tone = std::sin(2 * M_PI * (400 + 600.0 * letter) * s / rate);
        sound.samples.push_back(static_cast<float>(0.3 * fade * tone + 0.01 * rng.normal()));
      }
    }
    const std::string name = std::string("u") + (i < 10 ? "0" : "") + std::to_string(i) + ".wav";
    audio::write_wav(folder + "/" + name, sound);
    table << name << "\t" << text << "\n";
  }
}

}  // namespace centroid::test
