// Front ends, augmentation and caches as `asr` uses them.
#include <catch2/catch.hpp>
#include <numeric>
#include <set>
#include <thread>

#include "apps/asr_data.h"
#include "apps/audio/files.h"
#include "tests/apps/tone_corpus.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

struct Corpus : ToneCorpus {
  Corpus() : ToneCorpus(24) {
    // Two speakers, and some utterances of neither.
    std::vector<audio::Utterance> all = audio::read_manifest(data("train.jsonl"));
    for (size_t i = 0; i < all.size(); ++i) all[i].speaker = i % 5 == 4 ? "" : i % 2 ? "x" : "y";
    audio::write_manifest(data("train.jsonl"), all);
    std::filesystem::create_directories(dir / "noise");
    audio::write_wav(dir / "noise/n.wav", audio::load_sound(dir / "tones/u01.wav"));
  }
};

const Corpus& corpus() {
  static const Corpus instance;
  return instance;
}

Words tiny(const std::string& out, int steps, const Words& more = {}) {
  return Words{"train", "--train", corpus().data("train.jsonl"), "--vocab",
               corpus().data("vocab.json")} +
         Words{"--out", out, "--steps", std::to_string(steps)} +
         audio::split_words(
             "--rate 8000 --bins 20 --width 16 --hidden 32 --layers 1 --heads 2 --channels 4 "
             "--subsampling 2 --batch-items 4 --warmup 2 --save-every 3") +
         more;
}

std::vector<std::string> losses(const TempDir& dir, const std::string& name, const Words& more) {
  const Outcome o = run(dir, "asr", tiny(dir / name, 6, more));
  INFO(o.err);
  REQUIRE(o.code == 0);
  return log_lines(dir / name);
}

const Words& every_augmentation() {
  static const Words words =
      Words{"--noise", corpus().dir / "noise", "--reverb", corpus().dir / "noise/n.wav", "--dither",
            "1"} +
      audio::split_words(
          "--speed-perturb 0.9,1.0,1.1 --gain-min -6 --gain-max 6 "
          "--time-warp 5 --spec-augment-probability 0.8");
  return words;
}

asr::FrontEnd small_front_end() {
  asr::FrontEnd front_end;
  front_end.fbank.rate = 8000;
  front_end.fbank.bins = 20;
  return front_end;
}

}  // namespace

TEST_CASE("augmented training does not depend on threads, workers or caches", "[asr][front-end]") {
  TempDir dir;
  const auto expected = losses(dir, "a", every_augmentation());
  CHECK(losses(dir, "b", every_augmentation() + Words{"--workers", "3"}) == expected);
  CHECK(losses(dir, "c",
               every_augmentation() + Words{"--cache-dir", dir / "cache", "--threads", "1"}) ==
        expected);
  CHECK(losses(dir, "d", {}) != expected);
}

TEST_CASE("a training with changed sounds resumes to the same losses", "[asr][front-end]") {
  TempDir dir;
  const std::string whole = dir / "whole", killed = dir / "killed";
  REQUIRE(run(dir, "asr", tiny(whole, 20, every_augmentation())).code == 0);
  train_and_kill(dir, tiny(killed, 20, every_augmentation()), killed);
  const Outcome resumed = run(dir, "asr", {"train", "--resume", killed});
  INFO(resumed.err);
  REQUIRE(resumed.code == 0);
  CHECK(log_lines(killed) == log_lines(whole));
}

TEST_CASE("a feature cache is made once, used, and made anew when damaged", "[asr][front-end]") {
  TempDir dir;
  const auto expected = losses(dir, "plain", {});
  const Words cache = {"--cache-dir", dir / "cache"};
  const auto run_with = [&](const std::string& name, const Words& more = {"--cache-mib", "0"}) {
    const Outcome o = run(dir, "asr", tiny(dir / name, 6, cache + more));
    INFO(o.err);
    REQUIRE(o.code == 0);
    CHECK(log_lines(dir / name) == expected);
    return o.err;
  };
  CHECK_THAT(run_with("a"), Contains("feature cache: computing"));
  CHECK_THAT(run_with("b"), !Contains("feature cache"));
  CHECK_THAT(run_with("c", {"--workers", "2", "--cache-mib", "0"}), !Contains("feature cache"));
  CHECK_THAT(run_with("d", {"--cache-mib", "4096"}), !Contains("feature cache"));
  const auto files = audio::list_files(dir / "cache", ".features");
  REQUIRE(files.size() == 1);
  const std::string path = dir / ("cache/" + files[0]), bytes = read_text(path);

  // Cut off.
  std::ofstream(path, std::ios::binary) << bytes.substr(0, bytes.size() / 2);
  CHECK_THAT(run_with("e"), Contains("cut off") && Contains("making it anew"));
  CHECK(read_text(path) == bytes);

  // A changed feature.
  std::string bad = bytes;
  bad[bytes.size() / 3] ^= 1;
  std::ofstream(path, std::ios::binary) << bad;
  const Outcome damaged = run(dir, "asr", tiny(dir / "f", 6, cache));
  CHECK(damaged.code == 1);
  CHECK_THAT(damaged.err, Contains("error: ") && Contains(files[0]) && Contains("checksum"));

  // Other options make another file; in place of this one it is refused.
  REQUIRE(run(dir, "asr", tiny(dir / "g", 1, cache + Words{"--window", "hamming"})).code == 0);
  const auto both = audio::list_files(dir / "cache", ".features");
  REQUIRE(both.size() == 2);
  const std::string other = dir / ("cache/" + (both[0] == files[0] ? both[1] : both[0]));
  std::filesystem::copy_file(other, path, std::filesystem::copy_options::overwrite_existing);
  CHECK_THAT(run_with("h"), Contains("of other features") && Contains("making it anew"));

  // A sound that was changed since.
  const std::string wav = audio::read_manifest(corpus().data("train.jsonl"))[0].audio;
  const auto then = std::filesystem::last_write_time(wav);
  std::filesystem::last_write_time(wav, then + std::chrono::hours(1));
  CHECK_THAT(run_with("i"), Contains("feature cache: computing"));
  std::filesystem::last_write_time(wav, then);
}

TEST_CASE("cepstra, deltas and speakers' statistics train, are stored and used again",
          "[asr][front-end]") {
  TempDir dir;
  const Words options = audio::split_words(
      "--feature-type mfcc --num-ceps 13 --deltas 2 --normalize speaker --no-normalize-variance "
      "--window blackman --blackman-coeff 0.4 --use-energy --energy-floor 1 --dither 0.5");
  const Outcome trained = run(dir, "asr", tiny(dir / "run", 3, options));
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  const auto recognizer = asr::load_recognizer(dir / "run");
  CHECK(recognizer.front_end.columns() == 39);
  CHECK(recognizer.front_end.deltas.order == 2);
  CHECK_FALSE(recognizer.front_end.normalize_variance);
  CHECK(recognizer.front_end.fbank.type == audio::FeatureType::mfcc);
  CHECK(recognizer.front_end.fbank.blackman_coeff == 0.4);
  const std::string test = corpus().data("train.jsonl");
  const Outcome a = run(dir, "asr", {"eval", "--model", dir / "run", "--data", test}),
                b = run(dir, "asr", {"eval", "--model", dir / "run", "--data", test});
  INFO(a.err);
  CHECK(a.code == 0);
  CHECK(a.out == b.out);  // no dither here
  CHECK(run(dir, "asr", {"transcribe", "--model", dir / "run", corpus().dir / "tones/u00.wav"})
            .code == 0);
}

TEST_CASE("statistics are those of the speaker in the manifest, or of the utterance",
          "[front-end]") {
  const audio::Vocab vocab = audio::read_vocab(corpus().data("vocab.json"));
  asr::FrontEnd front_end = small_front_end();
  front_end.normalize = "speaker";
  asr::Dataset data(corpus().data("train.jsonl"), front_end, vocab, 1);
  CHECK_THROWS_WITH(data.features(0), Contains("statistics"));
  data.load();
  std::map<std::string, audio::StatsAccumulator> sums;
  for (int64_t i = 0; i < data.size(); ++i) {
    const audio::Utterance u = data.utterance(i);
    sums[u.speaker].add(front_end.filterbank(audio::load_sound(u.audio, 8000)));
  }
  REQUIRE(sums.size() == 3);
  for (int64_t i = 0; i < data.size(); ++i) {
    const audio::Utterance u = data.utterance(i);
    audio::Features want = front_end.filterbank(audio::load_sound(u.audio, 8000));
    if (u.speaker.empty()) {
      audio::normalize_utterance(want);
    } else {
      audio::apply(sums[u.speaker].finish(), want);
    }
    CHECK(data.features(i).data == want.data);
  }
}

TEST_CASE("speed changes the frames of a batch, never beyond its limit", "[front-end]") {
  const audio::Vocab vocab = audio::read_vocab(corpus().data("vocab.json"));
  const asr::FrontEnd front_end = small_front_end();
  asr::Dataset data(corpus().data("train.jsonl"), front_end, vocab, 1);
  data.check_feasible(1, false);
  data.load(/*keep=*/false);
  CHECK_FALSE(data.in_memory());
  audio::SoundAugmentOptions options;
  options.speeds = {0.8, 1.0, 1.25};
  asr::Augmentation changes;
  changes.sound = std::make_shared<audio::SoundAugment>(options, 8000);
  const std::vector<int64_t> most = data.frames(changes);
  int shorter = 0, longer = 0;
  for (int64_t i = 0; i < data.size(); ++i) {
    const audio::Utterance u = data.utterance(i);
    for (int epoch = 0; epoch < 6; ++epoch) {
      const audio::Features f = data.features(i, u, changes, 1, epoch);
      CHECK(f.frames <= most[i]);
      shorter += f.frames < data.frames()[i];
      longer += f.frames > data.frames()[i];
    }
    CHECK(most[i] <= front_end.frames(data.utterance(i).duration / 0.8) + 1);
  }
  CHECK(shorter > 5);
  CHECK(longer > 5);

  nn::BatchOptions batches;
  batches.max_frames = 400;
  asr::BatchStream one(data, batches, changes, 1, 0, 1), three(data, batches, changes, 1, 2, 3);
  std::vector<asr::SpeechBatch> first;
  for (int i = 0; i < 8; ++i) first.push_back(one.next());
  for (int i = 2; i < 8; ++i) {
    const asr::SpeechBatch batch = three.next();
    CHECK(batch.position == i);
    CHECK(batch.ids == first[i].ids);
    int64_t longest = 0;
    for (size_t b = 0; b < batch.features.size(); ++b) {
      CHECK(batch.features[b].data == first[i].features[b].data);
      longest = std::max(longest, batch.features[b].frames);
    }
    CHECK(longest * static_cast<int64_t>(batch.features.size()) <= 400);
  }
}

TEST_CASE("an utterance that would become too short for its labels keeps its speed",
          "[front-end]") {
  TempDir dir;
  const audio::Vocab vocab = audio::read_vocab(corpus().data("vocab.json"));
  const asr::FrontEnd front_end = small_front_end();
  const std::string wav = corpus().dir / "tones/u00.wav";
  const int64_t frames = front_end.frames(audio::sound_duration(wav));
  std::string text;
  while (static_cast<int64_t>(text.size()) < frames) text += text.size() % 2 ? 'a' : 'b';
  std::ofstream(dir / "one.jsonl") << json{{"id", "one"}, {"audio", wav}, {"text", text}}.dump();
  asr::Dataset data(dir / "one.jsonl", front_end, vocab, 1);
  CHECK(data.check_feasible(1, false).empty());
  data.load(false);
  audio::SoundAugmentOptions options;
  options.speeds = {1.5, 0.8};
  asr::Augmentation changes;
  changes.sound = std::make_shared<audio::SoundAugment>(options, 8000);
  std::set<int64_t> seen;
  for (int epoch = 0; epoch < 10; ++epoch) {
    seen.insert(data.features(0, data.utterance(0), changes, 1, epoch).frames);
  }
  CHECK(seen.size() == 2);
  CHECK(*seen.begin() == frames);
}

TEST_CASE("a limited dynamic range is taken before all statistics", "[front-end]") {
  const audio::Vocab vocab = audio::read_vocab(corpus().data("vocab.json"));
  asr::FrontEnd front_end = small_front_end(), whole = front_end;
  front_end.dynamic_range = 20;
  const audio::Sound sound = audio::load_sound(corpus().dir / "tones/u01.wav", 8000);
  audio::Features f = whole.filterbank(sound), limited = f;
  std::vector<float> maxima;
  audio::raise_maxima(maxima, f);
  const auto ratio = static_cast<float>(std::log(100.0));  // 20 dB of power
  for (int64_t i = 0; i < f.frames * f.bins; ++i) {
    limited.data[i] = std::max(f.data[i], maxima[i % f.bins] - ratio);
  }
  CHECK(limited.data != f.data);
  front_end.normalize = "none";
  const std::vector<float> got = front_end.finish(f).data;
  for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(limited.data[i]).margin(1e-5));
  front_end.normalize = "utterance";
  audio::normalize_utterance(limited);
  const std::vector<float> normal = front_end.finish(f).data;
  for (size_t i = 0; i < got.size(); ++i) {
    CHECK(normal[i] == Approx(limited.data[i]).margin(1e-4));
  }
  front_end.fbank.use_power = whole.fbank.use_power = false;
  front_end.normalize = "none";
  const audio::Features magnitudes = front_end.finish(whole.filterbank(sound));
  float widest = 0;
  for (int64_t b = 0; b < f.bins; ++b) {
    float least = 99, most = -99;
    for (int64_t t = 0; t < f.frames; ++t) {
      least = std::min(least, magnitudes.row(t)[b]);
      most = std::max(most, magnitudes.row(t)[b]);
    }
    widest = std::max(widest, most - least);
  }
  CHECK(widest == Approx(std::log(10.0)).margin(1e-4));  // 20 dB of magnitude

  front_end = small_front_end();
  front_end.dynamic_range = 20;
  for (const char* kind : {"speaker", "global"}) {
    front_end.normalize = kind;
    asr::FrontEnd other = front_end;
    other.dynamic_range = 0;
    const auto stats = [&](const asr::FrontEnd& of) {
      if (of.normalize == "global") {
        return asr::corpus_stats(corpus().data("train.jsonl"), of, "").mean;
      }
      asr::Dataset data(corpus().data("train.jsonl"), of, vocab, 1);
      data.load();
      std::vector<float> rows;  // normalised by what all utterances of a speaker are
      for (int64_t i = 0; i < data.size(); ++i) {
        const std::vector<float> values = data.features(i).data;
        rows.insert(rows.end(), values.begin(), values.end());
      }
      return rows;
    };
    const std::vector<float> with = stats(front_end), without = stats(other);
    REQUIRE(with.size() == without.size());
    if (front_end.normalize == "global") {
      for (size_t b = 0; b < with.size(); ++b) CHECK(with[b] >= without[b]);
      CHECK(with != without);
    } else {
      CHECK(std::abs(std::accumulate(with.begin(), with.end(), 0.0)) < 1e-3 * with.size());
      CHECK(with != without);
    }
  }

  CHECK(json::parse(json(front_end).dump()).get<asr::FrontEnd>().dynamic_range == 20);
  front_end.dynamic_range = -1;
  CHECK_THROWS_WITH(front_end.validate(), Contains("expected dB >= 0, got -1"));
  front_end.dynamic_range = 20;
  front_end.fbank.type = audio::FeatureType::mfcc;
  CHECK_THROWS_WITH(front_end.validate(), Contains("logarithms of bands"));
}

TEST_CASE("front ends of older checkpoints keep their text", "[front-end]") {
  const std::string old =
      R"({"fbank":{"bins":40,"dither":0.0,"energy_floor":0.0,"floor":1.1920928955078125e-07,)"
      R"("frame_length_ms":25.0,"frame_shift_ms":10.0,"high_freq":0.0,"low_freq":20.0,)"
      R"("preemphasis":0.97,"rate":16000,"remove_dc":true,"snip_edges":true,"use_energy":false,)"
      R"("use_power":true,"window":"povey"},"normalize":"utterance","stack":1,"stride":1})";
  const auto front_end = json::parse(old).get<asr::FrontEnd>();
  CHECK(json(front_end).dump() == old);
  asr::FrontEnd other = front_end;
  other.deltas.order = 1;
  other.normalize_variance = false;
  other.fbank.num_ceps = 12;
  const auto back = json::parse(json(other).dump()).get<asr::FrontEnd>();
  CHECK(back.deltas == other.deltas);
  CHECK(back.fbank == other.fbank);
  CHECK_FALSE(back.normalize_variance);
}

TEST_CASE("asr features prints cepstra, deltas and its speed; wrong options are named",
          "[asr][front-end]") {
  TempDir dir;
  const std::string wav = corpus().dir / "tones/u00.wav";
  const Outcome o = run(dir, "asr",
                        Words{"features", wav, "--json", "--out", dir / "f.txt"} +
                            audio::split_words("--rate 8000 --feature-type mfcc --bins 23 "
                                               "--deltas 2 --normalize utterance --repeat 3"));
  INFO(o.err);
  REQUIRE(o.code == 0);
  CHECK_THAT(o.err, Contains("times real time"));
  const json result = json::parse(o.out);
  CHECK(result.at(0).at("columns") == 39);
  CHECK(result.at(0).at("seconds_taken").get<double>() > 0);
  const auto rows = audio::read_lines(dir / "f.txt");
  CHECK(audio::split_words(rows.at(0)).size() == 39);
  const auto says = [&](const std::string& options, int code, const char* what) {
    const Outcome bad =
        run(dir, "asr", Words{"features", wav, "--rate", "8000"} + audio::split_words(options));
    CHECK(bad.code == code);
    CHECK_THAT(bad.err, Contains(what));
  };
  says("--feature-type mfcc --num-ceps 50", 1, "num_ceps: expected 1 to 40");
  says("--feature-type mfcc --no-use-log-fbank", 1, "use_log_fbank");
  says("--feature-type plp", 2, "--feature-type");
  says("--no-round-to-power-of-two --frame-length 20.125", 1, "even number of samples");
  says("--delta-window 0 --deltas 1", 2, "--delta-window");
  says("--normalize speaker", 2, "--normalize");
}

TEST_CASE("unusable augmentation stops a training before it begins", "[asr][front-end]") {
  TempDir dir;
  const auto says = [&](const Words& words, int code, const char* what) {
    const Outcome o = run(dir, "asr", tiny(dir / "run", 1, words));
    CHECK(o.code == code);
    CHECK_THAT(o.err, Contains(what));
    CHECK_FALSE(std::filesystem::exists(dir / "run/last.safetensors"));
  };
  says({"--noise", dir / "none.wav"}, 1, "none.wav: no such file");
  says({"--gain-min", "3"}, 1, "gain: expected min <= max");
  says({"--speed-perturb", "0.9,9"}, 2, "--speed-perturb");
  says({"--cache-dir", "/dev/null/cache"}, 1, "/dev/null/cache");
}
