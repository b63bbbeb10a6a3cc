// Sound files: round trips, every way a file can be broken, segments, resampling.
#include "apps/audio/sound.h"

#include <sndfile.h>

#include <cstring>
#include <limits>

#include "apps/audio/sound_stream.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;

// libsndfile 1.2.0 does not free the Vorbis state of an Ogg file that it refuses to open.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:vorbis_info_init\n"; }

namespace {

void write_with_sndfile(const std::string& path, int format, const std::vector<float>& samples,
                        int rate, int channels = 1) {
  SF_INFO info{};
  info.samplerate = rate;
  info.channels = channels;
  info.format = format;
  SNDFILE* file = sf_open(path.c_str(), SFM_WRITE, &info);
  REQUIRE(file);
  const auto frames = static_cast<sf_count_t>(samples.size()) / channels;
  REQUIRE(sf_writef_float(file, samples.data(), frames) == frames);
  sf_close(file);
}

void shorten(const std::string& path, double part) {
  fs::resize_file(path, static_cast<uintmax_t>(static_cast<double>(fs::file_size(path)) * part));
}

}  // namespace

TEST_CASE("A WAV file written is read back to the last bit, also at odd lengths") {
  TempFolder folder;
  for (const size_t n : {1u, 2u, 3u, 799u, 16001u}) {
    Sound sound{{}, 11025};
    for (size_t i = 0; i < n; ++i)
      sound.samples.push_back(static_cast<float>(static_cast<int>(i * 7919 % 65536) - 32768) /
                              32768);
    const std::string path = folder / "x.wav";
    write_wav(path, sound);
    const Sound back = load_sound(path);
    CHECK(back.rate == 11025);
    CHECK(back.samples == sound.samples);
    CHECK(sound_duration(path) == Approx(static_cast<double>(n) / 11025));
  }
  Sound one{{1.0f, -1.0f}, 8000};
  write_wav(folder / "one.wav", one);
  CHECK(load_sound(folder / "one.wav").samples == std::vector<float>{32767.0f / 32768, -1.0f});
}

TEST_CASE("A WAV file is written whole or not at all") {
  TempFolder folder;
  const std::string path = folder / "x.wav";
  write_wav(path, tone(100, 0.1, 8000));
  const std::string before = slurp(path);
  Sound bad = tone(100, 0.1, 8000);
  bad.samples[5] = 1.5f;
  CHECK_THAT(message_of([&] { write_wav(path, bad); }),
             Contains("1.5") && Contains("at 5") && Contains("-1..1"));
  bad.samples[5] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THAT(message_of([&] { write_wav(path, bad); }), Contains("nan"));
  CHECK(slurp(path) == before);
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
  CHECK_THAT(message_of([&] { write_wav(folder / "no/such/x.wav", tone(100, 0.1, 8000)); }),
             Contains("No such file or directory"));
}

TEST_CASE("Channels are averaged and formats other than WAV are read") {
  TempFolder folder;
  std::vector<float> stereo;
  for (int i = 0; i < 500; ++i) {
    stereo.push_back(0.5f);
    stereo.push_back(-0.25f);
  }
  for (const auto& [name, format] : {std::pair{"x.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16},
                                     {"x.aiff", SF_FORMAT_AIFF | SF_FORMAT_PCM_24},
                                     {"x.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT},
                                     {"x.sph", SF_FORMAT_NIST | SF_FORMAT_PCM_16},
                                     {"x.au", SF_FORMAT_AU | SF_FORMAT_PCM_16}}) {
    INFO(name);
    write_with_sndfile(folder / name, format, stereo, 22050, 2);
    const Sound sound = load_sound(folder / name);
    CHECK(sound.rate == 22050);
    CHECK(sound.samples == std::vector<float>(500, 0.125f));
    CHECK(sound_duration(folder / name) == Approx(500.0 / 22050));
  }
}

TEST_CASE("A segment of a file is what the whole file has there") {
  TempFolder folder;
  for (const char* name : {"x.wav", "x.flac"}) {
    const int format = std::strstr(name, "flac") ? SF_FORMAT_FLAC : SF_FORMAT_WAV;
    write_with_sndfile(folder / name, format | SF_FORMAT_PCM_16, tone(440, 1.0, 8000).samples,
                       8000);
    const std::vector<float> all = load_sound(folder / name).samples;
    const Sound part = load_sound(folder / name, 0, 0.25, 0.5);
    CHECK(part.samples == std::vector<float>(all.begin() + 2000, all.begin() + 6000));
    CHECK(load_sound(folder / name, 0, 0.75).samples.size() == 2000);
    CHECK(load_sound(folder / name, 0, 0.5, 0.505).samples.size() == 4000);  // within the slack
    CHECK_THAT(message_of([&] { load_sound(folder / name, 0, 0.5, 0.6); }),
               Contains("ends at 1.1 s"));
    CHECK_THAT(message_of([&] { load_sound(folder / name, 0, 1.0); }), Contains("starts at 1 s"));
    CHECK_THAT(message_of([&] { load_sound(folder / name, 0, -1); }), Contains(">= 0"));
    CHECK_THAT(message_of([&] { load_sound(folder / name, 0, NAN); }), Contains(">= 0"));
  }
}

TEST_CASE("Truncated files name both counts") {
  TempFolder folder;
  const std::vector<float> samples = tone(440, 1.0, 16000).samples;
  write_wav(folder / "x.wav", {samples, 16000});
  shorten(folder / "x.wav", 0.5);
  CHECK_THAT(message_of([&] { load_sound(folder / "x.wav"); }),
             Contains("x.wav: truncated: the header promises 16000 frames, the file holds 7989"));
  CHECK_THAT(message_of([&] { sound_duration(folder / "x.wav"); }),
             Contains("promises 16000 frames"));
  for (const auto& [name, format] :
       {std::pair{"x.flac", SF_FORMAT_FLAC}, {"x.sph", SF_FORMAT_NIST}}) {
    write_with_sndfile(folder / name, format | SF_FORMAT_PCM_16, samples, 16000);
    shorten(folder / name, 0.6);
    CHECK_THAT(message_of([&, n = name] { load_sound(folder / n); }),
               Contains("truncated: the header promises 16000 frames, the file holds"));
  }
  for (const auto& [name, format] : {std::pair{"x.aiff", SF_FORMAT_AIFF},
                                     {"x.au", SF_FORMAT_AU},
                                     {"x.rf64", SF_FORMAT_RF64},
                                     {"x.w64", SF_FORMAT_W64}}) {
    INFO(name);
    write_with_sndfile(folder / name, format | SF_FORMAT_PCM_16, samples, 16000);
    CHECK(load_sound(folder / name).samples.size() == 16000);
    shorten(folder / name, 0.6);
    CHECK_THAT(message_of([&, n = name] { load_sound(folder / n); }), Contains("truncated"));
  }
  write_with_sndfile(folder / "x.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS, samples, 16000);
  CHECK(load_sound(folder / "x.ogg").samples.size() == 16000);
  shorten(folder / "x.ogg", 0.6);
  CHECK_THROWS_AS(load_sound(folder / "x.ogg"), centroid::Error);
}

TEST_CASE("A WAV file whose length is unknown, as pipes write it, is read") {
  TempFolder folder;
  write_wav(folder / "x.wav", tone(440, 0.1, 8000));
  std::string bytes = slurp(folder / "x.wav");
  for (const size_t at : {4u, 40u}) bytes.replace(at, 4, "\xFF\xFF\xFF\xFF");
  folder.write("pipe.wav", bytes);
  CHECK(load_sound(folder / "pipe.wav").samples == load_sound(folder / "x.wav").samples);
}

TEST_CASE("Missing, empty, corrupt and NaN sounds are named") {
  TempFolder folder;
  const auto says = [&](const std::string& name, const std::string& what) {
    const std::string message = message_of([&] { load_sound(folder / name); });
    CHECK_THAT(message, Contains(folder / name) && Contains(what));
  };
  says("none.wav", "no such file");
  fs::create_directory(folder / "folder.wav");
  says("folder.wav", "folder");
  folder.write("zero.wav", "");
  says("zero.wav", "empty file");
  folder.write("text.wav", "this is not a sound file, although its name says so");
  says("text.wav", "not a sound file");
  write_wav(folder / "empty.wav", {{}, 8000});
  says("empty.wav", "empty (0 frames)");
  std::vector<float> samples = tone(440, 0.1, 8000).samples;
  samples[77] = std::numeric_limits<float>::quiet_NaN();
  write_with_sndfile(folder / "nan.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, samples, 8000);
  says("nan.wav", "nan at frame 77");
  samples[77] = std::numeric_limits<float>::infinity();
  write_with_sndfile(folder / "inf.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, samples, 8000);
  says("inf.wav", "inf at frame 77");
  // Finite, but no feature of it would be.
  samples[77] = 1e30f;
  write_with_sndfile(folder / "huge.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, samples, 8000);
  says("huge.wav", "at most 1e+06 (full scale is 1), got 1e+30 at frame 77");
  CHECK_THAT(message_of([&] { SoundStream(folder / "huge.wav", 8000).read(1000); }),
             Contains("huge.wav: expected samples of at most"));
  samples[77] = 32767.0f;  // of integers written as they are
  write_with_sndfile(folder / "integer.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, samples, 8000);
  CHECK(load_sound(folder / "integer.wav").samples[77] == 32767.0f);

  write_with_sndfile(folder / "x.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16,
                     tone(440, 1, 8000).samples, 8000);
  std::string bytes = slurp(folder / "x.flac");
  for (size_t i = bytes.size() / 2; i < bytes.size() / 2 + 600; ++i)
    bytes[i] = static_cast<char>(i * 37);
  folder.write("corrupt.flac", bytes);
  CHECK_THROWS_AS(load_sound(folder / "corrupt.flac"), centroid::Error);
}

TEST_CASE("Resampling keeps a tone's frequency, amplitude and length") {
  const Sound sound = resample(tone(440, 1.0, 22050), 16000);
  CHECK(sound.rate == 16000);
  CHECK(std::abs(static_cast<int>(sound.samples.size()) - 16000) <= 1);
  const Sound expected = tone(440, 1.0, 16000);
  float worst = 0;
  for (size_t i = 1000; i < 15000; ++i)
    worst = std::max(worst, std::abs(sound.samples[i] - expected.samples[i]));
  CHECK(worst < 1e-3f);
  CHECK(resample(sound, 16000).samples == sound.samples);
  CHECK_THAT(message_of([&] { resample(sound, 1); }), Contains("1:256"));
  CHECK_THROWS_AS(resample(sound, 0), centroid::Error);

  TempFolder folder;
  write_wav(folder / "x.wav", tone(440, 1.0, 8000));
  const Sound loaded = load_sound(folder / "x.wav", 16000, 0.25, 0.5);
  CHECK(loaded.rate == 16000);
  CHECK(std::abs(static_cast<int>(loaded.samples.size()) - 8000) <= 1);
}
