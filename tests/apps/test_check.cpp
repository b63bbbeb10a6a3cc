// What is said about single utterances.
#include "apps/audio/check.h"

#include "apps/asr_model.h"
#include "nn/layers.h"
#include "nn/loss.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;

namespace {

Utterance spoken(const std::string& audio, const std::string& text) {
  Utterance u;
  u.id = "u";
  u.audio = audio;
  u.text = text;
  return u;
}

// The only problem of an utterance, and whether it can be used.
struct Verdict {
  bool usable;
  std::string kind, what;
};

Verdict verdict(Utterance u, const CheckOptions& options) {
  std::vector<Problem> problems;
  const bool usable = check_utterance(u, options, problems);
  REQUIRE(problems.size() <= 1);
  if (problems.empty()) return {usable, "", ""};
  CHECK(problems[0].id == "u");
  CHECK(usable == is_warning(problems[0].kind));
  return {usable, name_of(problems[0].kind), problems[0].what};
}

CheckOptions characters() {
  CheckOptions o;
  o.unit = Unit::characters;
  return o;
}

}  // namespace

TEST_CASE("Text is normalised, in either letter case", "[check]") {
  TempFolder folder;
  Utterance u = spoken(folder.write_tone("a.wav"), "  Hello,   WORLD! ");
  std::vector<Problem> problems;
  CheckOptions o = characters();
  o.letters = LetterCase::lower;
  o.strip_punctuation = true;
  CHECK(check_utterance(u, o, problems));
  CHECK(u.text == "hello world");
  CHECK(u.duration == 0.1);
  o.letters = LetterCase::upper;
  CHECK(check_utterance(u, o, problems));
  CHECK(u.text == "HELLO WORLD");
  CHECK(problems.empty());
}

TEST_CASE("Every fault of a sound has its kind", "[check]") {
  TempFolder folder;
  const CheckOptions o = characters();
  CHECK(verdict(spoken(folder / "none.wav", "a"), o).kind == "missing");
  CHECK(verdict(spoken(folder.write("a.wav", "no sound"), "a"), o).kind == "unreadable");
  const std::string cut = folder.write_tone("cut.wav");
  fs::resize_file(cut, 100);
  CHECK_THAT(verdict(spoken(cut, "a"), o).what, Contains("truncated"));
  const std::string tone = folder.write_tone("tone.wav", 1.0);
  CHECK(verdict(spoken(tone, "a"), o).usable);
  CHECK(verdict(spoken(tone, " "), o).kind == "no-text");
  Utterance late = spoken(tone, "a");
  late.offset = 0.5;
  late.duration = 0.6;
  CHECK(verdict(late, o).kind == "segment");
  late.offset = 2;
  late.duration = 0;
  CHECK(verdict(late, o).kind == "segment");
  late.offset = 0.5;
  CHECK(verdict(late, o).usable);
}

TEST_CASE("Silence is a fault, clipping and length are warnings", "[check]") {
  TempFolder folder;
  const auto with = [&](std::vector<float> samples) {
    write_wav(folder / "x.wav", {std::move(samples), 8000});
    return spoken(folder / "x.wav", "a");
  };
  CheckOptions o = characters();
  CHECK_THAT(verdict(with(std::vector<float>(800, 0.0f)), o).what, Contains("every sample is 0"));
  std::vector<float> quiet(800, 0.0f);
  quiet[7] = -0.0009f;
  CHECK(verdict(with(quiet), o).kind == "silent");
  quiet[7] = -0.0011f;  // -59.2 dB
  CHECK(verdict(with(quiet), o).usable);
  o.silence_db = -40;
  CHECK_THAT(verdict(with(quiet), o).what, Contains("-59 dB"));

  std::vector<float> loud(1000, 0.1f);
  for (int i = 0; i < 10; ++i) loud[i] = i % 2 ? -1.0f : 1.0f;
  CHECK(verdict(with(loud), o).kind == "");
  loud[10] = 1.0f;
  const Verdict clipped = verdict(with(loud), o);
  CHECK(clipped.kind == "clipped");
  CHECK(clipped.usable);
  CHECK_THAT(clipped.what, Contains("1.1 % of the samples"));
  o.max_clipped = 0.02;
  CHECK(verdict(with(loud), o).kind == "");
  o.longest = 0.1;
  CHECK(verdict(with(loud), o).kind == "too-long");
}

TEST_CASE("How far sounds are looked at", "[check]") {
  TempFolder folder;
  write_wav(folder / "silent.wav", {std::vector<float>(800, 0.0f), 8000});
  Utterance u = spoken(folder / "silent.wav", "a");
  CheckOptions o = characters();
  CHECK(verdict(u, o).kind == "silent");
  o.sound = SoundCheck::headers;
  CHECK(verdict(u, o).usable);
  u.audio = folder / "none.wav";
  CHECK(verdict(u, o).kind == "missing");
  o.sound = SoundCheck::none;
  CHECK_THAT(verdict(u, o).what, Contains("no duration"));
  u.duration = 2;
  CHECK(verdict(u, o).usable);
}

TEST_CASE("Phones come from the corpus or from a lexicon", "[check]") {
  CheckOptions o;
  o.sound = SoundCheck::none;
  Utterance u = spoken("x.wav", "the cat the");
  u.duration = 1;
  CHECK_THAT(verdict(u, o).what, Contains("--lexicon"));
  const Lexicon lexicon = parse_lexicon("the 0.4 DH IY\nthe 0.6 DH AH\ncat 1 K AE T\n", "lexicon");
  o.lexicon = &lexicon;
  std::vector<Problem> problems;
  CHECK(check_utterance(u, o, problems));
  CHECK(u.phones == Strings{"DH", "AH", "K", "AE", "T", "DH", "AH"});
  u.text = "the dog saw the dog";
  const Verdict unknown = verdict(u, o);
  CHECK(unknown.kind == "unknown-word");
  CHECK(unknown.what == "not in the lexicon: dog, saw");
  u.text = "";
  CHECK(verdict(u, o).kind == "no-text");
}

TEST_CASE("Positions are those of the front end and the recogniser", "[check]") {
  const centroid::asr::FrontEnd front_end;
  for (const int64_t subsampling : {1, 2, 4, 8}) {
    for (int ms = 0; ms < 400; ++ms) {
      const int64_t frames = ms < 25 ? 0 : front_end.frames(ms / 1000.0);
      REQUIRE(positions(ms / 1000.0, subsampling) ==
              centroid::nn::ConvSubsampling::output_length(frames, subsampling));
    }
  }
  for (const std::vector<int32_t>& labels :
       {std::vector<int32_t>{}, {1}, {1, 1}, {1, 2, 1}, {3, 3, 3, 1, 1}}) {
    CHECK(ctc_positions(labels) == centroid::nn::ctc_min_frames(labels));
  }
}
