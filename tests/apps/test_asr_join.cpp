// asr join: the sound and the transcript are those of the utterances, one after another.
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/audio/manifest.h"
#include "apps/audio/sound.h"
#include "tests/apps/audio_support.h"
#include "tests/apps/process.h"

namespace {

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;
using nlohmann::json;

// Three sounds of 0.2, 0.3 and 0.1 s at 8 kHz, the last a segment of a file of 0.5 s.
struct Sounds {
  Sounds() {
    const double lengths[] = {0.2, 0.3, 0.5};
    for (int i = 0; i < 3; ++i) {
      audio::Utterance u;
      u.id = "u" + std::to_string(i);
      u.audio = dir / (u.id + ".wav");
      audio::write_wav(u.audio, audio_test::tone(300 + 100 * i, lengths[i], 8000));
      u.text = i == 1 ? "" : "text " + u.id;
      u.phones = {"p" + u.id, "q"};
      u.speaker = "one";
      utterances.push_back(u);
    }
    utterances[2].offset = 0.25;
    utterances[2].duration = 0.1;
    audio::write_manifest(dir / "a.jsonl", {utterances[0], utterances[1]});
    audio::write_manifest(dir / "b.jsonl", {utterances[2]});
  }
  std::vector<float> samples(int i) const {
    const audio::Utterance& u = utterances[i];
    return audio::load_sound(u.audio, 0, u.offset, u.duration).samples;
  }
  Outcome join(const Words& words) const {
    return run(
        dir, "asr",
        Words{"join", "--data", dir / "a.jsonl", dir / "b.jsonl", "--out", dir / "long.wav"} +
            words);
  }
  audio::Utterance result() const { return audio::read_manifest(dir / "long.jsonl").at(0); }
  TempDir dir;
  std::vector<audio::Utterance> utterances;
};

}  // namespace

TEST_CASE("joined utterances are one recording with all they say", "[join]") {
  const Sounds sounds;
  const Outcome o = sounds.join({"--gap", "0.05"});
  INFO(o.err);
  REQUIRE(o.code == 0);
  CHECK_THAT(o.out, Contains("3 utterances, 0.7 s") && !Contains("not needed"));
  std::vector<float> want;
  for (int i = 0; i < 3; ++i) {
    if (i > 0) want.resize(want.size() + 400, 0.0f);
    const std::vector<float> part = sounds.samples(i);
    want.insert(want.end(), part.begin(), part.end());
  }
  const audio::Sound got = audio::load_sound(sounds.dir / "long.wav");
  CHECK(got.rate == 8000);
  CHECK(got.samples == want);
  const audio::Utterance u = sounds.result();
  CHECK(u.id == "long");
  CHECK(u.text == "text u0 text u2");
  CHECK(u.phones == std::vector<std::string>{"pu0", "q", "pu1", "q", "pu2", "q"});
  CHECK(u.speaker == "one");
  CHECK(u.duration == Approx(0.7));
}

TEST_CASE("joining stops when it is long enough, and says what is left", "[join]") {
  const Sounds sounds;
  const Outcome o = sounds.join({"--seconds", "0.4", "--rate", "16000", "--json"});
  INFO(o.err);
  REQUIRE(o.code == 0);
  const json printed = json::parse(o.out);
  CHECK(printed.at("utterances") == 2);
  CHECK(printed.at("left") == 1);
  CHECK(printed.at("seconds").get<double>() == Approx(0.5));
  CHECK(audio::load_sound(sounds.dir / "long.wav").rate == 16000);
  CHECK(sounds.result().phones.size() == 4);
  CHECK_THAT(sounds.join({"--seconds", "0.1"}).out, Contains("2 more were not needed"));
}

TEST_CASE("what cannot be joined is refused", "[join]") {
  Sounds sounds;
  const auto says = [&](const Words& words, int code, const char* what) {
    const Outcome o = run(sounds.dir, "asr", Words{"join"} + words);
    CHECK(o.code == code);
    CHECK_THAT(o.err, Contains(what));
    CHECK_FALSE(std::filesystem::exists(sounds.dir / "x.wav"));
  };
  const std::string a = sounds.dir / "a.jsonl", out = sounds.dir / "x.wav";
  says({"--data", a, "--out", sounds.dir / "x.mp3"}, 1, "ends in .wav");
  says({"--data", a}, 2, "--out");
  says({"--data", a, "--out", out, "--gap", "-1"}, 2, "--gap");
  says({"--data", sounds.dir / "none.jsonl", "--out", out}, 1, "none.jsonl");
  std::ofstream(sounds.dir / "empty.jsonl") << "";
  says({"--data", sounds.dir / "empty.jsonl", "--out", out}, 1, "found none");
  const std::string before = read_text(a);
  says({"--data", a, "--out", sounds.dir / "a.wav"}, 1, "a.jsonl would replace");
  says({"--data", a, "--out", sounds.dir / "u1.wav"}, 1, "u1.wav would replace");
  CHECK(read_text(a) == before);
  sounds.utterances[2].phones.clear();
  audio::write_manifest(sounds.dir / "b.jsonl", {sounds.utterances[2]});
  says({"--data", a, sounds.dir / "b.jsonl", "--out", out}, 1, "u2: expected phones in all");
}
