// asr transcribe and asr align as a user runs them, on speech in miniature (tests/tones.h), and the
// streams below them.
#include <catch2/catch.hpp>
#include <cmath>

#include "apps/audio/ctm.h"
#include "apps/audio/files.h"
#include "apps/audio/sound_stream.h"
#include "apps/audio/textgrid.h"
#include "apps/audio/vocab.h"
#include "tests/apps/process.h"
#include "tests/tones.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

std::string wav(const TempDir& dir, int i) {
  return dir / ("tones/u" + std::string(i < 10 ? "0" : "") + std::to_string(i) + ".wav");
}

// Tones with phones and words of two letters, and a recogniser that has seen a little of them. Its
// attention is local: what lies a quarter of a second away has no influence on a frame.
struct Trained {
  Trained() {
    make_tones(dir / "tones", kCount);
    std::vector<audio::Utterance> utterances;
    for (const std::string& line : audio::read_lines(dir / "tones/transcripts.tsv")) {
      const std::string letters = line.substr(line.find('\t') + 1);
      audio::Utterance u;
      u.audio = wav(dir, static_cast<int>(utterances.size()));
      u.id = std::filesystem::path(u.audio).stem().string();
      u.duration = audio::sound_duration(u.audio);
      for (size_t i = 0; i < letters.size(); ++i) {
        u.phones.emplace_back(1, letters[i]);
        u.text += (i > 0 && i % 2 == 0 ? " " : "") + std::string(1, letters[i]);
      }
      utterances.push_back(std::move(u));
    }
    audio::write_manifest(dir / "all.jsonl", utterances);
    audio::write_vocab(dir / "vocab.json", audio::build_vocab(utterances, audio::Unit::phones));
    std::ofstream lexicon(dir / "lexicon.txt");
    for (const char a : {'a', 'b', 'c', 'd'}) {
      lexicon << a << " " << a << "\n";
      for (const char b : {'a', 'b', 'c', 'd'}) lexicon << a << b << " " << a << " " << b << "\n";
    }
    const Outcome o = run(
        dir, "asr",
        Words{"train", "--train", dir / "all.jsonl", "--dev", dir / "all.jsonl", "--vocab",
              dir / "vocab.json", "--out", dir / "run"} +
            audio::split_words("--rate 8000 --bins 24 --width 32 --hidden 64 --layers 2 --heads 2 "
                               "--channels 4 --batch-items 8 --warmup 10 --eval-every 100 "
                               "--save-every 100 --lr 5e-3 --subsampling 2 --steps 100 "
                               "--attention local:window=4 --positions rotary --dynamic-range 15"));
    if (o.code != 0) throw Error(o.err);
  }
  static constexpr int kCount = 24;
  TempDir dir;
  std::string file(const std::string& name) const { return dir / name; }
};

const Trained& trained() {
  static const Trained instance;
  return instance;
}

Outcome transcribe(const TempDir& dir, const Words& words) {
  return run(dir, "asr", Words{"transcribe", "--model", trained().file("run")} + words);
}

Outcome align(const TempDir& dir, const Words& words) {
  return run(
      dir, "asr",
      Words{"align", "--model", trained().file("run"), "--data", trained().file("all.jsonl")} +
          words);
}

// All tones one after another.
std::string long_recording(const TempDir& dir) {
  audio::Sound all{{}, 8000};
  for (int i = 0; i < Trained::kCount; ++i) {
    const audio::Sound sound = audio::load_sound(wav(trained().dir, i));
    all.samples.insert(all.samples.end(), sound.samples.begin(), sound.samples.end());
  }
  const std::string path = dir / "long.wav";
  audio::write_wav(path, all);
  return path;
}

std::vector<float> all_of(audio::SoundStream& stream, int64_t block) {
  std::vector<float> all;
  for (auto part = stream.read(block); !part.empty(); part = stream.read(block)) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

audio::Sound noise(int64_t samples, int rate) {
  Rng rng(3, "noise");
  audio::Sound sound{{}, rate};
  for (int64_t i = 0; i < samples; ++i) {
    sound.samples.push_back(static_cast<float>(0.1 * rng.normal()));
  }
  return sound;
}

}  // namespace

TEST_CASE("features of a stream are those of the whole sound", "[transcribe]") {
  struct Shape {
    double length, shift;
  };
  for (const bool snip : {true, false}) {
    for (const Shape shape : {Shape{25, 10}, Shape{24.9, 10.1}, Shape{10, 25}}) {
      audio::FbankOptions options;
      options.rate = 8000;
      options.bins = 10;
      options.snip_edges = snip;
      options.frame_length_ms = shape.length;
      options.frame_shift_ms = shape.shift;
      for (const int64_t samples : {199, 200, 201, 479, 480, 481, 2399, 5003}) {
        const audio::Sound sound = noise(samples, 8000);
        if (samples < audio::Fbank(options).frame_length()) continue;
        const audio::Features whole = audio::Fbank(options)(sound);
        for (const int64_t block : {1, 57, 80, 1000, 10000}) {
          CAPTURE(snip, shape.length, samples, block);
          audio::FbankStream stream(options);
          std::vector<float> data;
          const auto take = [&](const audio::Features& f) {
            data.insert(data.end(), f.data.begin(), f.data.end());
          };
          for (int64_t at = 0; at < samples; at += block) {
            take(stream.push({sound.samples.begin() + at,
                              sound.samples.begin() + std::min(at + block, samples)}));
          }
          take(stream.finish());
          REQUIRE(data == whole.data);
        }
      }
    }
  }
  audio::FbankStream empty{audio::FbankOptions{}};
  CHECK_THROWS_WITH(empty.finish(), Contains("shorter than one frame: 0 samples"));
}

TEST_CASE("sound in blocks is the sound", "[transcribe]") {
  TempDir dir;
  const std::string path = dir / "noise.wav";
  audio::write_wav(path, noise(30011, 8000));
  for (const int rate : {8000, 16000, 11025}) {
    const audio::Sound whole = audio::load_sound(path, rate);
    for (const int64_t block : {1000, 65536}) {
      audio::SoundStream stream(path, rate);
      const std::vector<float> parts = all_of(stream, block);
      REQUIRE(parts.size() == whole.samples.size());
      double worst = 0;
      for (size_t i = 0; i < parts.size(); ++i) {
        worst = std::max(worst, std::abs(double{parts[i]} - whole.samples[i]));
      }
      CHECK(worst < (rate == 8000 ? 1e-30 : 1e-5));
      CHECK(stream.seconds() == Approx(30011 / 8000.0));
    }
  }
  const std::string bytes = read_text(path);
  std::ofstream(dir / "raw", std::ios::binary) << bytes.substr(44);
  audio::SoundStream raw(dir / "raw", 8000, 8000);
  CHECK(all_of(raw, 4096) == audio::load_sound(path).samples);
  std::ofstream(dir / "odd", std::ios::binary) << bytes.substr(45);
  CHECK_THROWS_WITH(audio::SoundStream(dir / "odd", 8000, 8000),
                    Contains("expected 16-bit samples"));
  std::ofstream(dir / "cut.wav", std::ios::binary) << bytes.substr(0, 20000);
  CHECK_THROWS_WITH(audio::SoundStream(dir / "cut.wav", 8000), Contains("truncated"));
  CHECK_THROWS_WITH(audio::SoundStream(dir / "none.wav", 8000), Contains("no such file"));
  CHECK(audio::is_sound_name("a/b.FLAC"));
  CHECK_FALSE(audio::is_sound_name("wav"));
}

TEST_CASE("windows and one pass agree", "[transcribe]") {
  TempDir dir;
  const std::string path = long_recording(dir);
  const Outcome one = transcribe(dir, {"--json", "--window", "0", path});
  INFO(one.err);
  REQUIRE(one.code == 0);
  CHECK_THAT(one.err, Contains("real-time factor") && Contains("peak memory"));
  const json expected = json::parse(one.out);
  REQUIRE(expected.at("tokens").size() > 20);
  for (const auto& [window, overlap] :
       {std::pair{"2", "1"}, std::pair{"3.1", "0.9"}, std::pair{"60", "2"}}) {
    CAPTURE(window);
    const Outcome o = transcribe(dir, {"--json", "--window", window, "--overlap", overlap, path});
    REQUIRE(o.code == 0);
    const json windows = json::parse(o.out);
    REQUIRE(windows.at("text") == expected.at("text"));
    for (size_t i = 0; i < expected.at("tokens").size(); ++i) {
      const json &a = expected["tokens"][i], &b = windows["tokens"][i];
      CHECK(a.at("begin") == b.at("begin"));
      CHECK(a.at("end") == b.at("end"));
      CHECK(a.at("confidence").get<double>() ==
            Approx(b.at("confidence").get<double>()).margin(2e-3));
    }
  }
  // Without an overlap frames lack what lies behind the seam: near there they may differ.
  CHECK(transcribe(dir, {"--window", "2", "--overlap", "0", path}).code == 0);
  CHECK(transcribe(dir, {"--window", "2", "--overlap", "1", "--statistics", "window", path}).code ==
        0);
  const Outcome bad = transcribe(dir, {"--window", "2", "--overlap", "1.5", path});
  CHECK(bad.code == 1);
  CHECK_THAT(bad.err, Contains("overlap: expected 0 to 1 s"));
}

TEST_CASE("words and language models are not cut at seams", "[transcribe]") {
  TempDir dir;
  audio::Sound all = audio::load_sound(long_recording(dir));
  const std::vector<float> once = all.samples;
  while (all.seconds() < 50) {
    all.samples.insert(all.samples.end(), once.begin(), once.end());
  }
  // Stretches of 20 s end elsewhere in the words when some silence goes before.
  std::vector<std::string> files;
  for (int i = 0; i < 4; ++i) {
    files.push_back(dir / ("longer" + std::to_string(i) + ".wav"));
    audio::write_wav(files.back(), all);
    all.samples.insert(all.samples.begin(), 1000, 0.0f);
  }
  // Each tone is a word with two names, which sound alike. Only the LM knows that every other round
  // has the second names, and that at the beginning of a sentence the first ones are usual.
  std::string round[2];
  std::ofstream lexicon(dir / "words.txt"), text(dir / "text.txt");
  for (const audio::Utterance& u : audio::read_manifest(trained().file("all.jsonl"))) {
    for (const int name : {0, 1}) {
      const std::string word = "xy"[name] + u.id;
      lexicon << word << " " << audio::join(u.phones, " ") << "\n";
      round[name] += word + " ";
      if (name == 0) text << word << "\n";
    }
  }
  const std::string said = round[0] + round[1] + round[0] + round[1];
  for (int i = 0; i < 5; ++i) text << said << "\n";
  lexicon.close();
  text.close();
  const Words lm{"lm", "--text", dir / "text.txt", "--order", "2", "--out", dir / "w.arpa"};
  REQUIRE(run(dir, "asr", lm).code == 0);
  for (const auto& [window, overlap] : {std::pair{"0", "0"}, {"2", "1"}, {"3.1", "0.9"}}) {
    CAPTURE(window);
    const Outcome o = transcribe(
        dir, Words{"--json", "--lexicon", dir / "words.txt", "--lm", dir / "w.arpa", "--lm-weight",
                   "2", "--beam", "64", "--window", window, "--overlap", overlap} +
                 files);
    REQUIRE(o.code == 0);
    for (const std::string& line : audio::lines_of(o.out, "transcripts")) {
      if (line.empty()) continue;
      CHECK(json::parse(line).at("text").get<std::string>() + " " == said);
      CHECK_FALSE(json::parse(line).contains("unfinished"));
    }
  }
  // What the lexicon has no words for is said to be missing.
  std::ofstream(dir / "lexicon.txt") << "ab a b\nlong d d d d d d d d d d d d\n";
  const Outcome lost =
      transcribe(dir, {"--json", "--lexicon", dir / "lexicon.txt", "--beam", "1", files[0]});
  REQUIRE(lost.code == 0);
  CHECK_THAT(lost.err, Contains("warning: ") && Contains("no words of the lexicon"));
  CHECK(json::parse(lost.out).at("unfinished").get<double>() < 50);
}

TEST_CASE("folders, standard input and formats", "[transcribe]") {
  TempDir dir;
  std::filesystem::create_directories(dir / "in/deep");
  std::filesystem::copy_file(wav(trained().dir, 1), dir / "in/one.wav");
  std::filesystem::copy_file(wav(trained().dir, 2), dir / "in/deep/two words.wav");
  std::ofstream(dir / "in/notes.txt") << "no sound";
  const Outcome o = transcribe(dir, {dir / "in", "--out", dir / "out", "--format",
                                     "text,json,srt,vtt,ctm,textgrid", "--json"});
  INFO(o.err);
  REQUIRE(o.code == 0);
  const json totals = json::parse(o.out);
  CHECK(totals.at("recordings") == 2);
  CHECK(totals.at("seconds").get<double>() ==
        Approx(audio::sound_duration(dir / "in/one.wav") +
               audio::sound_duration(dir / "in/deep/two words.wav")));
  CHECK(totals.at("seconds_taken").get<double>() > 0);
  CHECK(totals.at("peak_mib").get<double>() > 1);
  for (const std::string name : {"one", "deep/two words"}) {
    const auto content = [&](const char* end) { return read_text(dir / ("out/" + name + end)); };
    const json t = json::parse(content(".json"));
    CHECK(content(".txt") == t.at("text").get<std::string>() + "\n");
    CHECK_THAT(content(".srt"), Contains("1\n00:00:00,") && Contains(" --> "));
    CHECK_THAT(content(".vtt"), Contains("WEBVTT\n\n00:00:00."));
    const auto ctm = audio::parse_ctm(content(".ctm"), "ctm");
    const auto grid = audio::parse_textgrid(content(".TextGrid"), "grid");
    REQUIRE(ctm.size() == t.at("words").size());
    CHECK(ctm.at(0).word == t["words"][0].at("word"));
    CHECK(ctm.at(0).begin == t["words"][0].at("begin"));
    CHECK(grid.end == Approx(t.at("seconds").get<double>()).margin(1e-3));
  }

  // The same bytes through a pipe, as a sound file and as bare samples.
  const Outcome direct = transcribe(dir, {dir / "in/one.wav"});
  const auto piped = [&](const std::string& command) {
    const std::string whole = command + " | " + program_path("asr") + " transcribe --model " +
                              trained().file("run") + " - ";
    return whole;
  };
  const std::string file = dir / "in/one.wav";
  const std::string out = dir / "piped";
  REQUIRE(std::system((piped("cat " + file) + "> " + out + " 2> /dev/null").c_str()) == 0);
  CHECK(read_text(out) == direct.out);
  REQUIRE(std::system((piped("tail -c +45 " + file) + "--raw-rate 8000 > " + out + " 2> /dev/null")
                          .c_str()) == 0);
  CHECK(read_text(out) == direct.out);
  CHECK(std::system((piped("true") + "> /dev/null 2> " + out).c_str()) != 0);
  CHECK_THAT(read_text(out), Contains("standard input: expected a sound, got nothing"));
}

TEST_CASE("what cannot be transcribed is named, and the others go on", "[transcribe]") {
  TempDir dir;
  const std::string good = wav(trained().dir, 3);
  std::ofstream(dir / "bad.wav") << "this is no sound";
  const Outcome o = transcribe(dir, {dir / "bad.wav", dir / "none.wav", good});
  CHECK(o.code == 1);
  CHECK_THAT(o.out, Contains("u03.wav: "));
  CHECK_THAT(o.err, Contains("bad.wav: not a sound file") && Contains("none.wav: no such file") &&
                        Contains("2 of 3 inputs"));
  std::filesystem::create_directories(dir / "empty");
  CHECK_THAT(transcribe(dir, {dir / "empty"}).err, Contains("expected sound files in the folder"));
  CHECK_THAT(transcribe(dir, {good, "--format", "srt,json"}).err, Contains("expected --out"));
  CHECK_THAT(transcribe(dir, {good, "--raw-rate", "8000"}).err, Contains("standard input (-)"));
  CHECK_THAT(transcribe(dir, {good, good, "--out", dir / "out"}).err,
             Contains("several recordings are named u03"));
  CHECK_THAT(transcribe(dir, {good, good, "--format", "ctm"}).err,
             Contains("several recordings are named u03"));
  CHECK(transcribe(dir, {good, good}).code == 0);
  CHECK(transcribe(dir, {"--format", "srt", good, "--threads", "1"}).code == 0);
  CHECK(json::parse(transcribe(dir, {good, "--json"}).out).at("id") == "u03");
}

TEST_CASE("asr align writes symbols and words in time", "[align]") {
  TempDir dir;
  const std::string out = dir / "out";
  const Outcome o = align(dir, {"--lexicon", trained().file("lexicon.txt"), "--out", out,
                                "--format", "ctm,textgrid,lab,json"});
  INFO(o.err);
  REQUIRE(o.code == 0);
  const auto phones = audio::read_ctm(out + "/phones.ctm"),
             words = audio::read_ctm(out + "/words.ctm");
  size_t p = 0, w = 0;
  for (const audio::Utterance& u : audio::read_manifest(trained().file("all.jsonl"))) {
    const auto grid = audio::read_textgrid(out + "/" + u.id + ".TextGrid");
    REQUIRE(grid.tiers.size() == 2);
    double last = 0;
    for (const std::string& phone : u.phones) {
      const audio::CtmEntry& entry = phones.at(p++);
      CHECK(entry.recording == u.id);
      CHECK(entry.word == phone);
      CHECK(entry.begin >= last);
      last = entry.begin + entry.duration - 1e-9;
      CHECK(last <= u.duration + 1e-3);
      CHECK((entry.confidence >= 0 && entry.confidence <= 1));
    }
    for (const std::string& word : audio::split_words(u.text)) {
      const audio::CtmEntry& entry = words.at(w++);
      CHECK(entry.word == word);
      // A word begins with its first phone.
      CHECK(std::any_of(phones.begin(), phones.end(), [&](const audio::CtmEntry& phone) {
        return phone.recording == u.id && phone.begin == entry.begin &&
               phone.word == word.substr(0, 1);
      }));
    }
  }
  CHECK(p == phones.size());
  CHECK(w == words.size());
  CHECK(audio::read_lines(out + "/alignment.jsonl").size() == Trained::kCount);

  // Compared with what was written, errors are those of rounding to milliseconds.
  for (const Words& reference :
       {Words{"--reference", out}, Words{"--reference", out + "/phones.ctm"},
        Words{"--reference", out + "/words.ctm", "--compare", "words", "--lexicon",
              trained().file("lexicon.txt")}}) {
    const Outcome same = align(dir, reference + Words{"--json"});
    INFO(same.err);
    REQUIRE(same.code == 0);
    const json report = json::parse(same.out);
    CHECK(report.at("boundaries").at("mean_ms").get<double>() < 1.01);
    CHECK(report.at("boundaries").at("within_20_ms").get<double>() == Approx(1));
    CHECK(report.at("missing") == 0);
  }
  const Outcome shifted =
      align(dir, {"--reference", out + "/phones.ctm", "--shift", "0.03", "--json"});
  CHECK(json::parse(shifted.out).at("boundaries").at("bias_ms").get<double>() ==
        Approx(30).margin(2));
}

TEST_CASE("asr align names what it cannot align", "[align]") {
  TempDir dir;
  CHECK_THAT(align(dir, {}).err, Contains("expected --out FOLDER, --reference PATH or both"));
  std::vector<audio::Utterance> utterances = audio::read_manifest(trained().file("all.jsonl"));
  utterances.resize(2);
  utterances[1].phones.assign(300, "a");
  audio::write_manifest(dir / "bad.jsonl", utterances);
  const auto run_bad = [&](const Words& more) {
    return run(dir, "asr",
               Words{"align", "--model", trained().file("run"), "--data", dir / "bad.jsonl",
                     "--out", dir / "out"} +
                   more);
  };
  const Outcome o = run_bad({});
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("error: u01: forced alignment: 300 labels need at least 599 frames"));
  CHECK_THAT(o.err, Contains("1 of 2 utterances"));
  CHECK(audio::read_ctm(dir / "out/phones.ctm").size() == utterances[0].phones.size());
  std::ofstream(dir / "small.txt") << "a a\n";
  CHECK_THAT(run_bad({"--lexicon", dir / "small.txt"}).err, Contains("not in the lexicon: "));
  CHECK_THAT(run_bad({"--reference", dir / "nothing"}).err, Contains("no such file or folder"));
  // Utterance u01 cannot be aligned; these have no marks.
  const auto compared = [&](const Words& more) {
    const Outcome refused = run_bad(Words{"--json", "--reference", dir / "marks.ctm"} + more);
    CHECK(refused.code == 1);
    CHECK(refused.out.empty());
    return refused.err;
  };
  std::ofstream(dir / "marks.ctm") << "other 1 0 0.1 a\n";
  CHECK_THAT(compared({}), Contains("no line for the recording u00") &&
                               Contains("1 of 2 utterances have no marks"));
  std::ofstream(dir / "marks.ctm") << "u00 1 0 0.1 z\n";
  CHECK_THAT(compared({}), Contains("expected phones as in the transcripts"));
  CHECK_THAT(compared({"--compare", "words"}), Contains("expected a --lexicon"));
  std::ofstream(dir / "marks.ctm") << "u00 1 0 0.1 a\nu00 1 0.1 0.1 b\nu00 1 0 0.1 a\n";
  CHECK_THAT(compared({}), Contains("u00: a at 0 s is listed twice"));
}
