// Speed, rooms, noise and volume: beside plain computations, and on what they depend.
#include "apps/audio/sound_augment.h"

#include <algorithm>
#include <set>

#include "apps/audio/mix.h"
#include "tensor/rng.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using centroid::Rng;

namespace {

std::vector<float> noise(size_t n, uint64_t seed) {
  Rng rng(seed, "test");
  std::vector<float> samples;
  for (size_t i = 0; i < n; ++i) samples.push_back(static_cast<float>(0.1 * rng.normal()));
  return samples;
}

/// 10 log10 of the power of `a` over that of a - b, over the samples both have but the ends.
double snr_of(const std::vector<float>& a, const std::vector<float>& b, size_t edge) {
  double power = 0, error = 0;
  for (size_t i = edge; i + edge < std::min(a.size(), b.size()); ++i) {
    power += double{a[i]} * a[i];
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  }
  return 10 * std::log10(power / error);
}

Sound changed(const SoundAugmentOptions& o, const Sound& sound, uint64_t seed, int64_t epoch,
              const std::string& id) {
  const SoundAugment augment(o, sound.rate);
  Sound result = augment.change_speed(sound, augment.speed(seed, epoch, id));
  augment(result, seed, epoch, id);
  return result;
}

}  // namespace

TEST_CASE("Speed changes length and pitch of tones exactly", "[augment]") {
  for (const int rate : {16000, 8000, 11025}) {
    for (const double factor : {0.9, 1.1, 0.95, 1.5, 0.5}) {
      const double hertz = 0.05 * rate;
      const Sound sound = tone(hertz, 0.3, rate);
      const SpeedChange change(rate, factor);
      const Sound got = change(sound);
      INFO(rate << " Hz, factor " << factor);
      CHECK(got.rate == rate);
      const double exact = std::round(rate * factor) / rate;
      CHECK(static_cast<double>(got.samples.size()) ==
            std::ceil(static_cast<double>(sound.samples.size()) / exact - 1e-9));
      const Sound want = tone(hertz * exact, got.seconds(), rate);
      CHECK(snr_of(want.samples, got.samples, 200) > 70);
    }
  }
}

TEST_CASE("Speed removes what the new rate cannot hold, and keeps the rest", "[augment]") {
  const SpeedChange faster(16000, 1.25);  // 7.5 kHz would become 9.375 kHz
  const Sound high = tone(7500, 0.3, 16000), low = tone(3000, 0.3, 16000);
  CHECK(power_of(faster(high).samples) < 1e-5 * power_of(high.samples));
  CHECK(power_of(faster(low).samples) == Approx(power_of(low.samples)).epsilon(0.01));
  const Sound same = SpeedChange(16000, 1.0)(low);
  CHECK(same.samples == low.samples);
  for (const size_t n : {0, 1, 2, 7, 100}) {
    const Sound brief = SpeedChange(16000, 0.9)({noise(n, 1), 16000});
    CHECK(brief.samples.size() == static_cast<size_t>(std::ceil(static_cast<double>(n) / 0.9)));
  }
  CHECK_THAT(message_of([] { SpeedChange(16000, 0.1); }), Contains("0.25..4, got 0.1"));
  CHECK_THAT(message_of([] { SpeedChange(16000, NAN); }), Contains("0.25..4"));
  CHECK_THAT(message_of([] { SpeedChange(0, 1); }), Contains("rate"));
  CHECK_THAT(message_of([&] { SpeedChange(8000, 0.9)(low); }), Contains("8000 Hz, got 16000"));
}

TEST_CASE("Convolution equals the sum over all products", "[augment]") {
  for (const auto& [n, m] : {std::pair{1, 1}, std::pair{7, 1}, std::pair{1, 5}, std::pair{100, 33},
                             std::pair{257, 300}}) {
    const std::vector<float> x = noise(n, 1), h = noise(m, 2), got = convolve(x, h);
    REQUIRE(got.size() == x.size() + h.size() - 1);
    std::vector<double> want(got.size(), 0.0);
    for (size_t i = 0; i < x.size(); ++i) {
      for (size_t j = 0; j < h.size(); ++j) want[i + j] += double{x[i]} * h[j];
    }
    for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(want[i]).margin(1e-6));
  }
  CHECK(convolve({}, {1.0f}).empty());
  CHECK(convolve({1.0f}, {}).empty());
}

TEST_CASE("Reverberation keeps time, length and power", "[augment]") {
  const Sound dry{noise(1000, 1), 16000};
  Sound wet = dry;
  reverberate(wet, {{0.0f, 0.0f, -0.5f, 0.0f}, 16000});  // one late, inverted copy
  CHECK(wet.samples.size() == 1000);
  for (int i = 0; i < 1000; ++i) CHECK(wet.samples[i] == Approx(-dry.samples[i]).margin(1e-5));
  wet = dry;
  reverberate(wet, {{0.1f, 1.0f, 0.5f, 0.25f}, 16000});
  CHECK(power_of(wet.samples) == Approx(power_of(dry.samples)));
  CHECK(wet.samples != dry.samples);
  wet = dry;
  reverberate(wet, {{0.0f, 0.0f}, 16000});
  CHECK(wet.samples == dry.samples);
  CHECK_THAT(message_of([&] { reverberate(wet, {{1.0f}, 8000}); }), Contains("16000 Hz, got 8000"));
}

TEST_CASE("Noise has the ratio that was asked for, and is repeated", "[augment]") {
  const Sound clean{noise(1000, 1), 16000};
  for (const double snr : {-5.0, 0.0, 10.0, 20.0}) {
    for (const size_t n : {1000, 1500, 300}) {
      Sound noisy = clean;
      const std::vector<float> added = noise(n, 2);
      add_noise(noisy, added, snr);
      CHECK(snr_of(clean.samples, noisy.samples, 0) == Approx(snr).margin(0.01));
      const double a = noisy.samples[0] - clean.samples[0],
                   b = noisy.samples[n % 1000] - clean.samples[n % 1000];
      if (n < 1000) CHECK(a == Approx(b).epsilon(1e-3));
    }
  }
  Sound silent{std::vector<float>(10, 0.0f), 16000}, same = clean;
  add_noise(silent, noise(10, 1), 0);
  CHECK(power_of(silent.samples) == 0);
  add_noise(same, std::vector<float>(10, 0.0f), 0);
  add_noise(same, {}, 0);
  CHECK(same.samples == clean.samples);
}

TEST_CASE("Sound augmentation depends on seed, epoch and utterance alone", "[augment]") {
  TempFolder dir;
  dir.write_tone("noise/a.wav", 0.5);
  dir.write_tone("noise/deep/b.wav", 0.05);
  dir.write_tone("rooms/r.wav", 0.01);
  SoundAugmentOptions o;
  o.speeds = {0.9, 1.0, 1.1};
  o.noise = dir / "noise";
  o.reverb = dir / "rooms";
  o.gain_min = -6;
  o.gain_max = 6;
  const Sound sound{noise(3000, 1), 16000};
  const auto run = [&](uint64_t seed, int64_t epoch, const char* id) {
    return changed(o, sound, seed, epoch, id).samples;
  };
  CHECK(run(1, 2, "a") == run(1, 2, "a"));
  CHECK(run(1, 2, "a") != run(2, 2, "a"));
  CHECK(run(1, 2, "a") != run(1, 3, "a"));
  CHECK(run(1, 2, "a") != run(1, 2, "b"));

  // Leaving one kind out does not change what is drawn for another.
  SoundAugmentOptions only_gain;
  only_gain.gain_min = -6;
  only_gain.gain_max = 6;
  SoundAugmentOptions also_speed = only_gain;
  also_speed.speeds = {1.0, 1.0};
  CHECK(changed(only_gain, sound, 1, 5, "u").samples ==
        changed(also_speed, sound, 1, 5, "u").samples);
}

TEST_CASE("Everything that can be drawn is drawn, as often as was asked for", "[augment]") {
  TempFolder dir;
  dir.write_tone("noise/a.wav", 0.5);
  const Sound sound{noise(400, 1), 16000};
  SoundAugmentOptions o;
  o.speeds = {0.9, 1.0, 1.1};
  o.gain_min = -6;
  o.gain_max = 2;
  const SoundAugment augment(o, 16000);
  CHECK(augment.fastest() == 1.1);
  CHECK(augment.slowest() == 0.9);
  std::set<double> speeds;
  double least = 0, most = 0;
  for (int epoch = 0; epoch < 200; ++epoch) {
    speeds.insert(augment.speed(1, epoch, "u"));
    Sound s = sound;
    augment(s, 1, epoch, "u");
    const double db = 10 * std::log10(power_of(s.samples) / power_of(sound.samples));
    least = std::min(least, db);
    most = std::max(most, db);
  }
  CHECK(speeds == std::set<double>{0.9, 1.0, 1.1});
  CHECK(least >= -6.001);
  CHECK(least < -5.5);
  CHECK(most <= 2.001);
  CHECK(most > 1.5);

  o = {};
  o.noise = dir / "noise/a.wav";
  o.noise_probability = 0.25;
  o.noise_snr_min = o.noise_snr_max = 15;
  const SoundAugment noisy(o, 16000);
  int count = 0;
  for (int epoch = 0; epoch < 200; ++epoch) {
    Sound s = sound;
    noisy(s, 1, epoch, "u");
    if (s.samples == sound.samples) continue;
    ++count;
    CHECK(snr_of(sound.samples, s.samples, 0) == Approx(15).margin(0.1));
  }
  CHECK(count > 30);
  CHECK(count < 75);
}

TEST_CASE("Coloured noise is Gaussian noise of many slopes, as often and as loud as asked for",
          "[augment]") {
  const Sound sound{noise(4000, 1), 16000};
  SoundAugmentOptions o;
  o.coloured_noise = 0.5;
  o.noise_snr_min = 5;
  o.noise_snr_max = 15;
  const SoundAugment augment(o, 16000);
  int count = 0;
  double least = 99, most = -99, highest = 1, lowest = -1;
  for (int epoch = 0; epoch < 200; ++epoch) {
    Sound s = sound;
    augment(s, 1, epoch, "u");
    if (s.samples == sound.samples) continue;
    ++count;
    const double snr = snr_of(sound.samples, s.samples, 0);
    least = std::min(least, snr);
    most = std::max(most, snr);
    double power = 0, next = 0;  // the correlation of neighbours tells low from high frequencies
    for (size_t i = 1; i < s.samples.size(); ++i) {
      const double a = s.samples[i - 1] - sound.samples[i - 1], b = s.samples[i] - sound.samples[i];
      power += b * b;
      next += a * b;
    }
    highest = std::min(highest, next / power);
    lowest = std::max(lowest, next / power);
  }
  CHECK(count > 70);
  CHECK(count < 130);
  CHECK(least > 4.99);
  CHECK(least < 6);
  CHECK(most < 15.01);
  CHECK(most > 14);
  CHECK(highest < -0.5);
  CHECK(lowest > 0.9);
  Rng rng(1);
  CHECK(coloured_noise(0, rng).empty());
}

TEST_CASE("Noises come from a file, a folder or a manifest", "[augment]") {
  TempFolder dir;
  dir.write_tone("n/b.wav", 0.5);
  dir.write_tone("n/a/c.wav", 0.2);
  dir.write("n/readme.txt", "no sound");
  const auto folder = sound_sources(dir / "n", "noise");
  REQUIRE(folder.size() == 2);
  CHECK(folder[0].path == dir / "n/a/c.wav");
  CHECK(folder[0].seconds == Approx(0.2));
  const std::string manifest =
      dir.write("n.jsonl",
                "{\"audio\": \"n/b.wav\", \"offset\": 0.1, \"duration\": 0.2}\n"
                "{\"audio\": \"n/a/c.wav\"}\n");
  const auto listed = sound_sources(manifest, "noise");
  REQUIRE(listed.size() == 2);
  CHECK(listed[0].offset == 0.1);
  CHECK(listed[0].seconds == 0.2);
  CHECK(listed[1].seconds == Approx(0.2));
  CHECK(sound_sources(dir / "n/b.wav", "noise").size() == 1);

  std::filesystem::create_directories(dir / "empty");
  const auto says = [](const std::string& path, const char* what) {
    CHECK_THAT(message_of([&] { sound_sources(path, "augment: noise"); }),
               Contains("augment: noise") && Contains(what));
  };
  says(dir / "empty", "found none");
  says(dir / "missing.wav", "no such file");
  says(dir.write("bad.wav", "text"), "not a sound file");
  says(dir.write("late.jsonl", "{\"audio\": \"n/b.wav\", \"offset\": 9}\n"), "no sound after");
  CHECK_THROWS_AS(sound_sources(dir / "missing.jsonl", "noise"), centroid::Error);
  // Files are looked into before the first is drawn, also where the manifest has their durations.
  says(dir.write("broken.jsonl", "{\"audio\": \"bad.wav\", \"duration\": 1}\n"),
       "not a sound file");
  says(dir.write("short.jsonl", "{\"audio\": \"n/b.wav\", \"duration\": 99}\n"),
       "the segment ends at 99 s");
}

TEST_CASE("Unusable augmentation is refused by name", "[augment]") {
  const auto says = [](auto change, const char* what) {
    SoundAugmentOptions o;
    change(o);
    CHECK_THAT(message_of([&] { SoundAugment(o, 16000); }), Contains(what));
  };
  says([](auto& o) { o.speeds = {1.0, 9.0}; }, "0.25..4, got 9");
  says([](auto& o) { o.noise_probability = 1.5; }, "noise probability");
  says([](auto& o) { o.coloured_noise = 2; }, "coloured noise probability");
  says([](auto& o) { o.reverb_probability = -1; }, "reverb probability");
  says([](auto& o) { o.gain_min = 1; }, "gain: expected min <= max");
  says([](auto& o) { o.noise_snr_min = NAN; }, "noise SNR");
  says([](auto& o) { o.noise = "/nowhere/noise.wav"; }, "no such file");
  CHECK_FALSE(SoundAugmentOptions{}.active());
  const SoundAugment nothing({}, 16000);
  Sound s = tone(440, 0.1, 16000);
  const Sound before = s;
  nothing(s, 1, 1, "u");
  CHECK(s.samples == before.samples);
  CHECK(nothing.speed(1, 1, "u") == 1);
}
