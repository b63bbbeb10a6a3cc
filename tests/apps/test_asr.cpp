// The program `asr` as a user runs it, on speech in miniature (tests/tones.h).
#include <catch2/catch.hpp>
#include <thread>

#include "apps/asr_data.h"
#include "apps/audio/files.h"
#include "apps/audio/sound.h"
#include "tests/apps/tone_corpus.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

// Once for all tests.
const ToneCorpus& corpus() {
  static const ToneCorpus instance(40);
  return instance;
}

Words tiny(const std::string& out, int steps, const Words& more = {}, int subsampling = 2) {
  const std::string options =
      "--rate 8000 --bins 24 --width 32 --hidden 64 --layers 2 --heads 2 --channels 4 "
      "--batch-items 8 --warmup 10 --eval-every 20 --save-every 6 --lr 5e-3 --freq-width 2 "
      "--time-width 3";
  return Words{"train", "--train", corpus().data("train.jsonl"), "--dev",
               corpus().data("dev.jsonl")} +
         Words{"--vocab", corpus().data("vocab.json"), "--out", out} +
         Words{"--steps", std::to_string(steps), "--subsampling", std::to_string(subsampling)} +
         audio::split_words(options) + more;
}

double loss_of(const std::string& line) { return json::parse(line).at("loss").get<double>(); }

// A recogniser that has learned the tones, once for all tests.
const std::string& trained() {
  static const std::string folder = [] {
    const std::string out = corpus().dir / "trained";
    const Outcome o = run(corpus().dir, "asr", tiny(out, 300));
    if (o.code != 0) throw Error(o.err);
    return out;
  }();
  return folder;
}

// One utterance as a manifest.
std::string manifest_of(const TempDir& dir, const std::string& audio, const std::string& text) {
  const std::string path = dir / "one.jsonl";
  std::ofstream(path) << json{{"id", "one"}, {"audio", audio}, {"text", text}}.dump() << "\n";
  return path;
}

Outcome train_on(const TempDir& dir, const std::string& manifest, const Words& more = {}) {
  Words words = tiny(dir / "run", 2, more);
  words[2] = manifest;
  return run(dir, "asr", words);
}

}  // namespace

TEST_CASE("asr learns tones, is evaluated and transcribes", "[asr]") {
  TempDir dir;
  const std::string model = trained();
  for (const char* file : {"config.json", "log.jsonl", "last.safetensors", "best.safetensors"}) {
    CHECK(std::filesystem::exists(model + "/" + file));
  }
  const Outcome eval =
      run(dir, "asr",
          {"eval", "--model", model, "--data", corpus().data("test.jsonl"), "--json", "--list"});
  REQUIRE(eval.code == 0);
  const json result = json::parse(eval.out);
  CHECK(result.at("rate_name") == "CER");
  CHECK(result.at("rate").get<double>() < 0.35);  // guessing misses most of them
  CHECK(result.at("alignments").size() == result.at("utterances").get<size_t>());

  const Outcome line =
      run(dir, "asr", {"eval", "--model", model, "--data", corpus().data("test.jsonl")});
  CHECK_THAT(line.out, Contains("test CER "));
  CHECK_THAT(line.out, Contains("% (sub "));
  const Outcome words =
      run(dir, "asr",
          {"eval", "--model", model, "--data", corpus().data("test.jsonl"), "--score", "words"});
  CHECK_THAT(words.out, Contains("test WER "));
  CHECK_THAT(
      run(dir, "asr",
          {"eval", "--model", model, "--data", corpus().data("test.jsonl"), "--score", "phones"})
          .err,
      Contains("error: score: a recogniser of characters can be scored in characters or words"));
}

TEST_CASE("asr transcribe gives times inside the sound, at any rate", "[asr]") {
  TempDir dir;
  const std::string wav = corpus().dir / "tones/u09.wav";
  const Outcome o = run(dir, "asr", {"transcribe", "--model", trained(), "--json", wav});
  REQUIRE(o.code == 0);
  const json t = json::parse(o.out);
  REQUIRE(t.at("tokens").size() > 0);
  double last = 0;
  for (const json& token : t.at("tokens")) {
    CHECK(token.at("begin").get<double>() >= last);
    CHECK(token.at("end").get<double>() > token.at("begin").get<double>());
    last = token.at("begin").get<double>();
  }
  CHECK(last < t.at("seconds").get<double>());

  const std::string fast = dir / "fast.wav";
  audio::write_wav(fast, audio::load_sound(wav, 16000));
  const Outcome same = run(dir, "asr", {"transcribe", "--model", trained(), fast});
  CHECK(same.out == t.at("text").get<std::string>() + "\n");
}

TEST_CASE("a killed training resumes to the losses of an uninterrupted one", "[asr]") {
  TempDir dir;
  const std::string whole = dir / "whole", killed = dir / "killed";
  REQUIRE(run(dir, "asr", tiny(whole, 30)).code == 0);
  train_and_kill(dir, tiny(killed, 30), killed);
  const Outcome resumed = run(dir, "asr", {"train", "--resume", killed});
  INFO(resumed.err);
  REQUIRE(resumed.code == 0);
  CHECK(log_lines(killed) == log_lines(whole));
}

TEST_CASE("losses do not depend on the number of threads or on recompute", "[asr]") {
  TempDir dir;
  std::vector<std::vector<std::string>> logs;
  const std::vector<Words> ways = {{"--threads", "1"},
                                   {"--threads", "2"},
                                   {"--threads", "4"},
                                   {"--recompute"},
                                   {"--cache-mib", "0"}};
  for (const Words& way : ways) {
    const std::string out = dir / ("run" + std::to_string(logs.size()));
    REQUIRE(run(dir, "asr", tiny(out, 8, way)).code == 0);
    logs.push_back(log_lines(out));
  }
  for (size_t i = 1; i < logs.size(); ++i) {
    INFO(ways[i][0]);
    CHECK(logs[i] == logs[0]);
  }
  const std::string other = dir / "seed";
  REQUIRE(run(dir, "asr", tiny(other, 8, {"--seed", "2"})).code == 0);
  CHECK(log_lines(other) != logs[0]);
}

TEST_CASE("conformers with a loss in the middle train, go on and are evaluated", "[asr]") {
  TempDir dir;
  const Words conformer = {"--block", "conformer", "--kernel", "5", "--activation", "silu"};
  const Words middle = {"--intermediate-ctc", "1", "--intermediate-weight", "0.5"};
  const Outcome o = run(dir, "asr", tiny(dir / "run", 6, conformer + middle));
  INFO(o.err);
  REQUIRE(o.code == 0);
  REQUIRE(run(dir, "asr", {"train", "--resume", dir / "run", "--steps", "8"}).code == 0);
  const Words eval = {"eval", "--model", dir / "run", "--data", corpus().data("dev.jsonl")};
  CHECK(run(dir, "asr", eval).code == 0);
  // The loss in the middle is part of what is minimised.
  REQUIRE(run(dir, "asr", tiny(dir / "plain", 6, conformer)).code == 0);
  const auto first_loss = [&](const std::string& folder) {
    return loss_of(audio::read_lines(dir / (folder + "/log.jsonl"))[0]);
  };
  CHECK(first_loss("run") != first_loss("plain"));
  CHECK_THAT(run(dir, "asr", tiny(dir / "bad", 2, {"--intermediate-ctc", "2"})).err,
             Contains("ascending layers from 1 to 1, got 2"));
  CHECK_THAT(run(dir, "asr", tiny(dir / "even", 2, {"--block", "conformer", "--kernel", "4"})).err,
             Contains("odd number of frames, got 4"));
}

TEST_CASE("options that would have no effect are refused", "[asr]") {
  TempDir dir;
  const auto refuses = [&](const Words& words, const char* expected) {
    const Outcome o = run(dir, "asr", tiny(dir / "run", 1, words));
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("error: " + words[0] + ": of no use here: expected " + expected));
    CHECK_FALSE(std::filesystem::exists(dir / "run"));
  };
  refuses({"--kernel", "5"}, "--block conformer");
  refuses({"--topology", "ctc"}, "--loss lfmmi");
  refuses({"--leaky", "0.5"}, "--loss lfmmi");
  refuses({"--intermediate-weight", "0.5"}, "--intermediate-ctc");
  refuses({"--noise-probability", "1"}, "--noise");
  refuses({"--noise-snr-min", "1"}, "--noise or --coloured-noise");
  refuses({"--reverb-probability", "1"}, "--reverb");
  // A file of options may hold all of them, at their defaults.
  const Outcome dump = run(dir, "asr", tiny(dir / "run", 1, {"--dump-config"}));
  std::ofstream(dir / "c.json") << dump.out;
  const Outcome o = run(dir, "asr", {"train", "--config", dir / "c.json"});
  INFO(o.err);
  CHECK(o.code == 0);
  // A run that was begun before goes on.
  json config = json::parse(read_text(dir / "run/config.json"));
  config["noise-probability"] = 1;
  std::ofstream(dir / "run/config.json") << config.dump();
  const Outcome resumed = run(dir, "asr", {"train", "--resume", dir / "run", "--steps", "2"});
  INFO(resumed.err);
  CHECK(resumed.code == 0);
}

TEST_CASE("a training starts from the weights of another recogniser", "[asr]") {
  TempDir dir;
  const std::string start = dir / "start.safetensors";
  std::filesystem::copy_file(trained() + "/best.safetensors", start);
  const Words from{"--start-from", start};
  const auto first_loss = [&](const std::string& name) {
    return loss_of(log_lines(dir / name).at(0));
  };
  REQUIRE(run(dir, "asr", tiny(dir / "anew", 1)).code == 0);
  const Outcome same = run(dir, "asr", tiny(dir / "same", 1, from));
  INFO(same.err);
  REQUIRE(same.code == 0);
  CHECK_THAT(same.err, Contains("weights of " + start + "\n"));
  CHECK(first_loss("same") < 0.3 * first_loss("anew"));

  // Another vocabulary has an output layer of its own, however many symbols there are.
  std::string vocab = read_text(corpus().data("vocab.json"));
  vocab.replace(vocab.find("\"a\""), 3, "\"e\"");
  std::ofstream(dir / "vocab.json") << vocab;
  Words other = tiny(dir / "other", 1, from);
  *(std::find(other.begin(), other.end(), "--vocab") + 1) = dir / "vocab.json";
  other[2] = manifest_of(dir, corpus().dir / "tones/u01.wav", "be");
  other[4] = other[2];
  const Outcome renamed = run(dir, "asr", other);
  INFO(renamed.err);
  REQUIRE(renamed.code == 0);
  CHECK_THAT(renamed.err, Contains("; anew: output.weight, output.bias"));

  const Outcome unfit =
      run(dir, "asr", tiny(dir / "conformer", 1, from + Words{"--block", "conformer"}));
  CHECK(unfit.code == 1);
  CHECK_THAT(unfit.err, Contains("weights for a model of the same shape, got others: encoder."));

  // Resuming needs the run alone.
  train_and_kill(dir, tiny(dir / "killed", 40, from), dir / "killed");
  REQUIRE(run(dir, "asr", tiny(dir / "whole", 40, from)).code == 0);
  std::filesystem::remove(start);
  REQUIRE(run(dir, "asr", {"train", "--resume", dir / "killed"}).code == 0);
  CHECK(log_lines(dir / "killed") == log_lines(dir / "whole"));
}

TEST_CASE("front ends: stacked frames, global statistics, words", "[asr]") {
  TempDir dir;
  const std::string out = dir / "run";
  REQUIRE(
      run(dir, "asr", tiny(out, 20, {"--normalize", "global", "--stack", "3", "--stride", "2"}, 1))
          .code == 0);
  const auto lines = log_lines(out);
  CHECK(loss_of(lines[lines.size() - 2]) < loss_of(lines[0]));
  const Outcome eval =
      run(dir, "asr", {"eval", "--model", out, "--data", corpus().data("test.jsonl")});
  INFO(eval.err);
  CHECK(eval.code == 0);
}

TEST_CASE("bad data stop a training before it begins, naming the thing", "[asr]") {
  TempDir dir;
  const std::string wav = corpus().dir / "tones/u00.wav";
  SECTION("missing manifest") {
    const Outcome o = train_on(dir, dir / "none.jsonl");
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("none.jsonl"));
  }
  SECTION("broken manifest line") {
    std::ofstream(dir / "bad.jsonl") << "{\"id\": \"a\", \"audio\": \"x.wav\"}\n{\"id\": \n";
    CHECK_THAT(train_on(dir, dir / "bad.jsonl").err, Contains("bad.jsonl:2"));
  }
  SECTION("empty manifest") {
    std::ofstream(dir / "empty.jsonl");
    CHECK_THAT(train_on(dir, dir / "empty.jsonl").err, Contains("at least one utterance"));
  }
  SECTION("unknown symbol") {
    const Outcome o = train_on(dir, manifest_of(dir, wav, "abz"));
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("one") && Contains("z"));
  }
  SECTION("transcript longer than its frames") {
    const std::string manifest = manifest_of(dir, wav, std::string(200, 'a'));
    const Outcome o = train_on(dir, manifest);
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("one: 200 labels need at least 399 frames"));
    CHECK_THAT(train_on(dir, manifest, {"--overwrite", "--drop-infeasible"}).err,
               Contains("every utterance is too short"));
  }
  SECTION("truncated sound") {
    const std::string bytes = read_text(wav);
    std::ofstream(dir / "cut.wav", std::ios::binary) << bytes.substr(0, bytes.size() / 2);
    const Outcome o = train_on(dir, manifest_of(dir, dir / "cut.wav", "ab"));
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("utterance one") && Contains("cut.wav"));
  }
  SECTION("sound that is no sound") {
    std::ofstream(dir / "text.wav") << "this is not a sound file";
    CHECK_THAT(train_on(dir, manifest_of(dir, dir / "text.wav", "ab")).err, Contains("text.wav"));
  }
  CHECK_FALSE(std::filesystem::exists(dir / "run/last.safetensors"));
}

TEST_CASE("bad models and folders give errors that say so", "[asr]") {
  TempDir dir;
  const std::string test_set = corpus().data("test.jsonl");
  SECTION("checkpoint of another program") {
    REQUIRE(
        run(dir, "copy", {"train", "--length", "16", "--steps", "1", "--out", dir / "copy"}).code ==
        0);
    const Outcome o = run(dir, "asr", {"eval", "--model", dir / "copy", "--data", test_set});
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("expected a checkpoint of asr, got one of copy"));
  }
  SECTION("truncated checkpoint") {
    const std::string bytes = read_text(trained() + "/last.safetensors");
    std::ofstream(dir / "cut.safetensors", std::ios::binary) << bytes.substr(0, bytes.size() / 2);
    const Outcome o =
        run(dir, "asr", {"eval", "--model", dir / "cut.safetensors", "--data", test_set});
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("error: ") && Contains("cut.safetensors"));
  }
  SECTION("folder without a model") {
    std::filesystem::create_directories(dir / "nothing");
    CHECK_THAT(run(dir, "asr", {"eval", "--model", dir / "nothing", "--data", test_set}).err,
               Contains("expected a run folder"));
  }
  SECTION("output folder that cannot be made") {
    const Outcome o = run(dir, "asr", tiny("/dev/null/run", 1));
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("/dev/null"));
  }
  SECTION("a run that is there already") {
    CHECK_THAT(run(dir, "asr", tiny(trained(), 1)).err,
               Contains("--resume") && Contains("--overwrite"));
  }
  SECTION("usage") {
    const Outcome o = run(dir, "asr", tiny(dir / "run", 1, {"--layer", "3"}));
    CHECK(o.code == 2);
    CHECK_THAT(o.err, Contains("--layers"));
    CHECK(run(dir, "asr", {"trian"}).code == 2);
    CHECK(run(dir, "asr", {"train", "--help"}).code == 0);
    CHECK_THAT(run(dir, "asr", {"train", "--help-attention"}).out, Contains("full"));
  }
  SECTION("a device that is not there") {
    if (std::filesystem::exists("/dev/nvidiactl")) return;
    const Outcome o = run(dir, "asr", tiny(dir / "run", 1, {"--device", "cuda"}));
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("error: device cuda:0: "));
  }
  SECTION("attention for language models") {
    const Words causal = {"--attention", "causal-improved-clustered"};
    CHECK_THAT(run(dir, "asr", tiny(dir / "run", 1, causal)).err,
               Contains("must be causal (expected one that may look ahead, such as full"));
  }
  SECTION("memory that is no number") {
    CHECK(run(dir, "asr", tiny(dir / "run", 1, {"--cache-mib", "nan"})).code == 2);
  }
  SECTION("ids that a file of transcripts cannot hold") {
    std::vector<audio::Utterance> set = audio::read_manifest(test_set);
    set.resize(1);
    set[0].id = "my rec 0";
    audio::write_manifest(dir / "spaces.jsonl", set);
    const Words eval = {"eval", "--model", trained(), "--data", dir / "spaces.jsonl"};
    CHECK(run(dir, "asr", eval).code == 0);
    const Outcome o = run(dir, "asr", eval + Words{"--hyp", dir / "hyp"});
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("--hyp: expected ids without white space, got 'my rec 0'"));
  }
  SECTION("attention that does not exist") {
    const Outcome o = run(dir, "asr", tiny(dir / "run", 1, {"--attention", "ful"}));
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("full"));
  }
}

TEST_CASE("attention-map draws speech and copy models", "[asr][attention-map]") {
  TempDir dir;
  const auto map = [&](const Words& words) {
    return run(dir, "attention-map", Words{"--out", dir / "map.png"} + words);
  };
  const Outcome speech = map({"--model", trained(), "--audio", corpus().dir / "tones/u00.wav"});
  INFO(speech.err);
  REQUIRE(speech.code == 0);
  CHECK_THAT(speech.out, Contains("4 attention matrices"));
  CHECK(read_text(dir / "map.png").substr(1, 3) == "PNG");
  CHECK_THAT(
      map({"--model", trained(), "--audio", corpus().dir / "tones/u00.wav", "--layers", "7"}).err,
      Contains("layer: expected 0 to 1, got 7"));
  REQUIRE(
      run(dir, "copy", {"train", "--length", "16", "--steps", "1", "--out", dir / "copy"}).code ==
      0);
  CHECK(map({"--model", dir / "copy", "--heads", "0"}).code == 0);
}

TEST_CASE("a new recogniser puts out the blank with the probability it is given", "[asr]") {
  asr::RecognizerOptions options;
  options.columns = 8, options.classes = 11, options.encoder.layers = 1;
  Rng rng(1, "init");
  asr::Recognizer model(options, rng);
  model.expect_blank(0.75);
  for (const auto& [name, weight] : model.named_parameters()) {
    if (name == "output.weight") raw::fill_(weight, 0);
  }
  const NoGrad no_grad;
  const auto [logits, lengths] =
      model.forward(raw::normal({1, 9, 8}, rng), Lengths(std::vector<int64_t>{9}), {});
  const Tensor p = raw::softmax(logits);
  for (int64_t t = 0; t < lengths[0]; ++t) {
    CHECK(p.data<float>()[11 * t] == Approx(0.75));
    CHECK(p.data<float>()[11 * t + 1] == Approx(0.025));
  }
}

TEST_CASE("batches are padded with zeros", "[asr]") {
  const audio::Features a{2, 3, {1, 2, 3, 4, 5, 6}}, b{1, 3, {7, 8, 9}};
  const auto [x, lengths] = asr::pad_features({&a, &b});
  CHECK(x.shape() == Shape{2, 2, 3});
  CHECK(x.to_vector<float>() == std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0});
  CHECK(lengths.values() == std::vector<int64_t>{2, 1});
  CHECK_THROWS_WITH(asr::pad_features({}), Contains("at least one item"));
  const audio::Features narrow{1, 2, {1, 2}};
  CHECK_THROWS_WITH(asr::pad_features({&a, &narrow}), Contains("columns differ: 3 and 2"));
}
